"""What a DeciLM folder says, and which models cannot be one; that vLLM runs it is in
tests/harness/engine/test_decilm.py.
"""

from __future__ import annotations

import copy
import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers import LlamaConfig

from harness.core.errors import UnsupportedModelError, UsageError
from harness.core.types.pruning import ModelShape
from pruning.checkpoint import open_model
from pruning.decilm import CONFIGURATION, Layer, decilm_config, unsayable, write_decilm
from pruning.families import shape_of

SIZES = {
    "hidden_size": 96,
    "num_hidden_layers": 2,
    "intermediate_size": 96,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "vocab_size": 100,
}
LAYERS = (Layer(50, 2), Layer(31, 3))


def shape(**config: Any) -> ModelShape:
    return shape_of({**SIZES, **config})


def test_what_config_json_leaves_to_its_class_is_written_out() -> None:
    """By transformers' own classes, which fill it in."""
    import transformers

    for model_type in ("llama", "qwen2", "mistral"):
        config = {**SIZES, "model_type": model_type}
        found = decilm_config(config, shape_of(config), LAYERS)
        wanted = transformers.AutoConfig.for_model(model_type, **SIZES).to_dict()
        read = ("rms_norm_eps", "hidden_act", "rope_parameters", "tie_word_embeddings", "bos_token_id", "eos_token_id")
        assert {key: found.get(key) for key in read} == {key: wanted.get(key) for key in read}


LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"rope_theta": 5e5},
        {"rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 2.0}},
        {"rope_theta": 5e5, "rope_parameters": {"rope_type": "linear", "factor": 2.0}},
        {"rope_parameters": {**LLAMA3, "rope_theta": 3e4}, "rope_theta": 5e5, "max_position_embeddings": 4096},
        {"rope_parameters": {**LLAMA3, "original_max_position_embeddings": 512}, "max_position_embeddings": 4096},
        {"rope_scaling": {"rope_type": "linear", "factor": 4.0}, "rope_parameters": {**LLAMA3, "rope_theta": 3e4}},
        {"rope_scaling": LLAMA3, "max_position_embeddings": 4096},
    ],
    ids=str,
)
def test_positions_of_older_and_newer_files_are_those_that_transformers_reads(config: dict[str, Any]) -> None:
    given = {**SIZES, "model_type": "llama", **config}
    found = decilm_config(given, shape_of(given), LAYERS)
    wanted = LlamaConfig(**copy.deepcopy(given)).rope_parameters
    wanted.pop("type", None)
    assert found["rope_parameters"] == wanted and not {"rope_theta", "rope_scaling"} & found.keys()


def test_biases_are_those_of_the_architecture() -> None:
    """Qwen2's class has them on q, k and v alone, Mistral's nowhere, whatever config.json says."""
    told = {"attention_bias": True, "mlp_bias": True, **SIZES}
    of = {name: decilm_config(told, shape(model_type=name), LAYERS) for name in ("llama", "qwen2", "mistral")}
    keys = ("attention_bias", "mlp_bias", "qkv_bias")
    assert [[of[name].get(key) for key in keys] for name in of] == [
        [True, True, None],
        [False, False, True],
        [False, False, None],
    ]


def test_parts_of_a_layer() -> None:
    layers = (Layer(50, 2), Layer(31, 3, skip_attention=True), Layer(7, 1, skip_ffn=True))
    blocks = decilm_config(SIZES, shape(model_type="llama"), layers)["block_configs"]
    assert blocks == [
        {"attention": {"no_op": False, "n_heads_in_group": 3}, "ffn": {"no_op": False, "intermediate_size": 50}},
        {"attention": {"no_op": True}, "ffn": {"no_op": False, "intermediate_size": 31}},
        {"attention": {"no_op": False, "n_heads_in_group": 6}, "ffn": {"no_op": True}},
    ]


