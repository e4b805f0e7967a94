"""One row per architecture: which tensors the matrices of FFN and attention are. A new family is a new row, or the
object of an entry point of another package in the group `harness.families`.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Any

from harness.core.bounded_read import is_count
from harness.core.dtypes import BY_NAME, Dtype
from harness.core.errors import UnsupportedModelError, UsageError
from harness.core.installed import Installed
from harness.core.types.pruning import ModelShape
from pruning import cuts as cut_rows
from pruning import missing_attention, tensors, vision_language
from pruning.config_sizes import MOST_SIZES, NEEDED, check_sizes
from pruning.cuts import Attention, Cut
from pruning.quantised import quantised_key
from pruning.tensors import Tensors, expected_tensors, inside
from pruning.vision_language import TextTower


@dataclass(frozen=True)
class Family:
    """Tensor names are relative to a layer; biases are cut where a checkpoint has them.

    Attributes:
        layers: Path of the layer stack in the causal model.
        down: The module whose input is h.
        gate: The module whose output's sign says whether the gate is open (its first half where fused), or None.
        cuts: The tensors that lose neurons.
        keys: config.json's own names.
        tensors: All tensors of the architecture.
        defaults: Sizes where config.json lacks the key, as transformers' class has them.
        tied: Whether the embedding is the LM head as well, where config.json does not say.
        supports_nonuniform_widths: False where vLLM cannot run non-uniform widths.
        tower: Of a vision-language model.
        attention: The tensors that lose KV groups.
        by_layer: Lists of config.json without which layers that differ cannot be told apart.
        can_lack_attention: Whether our vLLM plugin has layers without attention (`missing_attention.TENSORS`).
    """

    model_type: str
    architecture: str
    layers: str = "model.layers"
    down: str = "mlp.down_proj"
    gate: str | None = "mlp.gate_proj"
    cuts: tuple[Cut, ...] = cut_rows.GATED
    keys: Mapping[str, str] = field(default_factory=dict)
    tensors: Tensors = tensors.LLAMA
    defaults: Mapping[str, int] = field(default_factory=dict)
    tied: bool = False
    supports_nonuniform_widths: bool = True
    tower: TextTower | None = None
    attention: Attention = cut_rows.SEPARATE
    by_layer: tuple[str, ...] = ()
    can_lack_attention: bool = False

    @property
    def body(self) -> str:
        """Attribute of the causal model that runs the layers without the LM head."""
        return self.layers.partition(".")[0]

    @property
    def auto_class(self) -> str:
        """The class of transformers that loads the model."""
        return "AutoModelForImageTextToText" if self.tower else "AutoModelForCausalLM"

    @property
    def down_cut(self) -> Cut:
        """How the down projection is cut."""
        return next(cut for cut in self.cuts if cut.name == f"{self.down}.weight")

    @property
    def width_key(self) -> str:
        """config.json's name of intermediate_size."""
        return self.keys.get("intermediate_size", "intermediate_size")

    def own_name(self, name: str) -> str:
        """The name in transformers' own model of a tensor in a file."""
        return self.tower.own_name(name) if self.tower else name

    @functools.cached_property
    def of_attention(self) -> Family:
        """The family with the output projection of attention in place of the FFN's, for what measures and re-fits
        either.
        """
        cut = Cut(f"{self.attention.output}.weight", axis=self.attention.output_axis)
        return replace(self, down=self.attention.output, gate=None, cuts=(cut,))

    def tensor(self, name: str) -> tuple[Cut, int] | None:
        """The cut and the layer of a checkpoint's FFN tensor; None for a tensor that loses no neurons."""
        layer, below = self.place(name) or (0, "")
        cut = next((cut for cut in self.cuts if cut.name == below), None)
        return (cut, layer) if cut else None

    def place(self, name: str) -> tuple[int, str] | None:
        """The layer of a tensor in the model's own stack and its name below the layer, None for any other.

        Another stack of layers, such as a draft model's, is not the model's own: its prefix differs.
        """
        match = self._own.fullmatch(self.own_name(name))
        return (int(match[1]), match[2]) if match else None

    def lacks(self, name: str, layers: Collection[int]) -> bool:
        """Whether a tensor is one that these layers lack where they have no attention."""
        layer, below = self.place(name) or (-1, "")
        return self.can_lack_attention and layer in layers and missing_attention.is_missing(below)

    def below_layer(self, name: str) -> str | None:
        """The name below its layer of a tensor in the model's own stack, None for any other."""
        found = self.place(name)
        return found[1] if found else None

    @functools.cached_property
    def _own(self) -> re.Pattern[str]:
        """Names in the layer stack, also without the body's prefix, as a checkpoint of the body alone has them."""
        inner = self.layers.removeprefix(f"{self.body}.")
        return re.compile(rf"(?:{re.escape(self.body)}\.)?{re.escape(inner)}\.(\d+)\.(.+)")


