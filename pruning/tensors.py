"""The tensors that each architecture has, by name and shape: a checkpoint without one of them is not that model.

transformers and vLLM fill a missing tensor with random numbers. transformers can list the names itself, from a model on
the meta device, but takes seconds to import; these tables give the same names in milliseconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Row:
    """One tensor, or one in every layer.

    sizes: letters of its axes: d hidden_size, f intermediate_size, v vocab_size, h head_dim, q all query heads, k all
    key heads, p max_position_embeddings, e word_embed_proj_dim; a number in front multiplies, as in "2f".
    when: the condition of config.json under which the model has it, a key of `_CONDITIONS`.
    """

    name: str
    sizes: str
    when: str = ""


@dataclass(frozen=True)
class Tensors:
    """model: names from the root. layer: names below a layer. buffers: endings of names that files may hold besides."""

    model: tuple[Row, ...]
    layer: tuple[Row, ...]
    buffers: tuple[str, ...] = ("rotary_emb.inv_freq",)


def _linear(name: str, rows: str, columns: str, bias: str | None = None) -> tuple[Row, ...]:
    """bias: the condition under which there is one; "" is always, None is never."""
    weight = Row(f"{name}.weight", f"{rows} {columns}")
    return (weight,) if bias is None else (weight, Row(f"{name}.bias", rows, bias))


def _transposed(name: str, rows: str, columns: str) -> tuple[Row, ...]:
    """GPT-2's linear layer: stored [in, out], with a bias."""
    return (Row(f"{name}.weight", f"{columns} {rows}"), Row(f"{name}.bias", rows))


def _norms(*names: str, size: str = "d") -> tuple[Row, ...]:
    return tuple(Row(f"{name}.weight", size) for name in names)


def _layer_norm(name: str, when: str = "") -> tuple[Row, ...]:
    return (Row(f"{name}.weight", "d", when), Row(f"{name}.bias", "d", when))


def _attention(bias: str | None = "attention_bias", out_bias: str | None = "attention_bias") -> tuple[Row, ...]:
    return (
        *_linear("self_attn.q_proj", "q", "d", bias),
        *_linear("self_attn.k_proj", "k", "d", bias),
        *_linear("self_attn.v_proj", "k", "d", bias),
        *_linear("self_attn.o_proj", "d", "q", out_bias),
    )


def _gated(bias: str | None = None) -> tuple[Row, ...]:
    return (
        *_linear("mlp.gate_proj", "f", "d", bias),
        *_linear("mlp.up_proj", "f", "d", bias),
        *_linear("mlp.down_proj", "d", "f", bias),
    )


_HEAD = Row("lm_head.weight", "v d", "untied")
_LLAMA_MODEL = (Row("model.embed_tokens.weight", "v d"), Row("model.norm.weight", "d"), _HEAD)
_TWO_NORMS = _norms("input_layernorm", "post_attention_layernorm")
_FOUR_NORMS = _norms(
    "input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm"
)
_HEAD_NORMS = _norms("self_attn.q_norm", "self_attn.k_norm", size="h")

