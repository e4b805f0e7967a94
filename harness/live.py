"""Other FFN weights in a running engine: pruned variants one after the other without a new start.

On a CPU vLLM packs weights when it loads them and an edit in place does nothing, so each linear layer is packed anew, by vLLM's own
code, at the width of the variant. KV cache shapes do not depend on the FFN; what the prefix cache holds does, so it is emptied.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from harness.engine import device_name
from harness.errors import MeasurementError
from pruning.families import Family, submodule

Tensors = Iterable[tuple[int, Mapping[str, Any]]]  # layer, {name below the layer: tensor as a checkpoint holds it}


@contextmanager
def swapped(llm: Any, family: Family, tensors: Tensors) -> Iterator[None]:
    """The engine with these FFN tensors; on leaving, its own weights again, bit for bit.

    Raises MeasurementError on CUDA and for an engine over several devices.
    """
    if device_name() != "cpu" or llm.llm_engine.vllm_config.parallel_config.world_size != 1:
        raise MeasurementError("weights of a running engine can be swapped only on one CPU; export the variant and start an engine on it")
    undo: list[Callable[[], None]] = []
    try:
        llm.apply_model(lambda model: _swap(submodule(model, family.layers), family, tensors, undo))
        llm.reset_prefix_cache()
        yield
    finally:
        for restore in undo:
            restore()
        llm.reset_prefix_cache()


def _swap(stack: Any, family: Family, tensors: Tensors, undo: list[Callable[[], None]]) -> None:
    """Packs every tensor into its module and notes how to undo it."""
    for layer, parts in tensors:
        for module, weight, bias in _placed(stack[layer], family, parts):
            undo.append(_state(module))
            _pack(module, weight, bias)


def _placed(layer: Any, family: Family, parts: Mapping[str, Any]) -> Iterator[tuple[Any, Any, Any]]:
    """vLLM's module with its new weight and bias; vLLM stacks a gate on its up projection and stores every weight [out, in]."""
    import torch

    stems: dict[str, list[str]] = {}
    for cut in family.cuts:
        stem = cut.name.rpartition(".")[0]
        owner = "mlp.gate_up_proj" if stem in ("mlp.gate_proj", "mlp.up_proj") and hasattr(layer.mlp, "gate_up_proj") else stem
        if stem not in stems.setdefault(owner, []):
            stems[owner].append(stem)
    transposed = family.down_cut.axis == 0
    for owner, members in stems.items():
        weights = [parts[f"{stem}.weight"] for stem in members]
        biases = [parts[f"{stem}.bias"] for stem in members if f"{stem}.bias" in parts]
        weight = torch.cat([w.T if transposed else w for w in weights])
        yield submodule(layer, owner), weight, torch.cat(biases) if biases else None


def _state(module: Any) -> Callable[[], None]:
    weight, bias, cpu_linear = module.weight, module.bias, module.cpu_linear

    def restore() -> None:
        module.weight, module.bias, module.cpu_linear = weight, bias, cpu_linear

    return restore


def _pack(module: Any, weight: Any, bias: Any) -> None:
    import torch
    from vllm.model_executor.layers.utils import dispatch_cpu_unquantized_gemm

    dtype = module.weight.dtype
    module.weight = torch.nn.Parameter(weight.to(dtype).contiguous(), requires_grad=False)
    if bias is not None:
        module.bias = torch.nn.Parameter(bias.to(dtype), requires_grad=False)
    dispatch_cpu_unquantized_gemm(module, remove_weight=True)