@pytest.mark.parametrize(
    ("config", "layers", "reason"),
    [
        ({"model_type": "llama"}, LAYERS, None),
        ({"model_type": "qwen2", "layer_types": ["full_attention"] * 2}, LAYERS, None),
        ({"model_type": "qwen2", "use_sliding_window": False, "sliding_window": 4096}, LAYERS, None),
        ({"model_type": "qwen2", "use_sliding_window": True}, LAYERS, "no sliding window"),
        ({"model_type": "qwen2", "layer_types": ["full_attention", "sliding_attention"]}, LAYERS, "no sliding window"),
        ({"model_type": "mistral", "sliding_window": 4096}, LAYERS, "no sliding window"),
        ({"model_type": "mistral"}, LAYERS, "no sliding window"),  # MistralConfig's default is 4096
        ({"model_type": "mistral", "sliding_window": None}, LAYERS, None),
        ({"model_type": "qwen2", "layer_types": "sliding_attention"}, LAYERS, "no sliding window"),
        ({"model_type": "llama", "rope_parameters": "linear"}, LAYERS, "rope_parameters is no JSON object"),
        ({"model_type": "llama", "rope_scaling": [2.0]}, LAYERS, "rope_scaling is no JSON object"),
        ({"model_type": "gemma2"}, LAYERS, "not a gemma2, only llama, mistral, qwen2"),
        ({"model_type": "llama"}, (Layer(5, 2, skip_attention=True), Layer(5, 2)), "attention of the first layer"),
        ({"model_type": "llama"}, (Layer(5, 2), Layer(5, 4)), "6 query heads cannot be shared out among 4"),
        ({"model_type": "llama"}, (Layer(5, 2), Layer(5, 4, skip_attention=True)), None),
    ],
)
def test_what_the_class_cannot_be(config: dict[str, Any], layers: tuple[Layer, ...], reason: str | None) -> None:
    found = unsayable({**SIZES, **config}, shape(**config), layers)
    assert (found is None) if reason is None else (found is not None and reason in found)


@pytest.mark.slow
def test_the_folder_is_the_checkpoint_with_another_config(ragged_model: Path, tmp_path: Path) -> None:
    checkpoint = open_model(ragged_model)
    out = write_decilm(checkpoint, tmp_path / "decilm")
    same = [file.relative_to(ragged_model) for file in ragged_model.rglob("*") if file.is_file()]
    assert len([name for name in same if name.suffix == ".safetensors"]) > 1
    changed = {name.name for name in same if (out / name).read_bytes() != (ragged_model / name).read_bytes()}
    assert changed == {"config.json", "README.md", ".written.json"}
    card = (out / "README.md").read_text()
    assert "--trust-remote-code" in card and "harness-prune is installed" not in card
    with pytest.raises(UnsupportedModelError, match="is a form for serving; give the checkpoint"):
        open_model(out)


@pytest.mark.slow
def test_the_configuration_class_reads_blocks_by_attribute(ragged_model: Path, tmp_path: Path) -> None:
    """As vLLM does; hasattr must be false for what is not there. It survives being saved and read again."""
    out = write_decilm(open_model(ragged_model), tmp_path / "decilm")
    spec = importlib.util.spec_from_file_location("configuration_pruned", out / CONFIGURATION)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.PrunedConfig.from_pretrained(out)
    config.save_pretrained(tmp_path / "again")
    for each in (config, module.PrunedConfig.from_pretrained(tmp_path / "again")):
        assert [block.ffn.intermediate_size for block in each.block_configs] == [70, 33, 51]
        assert [block.attention.n_heads_in_group for block in each.block_configs] == [2, 2, 2]
        assert not hasattr(each.block_configs[0].ffn, "ffn_mult") and each.model_type == "nemotron-nas"


@pytest.mark.slow
def test_what_is_there_and_is_no_decilm_folder_stays(ragged_model: Path, tmp_path: Path) -> None:
    checkpoint = open_model(ragged_model)
    out = write_decilm(checkpoint, tmp_path / "decilm")
    write_decilm(checkpoint, out)
    (out / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"holds notes\.txt"):
        write_decilm(checkpoint, out)
    with pytest.raises(UsageError, match="folder with other things"):
        write_decilm(checkpoint, ragged_model)
    gemma = replace(checkpoint, shape=replace(checkpoint.shape, model_type="gemma2"))
    with pytest.raises(UsageError, match=r"cannot be a DeciLM folder: .* not a gemma2"):
        write_decilm(gemma, tmp_path / "new")
    assert not (tmp_path / "new").exists() and json.loads((out / "config.json").read_text())["block_configs"]