LLAMA = Tensors(_LLAMA_MODEL, (*_attention(), *_gated("mlp_bias"), *_TWO_NORMS))
QWEN2 = Tensors(_LLAMA_MODEL, (*_attention("", None), *_gated(), *_TWO_NORMS))
QWEN3 = Tensors(_LLAMA_MODEL, (*_attention(), *_gated(), *_TWO_NORMS, *_HEAD_NORMS))
MISTRAL = Tensors(_LLAMA_MODEL, (*_attention(None, None), *_gated(), *_TWO_NORMS))
GEMMA2 = Tensors(_LLAMA_MODEL, (*_attention(), *_gated(), *_FOUR_NORMS))
GEMMA3 = Tensors(_LLAMA_MODEL, (*_attention(), *_gated(), *_FOUR_NORMS, *_HEAD_NORMS))
PHI3 = Tensors(
    _LLAMA_MODEL,
    (
        Row("self_attn.qkv_proj.weight", "q+2k d"),
        *_linear("self_attn.o_proj", "d", "q"),
        Row("mlp.gate_up_proj.weight", "2f d"),
        *_linear("mlp.down_proj", "d", "f"),
        *_TWO_NORMS,
    ),
)
OLMO2 = Tensors(
    _LLAMA_MODEL,
    (
        *_attention(),
        *_gated(),
        *_norms("post_attention_layernorm", "post_feedforward_layernorm"),
        *_norms("self_attn.q_norm", size="q"),
        *_norms("self_attn.k_norm", size="k"),
    ),
)
GPT_NEOX = Tensors(
    (
        Row("gpt_neox.embed_in.weight", "v d"),
        *_layer_norm("gpt_neox.final_layer_norm"),
        Row("embed_out.weight", "v d", "untied"),
    ),
    (
        *_layer_norm("input_layernorm"),
        *_layer_norm("post_attention_layernorm"),
        *_linear("attention.query_key_value", "3d", "d", "attention_bias_default"),
        *_linear("attention.dense", "d", "d", "attention_bias_default"),
        *_linear("mlp.dense_h_to_4h", "f", "d", ""),
        *_linear("mlp.dense_4h_to_h", "d", "f", ""),
    ),
    ("rotary_emb.inv_freq", "attention.bias", "attention.masked_bias"),
)
OPT = Tensors(
    (
        Row("model.decoder.embed_tokens.weight", "v e"),
        Row("model.decoder.embed_positions.weight", "p+2 d"),
        Row("model.decoder.project_in.weight", "d e", "projected"),
        Row("model.decoder.project_out.weight", "e d", "projected"),
        *_layer_norm("model.decoder.final_layer_norm", "norm_at_end"),
        Row("lm_head.weight", "v e", "untied"),
    ),
    (
        *(row for name in "qkv" for row in _linear(f"self_attn.{name}_proj", "d", "d", "enable_bias")),
        *_linear("self_attn.out_proj", "d", "d", "enable_bias"),
        *_layer_norm("self_attn_layer_norm", "affine_norms"),
        *_linear("fc1", "f", "d", "enable_bias"),
        *_linear("fc2", "d", "f", "enable_bias"),
        *_layer_norm("final_layer_norm", "affine_norms"),
    ),
)
GPT2 = Tensors(
    (
        Row("transformer.wte.weight", "v d"),
        Row("transformer.wpe.weight", "p d"),
        *_layer_norm("transformer.ln_f"),
        _HEAD,
    ),
    (
        *_layer_norm("ln_1"),
        *_transposed("attn.c_attn", "3d", "d"),
        *_transposed("attn.c_proj", "d", "d"),
        *_layer_norm("ln_2"),
        *_transposed("mlp.c_fc", "f", "d"),
        *_transposed("mlp.c_proj", "d", "f"),
    ),
    ("attn.bias", "attn.masked_bias"),
)


def inside(tensors: Tensors, path: str) -> Tensors:
    """The tensors of a language model whose body is a part of another model, at `path` instead of `model`."""
    moved = {row.name: row.name.removeprefix("model.") for row in tensors.model if row.name.startswith("model.")}
    rows = (replace(row, name=f"{path}.{moved[row.name]}") if row.name in moved else row for row in tensors.model)
    return replace(tensors, model=tuple(rows))


def _conditions(config: Mapping[str, Any], tied: bool, hidden: int) -> Mapping[str, bool]:
    """By the names in `Row.when`; a key that config.json lacks has the default of the architecture's own class."""
    affine = bool(config.get("layer_norm_elementwise_affine", True))
    return {
        "": True,
        "untied": not tied,
        "attention_bias": bool(config.get("attention_bias", False)),
        "attention_bias_default": bool(config.get("attention_bias", True)),
        "mlp_bias": bool(config.get("mlp_bias", False)),
        "enable_bias": bool(config.get("enable_bias", True)),
        "affine_norms": affine,
        "norm_at_end": affine
        and bool(config.get("do_layer_norm_before", True))
        and not config.get("_remove_final_layer_norm", False),
        "projected": config.get("word_embed_proj_dim", hidden) != hidden,
    }


def expected_tensors(
    tensors: Tensors,
    layers: str,
    widths: tuple[int, ...],
    sizes: Mapping[str, int],
    config: Mapping[str, Any],
    tied: bool,
) -> dict[str, tuple[int, ...]]:
    """Every tensor of a model.

    Args:
        tensors: the architecture's table.
        layers: path of the layer stack, such as model.layers.
        widths: intermediate_size of every layer.
        sizes: the letters of `Row.sizes` but f.
        config: config.json, for the tensors that only some models of the architecture have.
        tied: whether the embedding is the LM head as well.

    Returns:
        name -> shape.
    """
    conditions = _conditions(config, tied, sizes["d"])
    found = {row.name: _shape(row, sizes) for row in tensors.model if conditions[row.when]}
    below = [row for row in tensors.layer if conditions[row.when]]
    for layer, width in enumerate(widths):
        own = {**sizes, "f": width}
        found.update((f"{layers}.{layer}.{row.name}", _shape(row, own)) for row in below)
    return found


def _shape(row: Row, sizes: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(sum(_terms(axis, sizes)) for axis in row.sizes.split())


def _terms(axis: str, sizes: Mapping[str, int]) -> Iterator[int]:
    """The summands of an axis such as q+2k or p+2."""
    for term in axis.split("+"):
        yield int(term) if term.isdigit() else int(term[:-1] or 1) * sizes[term[-1]]
