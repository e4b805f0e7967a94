"""How the tensors of a layer lose FFN neurons and KV groups.

A neuron is one column of the down projection together with its row in every other matrix of the FFN. A KV group is one
key-value head with the query heads that read it: rows of the query, key and value projections, and the columns of the
output projection that the query heads feed. Norms of single heads have one weight for all heads and stay.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from harness.core.types.arrays import IndexArray
from harness.core.types.pruning import ModelShape


@dataclass(frozen=True)
class Cut:
    """A tensor that loses neurons along `axis`, by its name below the layer.

    parts: the matrices that a fused tensor holds, concatenated along `axis`.
    """

    name: str
    axis: int = 0
    parts: int = 1

    def kept(self, neurons: IndexArray, width: int) -> IndexArray:
        """Indices along the axis that belong to these neurons of `width`, repeated for every matrix."""
        keep = neurons.astype(np.int64)
        return np.concatenate([keep + part * width for part in range(self.parts)])


GATED = (
    Cut("mlp.gate_proj.weight"),
    Cut("mlp.up_proj.weight"),
    Cut("mlp.down_proj.weight", axis=1),
    Cut("mlp.gate_proj.bias"),
    Cut("mlp.up_proj.bias"),
)
FUSED_FFN = (Cut("mlp.gate_up_proj.weight", parts=2), Cut("mlp.down_proj.weight", axis=1))


@dataclass(frozen=True)
class HeadCut:
    """A tensor that loses heads along `axis`, by its name below the layer.

    blocks: what lies along the axis, one after the other: q for all query heads, k for all key or all value heads.
    """

    name: str
    blocks: tuple[Literal["q", "k"], ...]
    axis: int = 0

    def kept(self, groups: IndexArray, shape: ModelShape) -> IndexArray:
        """Indices along the axis that belong to these KV groups, in order."""
        found, start = [], 0
        for block in self.blocks:
            size = shape.head_dim * (shape.query_heads_per_group if block == "q" else 1)
            found.append(start + (groups.astype(np.int64)[:, None] * size + np.arange(size)).reshape(-1))
            start += size * shape.num_key_value_heads
        return np.concatenate(found)


@dataclass(frozen=True)
class Attention:
    """The attention of a family.

    Attributes:
        output: The module whose input the heads write, below the layer.
        cuts: The tensors that lose KV groups; biases are cut where a checkpoint has them.
        as_llama: Whether a model with fewer heads is written as a Llama, as vLLM's class of the family takes head_dim
            to be hidden_size / num_attention_heads.
        refusal: Why KV groups cannot be removed; empty where they can.
        output_axis: Of the output projection's weight, along which its inputs lie.
        heads_divide: Whether transformers' class requires hidden_size to be divisible by num_attention_heads, even
            where config.json has a head_dim (validate_architecture in its configuration_*.py).
        rope_by_hidden: Whether transformers' class takes the length of RoPE's lists of factors from hidden_size /
            num_attention_heads (validate_rope in configuration_phi3.py).
    """

    output: str = "self_attn.o_proj"
    cuts: tuple[HeadCut, ...] = ()
    as_llama: bool = False
    refusal: str = ""
    output_axis: int = 1
    heads_divide: bool = False
    rope_by_hidden: bool = False


_OUTPUT = HeadCut("self_attn.o_proj.weight", ("q",), axis=1)
_SEPARATE = (
    *(HeadCut(f"self_attn.q_proj.{kind}", ("q",)) for kind in ("weight", "bias")),
    *(HeadCut(f"self_attn.{name}_proj.{kind}", ("k",)) for name in "kv" for kind in ("weight", "bias")),
    _OUTPUT,
)
SEPARATE = Attention(cuts=_SEPARATE)
HEADS_DIVIDE = Attention(cuts=_SEPARATE, heads_divide=True)
AS_LLAMA = Attention(cuts=_SEPARATE, as_llama=True, heads_divide=True)
FUSED_HEADS = Attention(cuts=(HeadCut("self_attn.qkv_proj.weight", ("q", "k", "k")), _OUTPUT), rope_by_hidden=True)
_NO_HEAD_DIM = "its head size is hidden_size / num_attention_heads, which config.json cannot say otherwise"
NORM_OVER_HEADS = Attention(refusal="it normalises over all heads, so that each head depends on all others")
GPT_NEOX_HEADS = Attention("attention.dense", refusal=_NO_HEAD_DIM)
OPT_HEADS = Attention("self_attn.out_proj", refusal=_NO_HEAD_DIM)
GPT2_HEADS = Attention("attn.c_proj", refusal=_NO_HEAD_DIM, output_axis=0)
