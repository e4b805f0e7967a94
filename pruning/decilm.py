"""A pruned model as a DeciLM folder, which stock vLLM serves with a width of its own in every layer.

vLLM's class DeciLMForCausalLM (its models/nemotron_nas.py) is Llama with an FFN width and a number of key-value heads
per layer, and with layers that lack their attention or their FFN. Tensor names and weights stay as they are; what
differs is config.json, and a configuration class of a few lines that is written beside it, for which vLLM wants
`--trust-remote-code`.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.core.bounded_read import read_text
from harness.core.errors import UsageError
from harness.core.files import check_disk
from harness.core.types.pruning import ModelShape, PruningPlan
from harness.core.written_folder import Replaceable, written_folder
from pruning import missing_attention
from pruning.checkpoint import ModelFolder
from pruning.export import job_of, write_own_files, write_weights
from pruning.head_slots import kv_slots, query_heads
from pruning.model_card import AS_USUAL, BY_DECILM, BY_PLUGIN
from pruning.pieces import structure_config
from pruning.side_files import copy_own_files, copy_side_files, is_ours
from pruning.structures import kept_layers
from pruning.tokenizer_match import keep_tokenizer
from pruning.vocabulary_files import with_vocabulary, write_vocabulary

CONFIGURATION = "configuration_pruned.py"
MODEL_TYPE, ARCHITECTURE = "nemotron-nas", "DeciLMForCausalLM"
_TOKENS = {"bos_token_id": 1, "eos_token_id": 2}
_DEFAULTS: Mapping[str, Mapping[str, Any]] = {  # family -> where config.json lacks a key, as its own class has it
    "llama": _TOKENS,
    "mistral": _TOKENS,
    "qwen2": {},
}
_SHARED = {"rms_norm_eps": 1e-6, "hidden_act": "silu", "attention_bias": False, "mlp_bias": False}
_NO_BIAS = {"attention_bias": False, "mlp_bias": False}  # whatever config.json says, which these classes do not read
_ALWAYS: Mapping[str, Mapping[str, Any]] = {"llama": {}, "mistral": _NO_BIAS, "qwen2": {**_NO_BIAS, "qkv_bias": True}}
_DROPPED = (  # of which the class knows nothing, or which would mean something else to it
    *(
        "intermediate_sizes",
        missing_attention.KEY,
        "layer_types",
        "sliding_window",
        "use_sliding_window",
        "max_window_layers",
    ),
    *("rope_theta", "rope_scaling", "auto_map", "bias", "qkv_bias"),
)
_WINDOWS = {"mistral": ("sliding_window", 4096)}  # the key that says a window, and what it is without that key
_FROM_LENGTH = ("llama3", "longrope", "yarn")  # kinds of RoPE that stretch the length of the training
_ROPE_KEYS = ("rope_parameters", "rope_scaling")
_FILE = '''"""The configuration of a pruned model, for vLLM's DeciLMForCausalLM. Written by harness-prune."""

from transformers import PretrainedConfig


class Block(dict):
    """A part of config.json that is read by attribute; what is not there raises AttributeError."""

    def __getattr__(self, name):
        try:
            return self[name]
        except KeyError as error:
            raise AttributeError(name) from error


class PrunedConfig(PretrainedConfig):
    model_type = "nemotron-nas"

    def __init__(self, block_configs=(), **others):
        self.block_configs = [Block({name: Block(part) for name, part in block.items()}) for block in block_configs]
        super().__init__(**others)
