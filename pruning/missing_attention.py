"""Layers without their attention in a checkpoint for vLLM's plugin: what config.json says, and which tensors they lack.

Such a layer adds nothing to the hidden states before its FFN. The first layer keeps its attention: transformers counts
the cached tokens there, and vLLM's DeciLM class needs it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from harness.core.bounded_read import is_count
from harness.core.errors import UnsupportedModelError

KEY = "skip_attention"  # of config.json: the layers' numbers, sorted
TENSORS = ("self_attn.", "input_layernorm.")  # below the layer, of the families that can lack them


def skipped_layers(config: Mapping[str, Any], layers: int) -> tuple[int, ...]:
    """The layers without attention; raises UnsupportedModelError where config.json names none of `layers` layers."""
    found = config.get(KEY)
    if found is None or "intermediate_sizes" not in config:  # a key of ours stands beside it
        return ()
    fits = isinstance(found, list) and all(is_count(layer, layers - 1, 1) for layer in found)
    if not fits or found != sorted(set(found)):
        raise UnsupportedModelError(f"config.json has no usable {KEY}, the numbers of layers in order; export again")
    return tuple(found)


def is_missing(below: str) -> bool:
    """Whether a layer without attention lacks a tensor of this name below it."""
    return below.startswith(TENSORS)


def leave_out_attention(layer: Any) -> None:
    """A layer of transformers adds nothing before its FFN from then on."""
    import torch

    class NoAttention(torch.nn.Module):
        def forward(self, hidden_states: Any, *_arguments: Any, **_named: Any) -> tuple[Any, None]:
            return torch.zeros_like(hidden_states), None

    layer.self_attn, layer.input_layernorm = NoAttention(), torch.nn.Identity()


@contextmanager
def without_attention(layer: Any, missing: bool = True) -> Iterator[None]:
    """A layer of transformers without its attention meanwhile, where it is `missing`."""
    if not missing:
        yield
        return
    own = layer.self_attn, layer.input_layernorm
    leave_out_attention(layer)
    try:
        yield
    finally:
        layer.self_attn, layer.input_layernorm = own
