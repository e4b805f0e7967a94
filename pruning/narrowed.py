"""A layer of the dense model that computes with fewer FFN neurons meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from harness.core.types.arrays import IndexArray
from pruning.activations import down_weight
from pruning.cuts import Cut
from pruning.families import Family, submodule
from pruning.fitting import Tensors
from pruning.loader import set_features


def narrowed(module: Any, family: Family, keep: IndexArray, fitted: Tensors) -> dict[str, Any]:
    """The FFN's tensors with the neurons that stay, by the names of their cuts, as stored.

    Args:
        module: The layer.
        family: Its family.
        keep: The neurons that stay, sorted.
        fitted: Tensors that are taken from here, the re-fitted down projection among them; the result has its dtype.
    """
    import torch

    own, width = dict(module.named_parameters()), down_weight(module, family).shape[1]
    dtype = fitted[family.down_cut.name].dtype

    def kept(cut: Cut) -> Any:
        weight = own[cut.name].detach()
        if cut.name in fitted:
            return fitted[cut.name].to(weight.device)
        rows = torch.from_numpy(cut.kept(keep, width)).to(weight.device)
        return weight.index_select(cut.axis, rows).to(dtype)

    return {cut.name: kept(cut) for cut in family.cuts if cut.name in own}


def call(module: Any, tensors: Tensors, *arguments: Any, **named: Any) -> Any:
    """The layer's output with these tensors in place of its own, in the dtype of its own."""
    from torch.func import functional_call

    dtype = next(iter(module.parameters())).dtype
    return functional_call(module, {name: t.to(dtype) for name, t in tensors.items()}, arguments, named)


@contextmanager
def resized(module: Any, tensors: Tensors) -> Iterator[None]:
    """The linear layers state the sizes of these tensors meanwhile; GPT-2's reads them when it is called."""
    own = dict(module.named_parameters())
    for name, tensor in tensors.items():
        set_features(submodule(module, name.rpartition(".")[0]), tensor)
    try:
        yield
    finally:
        for name in tensors:
            set_features(submodule(module, name.rpartition(".")[0]), own[name])