'''


@dataclass(frozen=True)
class Layer:
    """What is left of a layer.

    Attributes:
        width: FFN neurons.
        kv_heads: Key-value heads, among which all query heads of the model are shared out (head_slots.py).
        skip_attention: Whether it has no attention.
        skip_ffn: Whether it has no FFN.
    """

    width: int
    kv_heads: int
    skip_attention: bool = False
    skip_ffn: bool = False


def layers_of(model: ModelFolder) -> tuple[Layer, ...]:
    """A model's layers."""
    missing = missing_attention.skipped_layers(model.config, len(model.widths))
    heads = model.shape.num_key_value_heads
    return tuple(Layer(width, heads, layer in missing) for layer, width in enumerate(model.widths))


def unsayable(config: Mapping[str, Any], shape: ModelShape, layers: Sequence[Layer]) -> str | None:
    """Why vLLM's DeciLM class cannot be a model, None where it can.

    Args:
        config: config.json.
        shape: Its sizes; each layer has all of its query heads.
        layers: What is left of each.
    """
    model_type, heads = shape.model_type, shape.num_attention_heads
    if model_type not in _DEFAULTS:
        return f"vLLM's DeciLM class is not a {model_type}, only {', '.join(sorted(_DEFAULTS))}"
    kinds = config.get("layer_types") or []
    kinds = kinds if isinstance(kinds, list) else [kinds]
    slides = config.get(*_WINDOWS.get(model_type, ("use_sliding_window", False)))
    if slides or any(kind != "full_attention" for kind in kinds):
        return "vLLM's DeciLM class has no sliding window"
    if bad := [key for key in _ROPE_KEYS if not isinstance(config.get(key) or {}, dict)]:
        return f"its {bad[0]} is no JSON object"
    if layers[0].skip_attention:
        return "vLLM's DeciLM class needs the attention of the first layer"
    if odd := [layer.kv_heads for layer in layers if not layer.skip_attention and heads % layer.kv_heads]:
        return f"{heads} query heads cannot be shared out among {odd[0]} key-value heads"
    return None


def decilm_config(config: Mapping[str, Any], shape: ModelShape, layers: Sequence[Layer]) -> dict[str, Any]:
    """config.json of a DeciLM folder.

    Args:
        config: The checkpoint's.
        shape: Its sizes, for what config.json leaves to the architecture's own class.
        layers: What is left of each.
    """
    kept = {key: value for key, value in config.items() if key not in _DROPPED}
    return {
        **_SHARED,
        **_DEFAULTS[shape.model_type],
        **kept,
        **_ALWAYS[shape.model_type],
        "architectures": [ARCHITECTURE],
        "model_type": MODEL_TYPE,
        "auto_map": {"AutoConfig": f"{CONFIGURATION.removesuffix('.py')}.PrunedConfig"},
        "intermediate_size": max(layer.width for layer in layers),
        "num_key_value_heads": max(layer.kv_heads for layer in layers if not layer.skip_attention),
        "num_attention_heads": shape.num_attention_heads,
        "head_dim": shape.head_dim,
        "max_position_embeddings": shape.max_position_embeddings,
        "tie_word_embeddings": shape.tied,
        "rope_parameters": rope_of(config),
        "block_configs": [_block(layer, shape.num_attention_heads) for layer in layers],
    }


def rope_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """rope_parameters, as transformers reads them: also of a config.json from before its version 5, which had two keys
    for it (modeling_rope_utils: convert_rope_params_to_dict, standardize_rope_params).
    """
    found = dict(config.get("rope_scaling") or config.get("rope_parameters") or {})
    rope = {"rope_theta": config.get("rope_theta", 10000.0), "rope_type": found.pop("type", "default"), **found}
    if rope["rope_type"] in _FROM_LENGTH:
        rope.setdefault("original_max_position_embeddings", config.get("max_position_embeddings"))
    return rope


def _block(layer: Layer, heads: int) -> dict[str, Any]:
    attention = {"n_heads_in_group": heads // layer.kv_heads}
    return {
        "attention": {"no_op": layer.skip_attention, **({} if layer.skip_attention else attention)},
        "ffn": {"no_op": layer.skip_ffn, **({} if layer.skip_ffn else {"intermediate_size": layer.width})},
    }


def write_decilm(model: ModelFolder, out: Path) -> Path:
    """Writes a checkpoint as a DeciLM folder, completely or not at all; the files of weights are linked where possible.

    Args:
        model: A checkpoint that `export` wrote, of any widths, fine-tuned or not; or a dense model.
        out: The folder to write; a DeciLM folder that was written there before is replaced.

    Raises:
        UsageError: The class cannot be this model, its tokenizer cannot be kept, or `out` holds something else.
    """
    layers = layers_of(model)
    if reason := unsayable(model.config, model.shape, layers):
        raise UsageError(f"{model.path} cannot be a DeciLM folder: {reason}")
    check_disk(out, model.weight_bytes)
    config = decilm_config(model.config, model.shape, layers)
    with written_folder(out, decilm_replaceable()) as scratch:
        copy_side_files(model, scratch)
        copy_own_files(model.path, scratch)
        for shard in model.shards:
            _link(shard.path, scratch / shard.path.name)
        if (card := model.path / "README.md").is_file():
            shutil.copyfile(card, scratch / "README.md")
        _write_own_files(scratch, config)
        keep_tokenizer(model, scratch, config, None)
    return out


def export_decilm(
    model: ModelFolder, plan: PruningPlan, out: Path, progress: Callable[[int], None] = lambda _: None
) -> Path:
    """Writes what a plan leaves of a model as a DeciLM folder, completely or not at all.

    Args:
        model: The dense model that the plan was made for.
        plan: What stays; also of plans that no plain folder can hold. Its file's re-fitted columns are used.
        out: The folder to write; a DeciLM folder that was written there before is replaced.
        progress: Is called with 1 after every shard.

    Raises:
        UsageError: The class cannot be this model, the plan is another model's, the tokenizer cannot be kept, or `out`
            holds something else.
    """
    job = replace(job_of(model, plan, plan.path), decilm=True)
    if reason := plan_refusal(model, plan):
        raise UsageError(f"the plan of {plan.model} cannot be a DeciLM folder: {reason}")
    config = structure_config(model.config, job)
    if plan.vocabulary is not None:
        config = with_vocabulary(config, plan.vocabulary)
    config = decilm_config(config, _with_heads(plan, model.shape), plan_layers(plan, model.shape))
    check_disk(out, model.weight_bytes)
    with written_folder(out, decilm_replaceable()) as scratch:
        copy_side_files(model, scratch)
        if plan.vocabulary is not None:
            write_vocabulary(model, plan.vocabulary, scratch)
        write_own_files(model, scratch, plan, plan.path, config)
        _write_own_files(scratch, config)
        keep_tokenizer(model, scratch, config, plan.vocabulary)  # before the weights, which take long
        write_weights(model, scratch, job, progress)
    return out


def plan_refusal(model: ModelFolder, plan: PruningPlan) -> str | None:
    """Why vLLM's DeciLM class cannot be what a plan leaves of a model, None where it can."""
    return unsayable(model.config, _with_heads(plan, model.shape), plan_layers(plan, model.shape))


def plan_layers(plan: PruningPlan, shape: ModelShape) -> tuple[Layer, ...]:
    """What a plan leaves of each layer, without the layers of which nothing stays."""
    return tuple(
        Layer(plan.widths[i], kv_slots(plan, i, shape), i in plan.skip_attention, i in plan.skip_ffn)
        for i in kept_layers(plan)
    )


def _with_heads(plan: PruningPlan, shape: ModelShape) -> ModelShape:
    """The shape with the query heads that every layer has."""
    return replace(shape, num_attention_heads=query_heads(plan, shape))


def _write_own_files(folder: Path, config: Mapping[str, Any]) -> None:
    """config.json and its class; the card says how this folder is loaded, where it said how the checkpoint is."""
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    (folder / CONFIGURATION).write_text(_FILE, encoding="utf-8")
    if (card := folder / "README.md").is_file():
        text = read_text(card, errors="replace")
        card.write_text(text.replace(BY_PLUGIN, BY_DECILM).replace(AS_USUAL, BY_DECILM), encoding="utf-8")


def decilm_replaceable() -> Replaceable:
    """Which folders `write_decilm` may replace."""
    return Replaceable(CONFIGURATION, lambda folder, name: name == CONFIGURATION or is_ours(folder, name))


def _link(file: Path, copy: Path) -> None:
    """The same file under another name; a copy where the file system has no links, or where it is another one."""
    try:
        os.link(file.resolve(), copy)
    except OSError:
        shutil.copyfile(file, copy)