def _heads(key_value: int, size: int) -> Mapping[str, int]:
    return {"num_key_value_heads": key_value, "head_dim": size}


def _kv(heads: int, **others: int) -> Mapping[str, int]:
    return {"num_key_value_heads": heads, **others}


_PHI3: Mapping[str, Any] = {"tensors": tensors.PHI3, "attention": cut_rows.FUSED_HEADS}
_QWEN2: Mapping[str, Any] = {"tensors": tensors.QWEN2, "defaults": _kv(32, max_position_embeddings=32_768)}
_GEMMA: Mapping[str, Any] = {"defaults": _heads(4, 256), "tied": True, "by_layer": ("layer_types",)}
_GPT2_KEYS = {
    "hidden_size": "n_embd",
    "num_hidden_layers": "n_layer",
    "num_attention_heads": "n_head",
    "intermediate_size": "n_inner",
    "max_position_embeddings": "n_positions",
}
_TOWER_LAYERS = "model.language_model.layers"
_OWN: Mapping[str, Family] = {
    family.model_type: family
    for family in (
        Family("llama", "LlamaForCausalLM", attention=cut_rows.HEADS_DIVIDE, can_lack_attention=True),
        Family("qwen2", "Qwen2ForCausalLM", **_QWEN2, attention=cut_rows.AS_LLAMA, can_lack_attention=True),
        Family("qwen3", "Qwen3ForCausalLM", tensors=tensors.QWEN3, defaults=_heads(32, 128), can_lack_attention=True),
        Family("mistral", "MistralForCausalLM", tensors=tensors.MISTRAL, defaults=_kv(8), can_lack_attention=True),
        Family("gemma2", "Gemma2ForCausalLM", tensors=tensors.GEMMA2, **_GEMMA, attention=cut_rows.HEADS_DIVIDE),
        Family("gemma3_text", "Gemma3ForCausalLM", tensors=tensors.GEMMA3, **_GEMMA, attention=cut_rows.HEADS_DIVIDE),
        Family("phi3", "Phi3ForCausalLM", gate="mlp.gate_up_proj", cuts=cut_rows.FUSED_FFN, **_PHI3),
        Family("olmo2", "Olmo2ForCausalLM", tensors=tensors.OLMO2, attention=cut_rows.NORM_OVER_HEADS),
        Family("granite", "GraniteForCausalLM"),
        Family("smollm3", "SmolLM3ForCausalLM", defaults=_kv(4), tied=True, by_layer=("no_rope_layers",)),
        Family(
            "gpt_neox",
            "GPTNeoXForCausalLM",
            "gpt_neox.layers",
            "mlp.dense_4h_to_h",
            None,
            (Cut("mlp.dense_h_to_4h.weight"), Cut("mlp.dense_4h_to_h.weight", axis=1), Cut("mlp.dense_h_to_4h.bias")),
            tensors=tensors.GPT_NEOX,
            attention=cut_rows.GPT_NEOX_HEADS,
        ),
        Family(
            "opt",
            "OPTForCausalLM",
            "model.decoder.layers",
            "fc2",
            None,
            (Cut("fc1.weight"), Cut("fc2.weight", axis=1), Cut("fc1.bias")),
            {"intermediate_size": "ffn_dim"},
            tensors.OPT,
            tied=True,
            attention=cut_rows.OPT_HEADS,
        ),
        Family(
            "gpt2",
            "GPT2LMHeadModel",
            "transformer.h",
            "mlp.c_proj",
            None,
            (Cut("mlp.c_fc.weight", axis=1), Cut("mlp.c_proj.weight"), Cut("mlp.c_fc.bias")),
            _GPT2_KEYS,
            tensors.GPT2,
            tied=True,
            supports_nonuniform_widths=False,
            attention=cut_rows.GPT2_HEADS,
        ),
        Family(
            "gemma3",
            "Gemma3ForConditionalGeneration",
            _TOWER_LAYERS,
            tensors=inside(tensors.GEMMA3, "model.language_model"),
            defaults={  # the Hub's text_config leaves them out
                **_heads(4, 256),
                "num_attention_heads": 8,
                "vocab_size": 262_208,
                "max_position_embeddings": 131_072,
            },
            tied=True,
            supports_nonuniform_widths=False,
            tower=vision_language.GEMMA3,
        ),
        Family(
            "qwen2_5_vl",
            "Qwen2_5_VLForConditionalGeneration",
            _TOWER_LAYERS,
            tensors=inside(tensors.QWEN2, "model.language_model"),
            defaults=_kv(8),
            supports_nonuniform_widths=False,
            tower=vision_language.QWEN2_5_VL,
        ),
    )
}
FAMILIES: Mapping[str, Family] = Installed(
    _OWN, "harness.families", "family", lambda name, found: isinstance(found, Family) and found.model_type == name
)
_TOWERS = tuple(name for name, family in _OWN.items() if family.tower)
_TEXT_MODELS = {name: family.architecture for name, family in _OWN.items() if not family.tower}

