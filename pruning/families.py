"""One row per architecture: where the gated FFN's three matrices live. Adding a family is adding a row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.errors import UnsupportedModelError
from harness.types import ModelShape


@dataclass(frozen=True)
class Family:
    """Tensor names with {i} for the layer; gate and up are [intermediate, hidden], down is [hidden, intermediate]."""

    model_type: str
    body: str = "model"  # attribute of the causal model that holds the layers, without the LM head
    gate_proj: str = "model.layers.{i}.mlp.gate_proj.weight"
    up_proj: str = "model.layers.{i}.mlp.up_proj.weight"
    down_proj: str = "model.layers.{i}.mlp.down_proj.weight"
    attention_bias: bool = False  # biases on q, k and v
    query_key_norm: bool = False


FAMILIES: Mapping[str, Family] = {
    family.model_type: family
    for family in (
        Family("qwen2", attention_bias=True),
        Family("qwen3", query_key_norm=True),
        Family("llama"),
        Family("mistral"),
    )
}


_NEEDED = ("hidden_size", "num_hidden_layers", "intermediate_size", "num_attention_heads", "vocab_size")


def family_of(config: Mapping[str, Any]) -> Family:
    """The row for a config.json; raises UnsupportedModelError for a mixture of experts, an FFN bias or an unknown type."""
    model_type = str(config.get("model_type"))
    if any(config.get(key) for key in ("num_experts", "num_local_experts", "n_routed_experts")):
        raise UnsupportedModelError(f"{model_type} is a mixture of experts; only dense gated FFNs can be pruned here")
    if model_type not in FAMILIES:
        known = ", ".join(sorted(FAMILIES))
        raise UnsupportedModelError(f"architecture {model_type!r} is not known; known are {known} (add a row to pruning/families.py)")
    if config.get("mlp_bias"):
        raise UnsupportedModelError(f"this {model_type} has biases in its FFN (mlp_bias); only FFNs without can be pruned here")
    if config.get("quantization_config"):
        raise UnsupportedModelError("the weights are quantised (quantization_config); give the checkpoint they were quantised from")
    return FAMILIES[model_type]


def shape_of(config: Mapping[str, Any]) -> ModelShape:
    """The sizes of a model from its config.json alone, parameters counted by formula.

    Raises UnsupportedModelError where the architecture is unknown or the FFN widths differ between layers.
    """
    family = family_of(config)
    missing = [key for key in _NEEDED if not isinstance(config.get(key), int)]
    if missing:
        raise UnsupportedModelError(f"config.json has no usable {', '.join(missing)}; get the model again")
    heads = int(config["num_attention_heads"])
    shape = {
        "hidden_size": int(config["hidden_size"]),
        "num_hidden_layers": int(config["num_hidden_layers"]),
        "intermediate_size": int(config["intermediate_size"]),
        "num_attention_heads": heads,
        "num_key_value_heads": int(config.get("num_key_value_heads") or heads),
        "head_dim": int(config.get("head_dim") or config["hidden_size"] // heads),
        "vocab_size": int(config["vocab_size"]),
    }
    tied = bool(config.get("tie_word_embeddings", False))
    parameters = _count_parameters(family, tied, **shape)
    context = int(config.get("max_position_embeddings") or 2048)
    return ModelShape(
        family.model_type, **shape, max_position_embeddings=context, tie_word_embeddings=tied, parameters=parameters,
        dtype_bytes=4 if (config.get("dtype") or config.get("torch_dtype")) == "float32" else 2,
    )  # fmt: skip


def _count_parameters(
    family: Family, tied: bool, hidden_size: int, num_hidden_layers: int, intermediate_size: int,
    num_attention_heads: int, num_key_value_heads: int, head_dim: int, vocab_size: int,
) -> int:  # fmt: skip
    """Embeddings, q/k/v/o, gate/up/down and norms of a pre-norm decoder."""
    queries, keys = num_attention_heads * head_dim, num_key_value_heads * head_dim
    attention = 2 * hidden_size * (queries + keys)
    attention += (queries + 2 * keys) if family.attention_bias else 0
    attention += 2 * head_dim if family.query_key_norm else 0
    layer = attention + 3 * hidden_size * intermediate_size + 2 * hidden_size
    embeddings = vocab_size * hidden_size * (1 if tied else 2)
    return embeddings + num_hidden_layers * layer + hidden_size
