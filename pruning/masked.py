"""The reference for what pruning writes: the dense model in transformers with what a plan removes silent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.core.types.pruning import PruningPlan
from pruning import compensation
from pruning.activations import down_weight
from pruning.checkpoint import ModelFolder
from pruning.families import submodule
from pruning.loader import load_pruned
from pruning.structures import kept_columns, kept_heads


def load_masked(model: ModelFolder, plan: PruningPlan, plan_file: Path | None, dtype: Any) -> Any:
    """The dense model with what a plan removes set to zero, and what the plan re-fits as it has it.

    A neuron or a query head without its columns in the output projection adds nothing to the residual stream, and so
    does a block without its output projection. Keys and values of a removed KV group are read by its own query heads
    alone.

    Args:
        model: the dense model.
        plan: what stays.
        plan_file: its file, beside which re-fitted columns lie; None where it has none.
        dtype: a torch dtype.

    Returns:
        transformers' model, ready to run; also of a plan that no plain folder can hold.
    """
    import torch

    loaded, family = load_pruned(model, dtype), model.family
    fitted = compensation.load_layers(model, plan, plan_file) if plan_file else _nothing
    read = compensation.re_fitted(model, plan).family
    stack = submodule(loaded, family.layers)
    for layer, module in enumerate(stack):
        _keep_columns(down_weight(module, family), plan.keep[layer])
        if plan.kv_keep:
            _keep_columns(down_weight(module, family.of_attention), kept_heads(plan, layer, model.shape))
        for name, tensor in fitted(layer).items():
            cut = next(cut for cut in read.cuts if cut.name == name)
            columns = kept_columns(plan, layer, model.shape)
            kept = columns if cut == read.down_cut else cut.kept(plan.keep[layer], plan.intermediate_size)
            module.get_parameter(name).detach().index_copy_(cut.axis, torch.from_numpy(kept), tensor.to(dtype))
    for layers, seen in ((plan.skip_attention, family.of_attention), (plan.skip_ffn, family)):
        for layer in layers:
            _silence(submodule(stack[layer], seen.down))
    return loaded


def _nothing(_layer: int) -> dict[str, Any]:
    return {}


def _keep_columns(weight: Any, keep: Any) -> None:
    """In place: the other columns of [hidden, inputs] become zero."""
    import torch

    gone = torch.ones(weight.shape[1], dtype=torch.bool)
    gone[torch.from_numpy(keep).long()] = False
    weight[:, gone] = 0


def _silence(projection: Any) -> None:
    """The weight and the bias of an output projection become zero."""
    for parameter in projection.parameters():
        parameter.detach().zero_()