_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")


def submodule(root: Any, path: str) -> Any:
    """The module at a dotted path below another, such as model.layers."""
    return reduce(getattr, path.split("."), root)


def family_of(config: Mapping[str, Any]) -> Family:
    """The row of a config.json; raises UnsupportedModelError for experts, quantised weights and unknown types."""
    model_type = str(config.get("model_type"))[:80]
    if model_type not in _TOWERS:
        vision_language.refuse_multimodal(config, _TEXT_MODELS, _TOWERS)
    if any(config.get(key) for key in _EXPERTS):
        raise UnsupportedModelError(f"{model_type} is a mixture of experts; only dense FFNs can be pruned here")
    if "block_configs" in config:
        raise UnsupportedModelError("a DeciLM folder is a form for serving; give the checkpoint that it was made from")
    if model_type not in FAMILIES:
        known = ", ".join(sorted(FAMILIES))
        raise UnsupportedModelError(
            f"architecture {model_type!r} is not known; known are {known} (add a row to pruning/families.py)"
        )
    if key := quantised_key(config):
        raise UnsupportedModelError(f"the weights are quantised ({key}); give the model it was made from")
    family = FAMILIES[model_type]
    _check_architecture(family, config.get("architectures"))
    return family


def _check_architecture(family: Family, named: Any) -> None:
    """Raises UnsupportedModelError for a reward, classification or embedding model of a known type."""
    known = {family.architecture.lower(), f"FFNPruned{family.architecture}".lower()}
    names = named if isinstance(named, list) else [named] if named else []
    other = [str(name)[:80] for name in names if str(name).lower() not in known]
    if other:
        kind = "vision-language" if family.tower else "language"
        raise UnsupportedModelError(
            f"config.json names {other[0]}; of {family.model_type} only {kind} models ({family.architecture}) "
            "can be pruned here, not reward, classification or embedding models"
        )


def check_nonuniform(family: Family) -> None:
    """Raises UsageError where vLLM cannot run the family with non-uniform widths."""
    if not family.supports_nonuniform_widths:
        raise UsageError(f"vLLM cannot run {family.model_type} with non-uniform FFN widths; use --allocation uniform")


def check_trainable(family: Family) -> None:
    """Raises UsageError for a vision-language model: nothing here trains its text model within it."""
    if family.tower:
        raise UsageError(
            f"{family.model_type} is a vision-language model, which cannot be fine-tuned here; leave out the recovery, "
            "or save its text model alone (docs/your-model.md shows how)"
        )


def _text_level(config: Mapping[str, Any]) -> Mapping[str, Any]:
    return vision_language.text_level(config) if config.get("model_type") in _TOWERS else config


def shape_of(config: Mapping[str, Any]) -> ModelShape:
    """The sizes of a model from its config.json; a tied head counts once.

    Raises UnsupportedModelError where the architecture is unknown or a number is missing.
    """
    family = family_of(config)
    config = {**family.defaults, **_text_level(config)}
    values = {key: config.get(family.keys.get(key, key)) for key in (*NEEDED, "max_position_embeddings")}
    if family.model_type == "gpt2" and values["intermediate_size"] is None and values["hidden_size"]:
        values["intermediate_size"] = 4 * values["hidden_size"]
    where = "text_config, of a vision-language model," if family.tower else "config.json"
    check_sizes({**{key: config[key] for key in MOST_SIZES if config.get(key) is not None}, **values}, where)
    hidden, heads = int(values["hidden_size"] or 0), int(values["num_attention_heads"] or 0)
    skipped = missing_attention.skipped_layers(config, int(values["num_hidden_layers"] or 0))
    if skipped and not family.can_lack_attention:
        raise UnsupportedModelError(
            f"{family.model_type} with {missing_attention.KEY} is not known; get the model again"
        )
    shape = ModelShape(
        model_type=family.model_type,
        hidden_size=hidden,
        num_hidden_layers=int(values["num_hidden_layers"] or 0),
        intermediate_size=int(values["intermediate_size"] or 0),
        num_key_value_heads=int(config.get("num_key_value_heads") or heads),
        head_dim=int(config.get("head_dim") or hidden // heads),
        max_position_embeddings=int(values["max_position_embeddings"] or 2048),
        parameters=0,
        neuron_parameters=sum(cut.parts * hidden for cut in family.cuts if cut.name.endswith(".weight")),
        dtype_bytes=stored_dtype(config).item_bytes,
        vocab_size=int(config.get("vocab_size") or 0),
        num_attention_heads=heads,
        tied=bool(config.get("tie_word_embeddings", family.tied)),
        uniform=config.get("intermediate_sizes") is None,
        dtype=stored_dtype(config).name,
        skipped_attention=len(skipped),
    )
    return _counted(config, shape)


def _counted(config: Mapping[str, Any], shape: ModelShape) -> ModelShape:
    """With the parameters of the whole, of a KV group, of a layer and of its attention."""
    attention, widths = FAMILIES[shape.model_type].attention, _widths(config, shape)
    ratio, groups = max(1, shape.num_attention_heads // shape.num_key_value_heads), shape.num_key_value_heads
    fewer = replace(shape, num_attention_heads=ratio * (groups - 1), num_key_value_heads=groups - 1)
    whole, less, shallow = (
        _count(_tensors(config, each, some)) for each, some in ((shape, widths), (fewer, widths), (shape, widths[:-1]))
    )
    family, first = FAMILIES[shape.model_type], _tensors(config, shape, widths[:1])
    return replace(
        shape,
        parameters=whole,
        group_parameters=whole - less if attention.cuts else 0,
        group_bias_parameters=len(widths) * shape.hidden_size if attention.as_llama else 0,
        layer_parameters=whole - shallow,
        attention_parameters=_count({name: size for name, size in first.items() if family.lacks(name, (0,))}),
    )


def tensors_of(config: Mapping[str, Any], widths: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """Every tensor that a model of these widths has: name -> shape."""
    return _tensors(_text_level(config), shape_of(config), widths)


def count_of(config: Mapping[str, Any], widths: tuple[int, ...]) -> int:
    """The parameters of a model of these widths; a tied head counts once."""
    return _count(tensors_of(config, widths))


def _count(tensors: Mapping[str, tuple[int, ...]]) -> int:
    return sum(map(math.prod, tensors.values()))


def _tensors(config: Mapping[str, Any], shape: ModelShape, widths: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    family = FAMILIES[shape.model_type]
    sizes = {
        "d": shape.hidden_size,
        "v": shape.vocab_size,
        "h": shape.head_dim,
        "q": shape.num_attention_heads * shape.head_dim,
        "k": shape.num_key_value_heads * shape.head_dim,
        "p": shape.max_position_embeddings,
        "e": config.get("word_embed_proj_dim") or shape.hidden_size,
    }
    found = expected_tensors(family.tensors, family.layers, widths, sizes, config, shape.tied)
    skipped = missing_attention.skipped_layers(config, shape.num_hidden_layers)
    return {name: size for name, size in found.items() if not (skipped and family.lacks(name, skipped))}


def stored_dtype(config: Mapping[str, Any]) -> Dtype:
    """The number type of the weights by config.json; bfloat16 where it names none that is known."""
    config = _text_level(config)
    return BY_NAME.get(str(config.get("dtype") or config.get("torch_dtype")), BY_NAME["bfloat16"])


def widths_of(config: Mapping[str, Any]) -> tuple[int, ...]:
    """intermediate_size of every layer: one number for all, or our own list where they differ."""
    return _widths(config, shape_of(config))


def _widths(config: Mapping[str, Any], shape: ModelShape) -> tuple[int, ...]:
    own = config.get("intermediate_sizes")
    if own is None:
        return (shape.intermediate_size,) * shape.num_hidden_layers
    fits = isinstance(own, list) and len(own) == shape.num_hidden_layers
    if not fits or not all(is_count(width, shape.intermediate_size, 1) for width in own):
        raise UnsupportedModelError("config.json has no usable intermediate_sizes, one for each layer; export again")
    return tuple(own)
