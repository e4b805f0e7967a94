"""The worker's half of harness/engine/weight_swap.py: mixed into vLLM's own worker class, so that it runs wherever the
weights are.

On a CPU vLLM packs weights when it loads them and an edit in place does nothing, so each linear layer is packed again,
by vLLM's own code, at the width of the variant. Elsewhere, compiled code and graphs hold on to the weights' memory, so
they are written in place at full width through vLLM's own loaders, which know the part of this device; a removed neuron
is a row and a column of zeros.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.core.errors import UsageError
from harness.core.types.arrays import FloatArray
from pruning.adjustments import load_adjustments
from pruning.checkpoint import open_model
from pruning.export import ffn_tensors
from pruning.families import Family, submodule
from pruning.plan_file import load_plan

WORKER = f"{__name__}.FFNSwap"  # for vLLM's worker_extension_cls


class FFNSwap:
    """vLLM calls these methods by name in each worker; their arguments are sent to other processes."""

    def swap_ffn(self, model: str, plan_file: str) -> None:
        """Loads the FFN that the plan leaves of `model`; after an error, `restore_ffn` undoes what was done."""
        if self.__dict__.pop("_shifted", False):
            self.restore_ffn()  # what another plan has added to the outputs
        own = self.__dict__.setdefault("_own_ffn", {})  # linear layer -> what puts the model's own weights back
        opened, plan = open_model(Path(model)), load_plan(Path(plan_file))
        if plan.kv_keep or plan.skip_attention or plan.skip_ffn or plan.vocabulary is not None:
            raise UsageError("a running engine can lose FFN neurons only; export this plan")
        family = opened.family
        adjustments = load_adjustments(Path(plan_file), plan.widths, opened.shape.hidden_size)
        self.__dict__["_shifted"] = any(layer.offset is not None for layer in adjustments)
        stack = _stack(self.get_model(), family)  # type: ignore[attr-defined]  # the worker's
        for layer, tensors in ffn_tensors(opened, plan, Path(plan_file)):
            adjustment = adjustments[layer]
            if adjustment.factors is not None:
                _scale(tensors, family, adjustment.factors)
            for target in _targets(stack[layer], family, tensors):
                packed = not target.module.weight.numel()
                if target.module not in own:
                    own[target.module] = (_packed if packed else _held)(target.module)
                if adjustment.offset is not None and target.axis == 1:
                    _shift(target.module, adjustment.offset)
                _pack(target) if packed else _write(target, plan.intermediate_size)

    def restore_ffn(self) -> None:
        """Puts back the dense model's weights, bit for bit."""
        own = self.__dict__.pop("_own_ffn", {})
        for restore in own.values():
            restore()

    def drop_weights(self) -> None:
        """Frees the memory of the weights. What torch has compiled keeps a model after its engine's end, so that the
        next engine of this process would not find the memory.
        """
        self.__dict__.pop("_own_ffn", None)
        model = self.get_model()  # type: ignore[attr-defined]  # the worker's
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.data = tensor.data.new_empty(0)


@dataclass(frozen=True)
class _Target:
    """A linear layer of vLLM and its new matrices [out, in]: one, or gate and up, which vLLM stacks.

    axis: the axis of a matrix along which neurons are removed.
    """

    module: Any
    weights: tuple[Any, ...]
    biases: tuple[Any, ...]
    axis: int


def _stack(model: Any, family: Family) -> Any:
    """The layers; vLLM's transformers back end calls every model's body `model`."""
    if family.tower:
        return submodule(model, family.tower.engine)
    return submodule(
        model, family.layers if hasattr(model, family.body) else f"model.{family.layers.partition('.')[2]}"
    )


def _targets(layer: Any, family: Family, tensors: Mapping[str, Any]) -> Iterator[_Target]:
    stems: dict[str, list[str]] = {}
    for cut in family.cuts:
        stem = cut.name.rpartition(".")[0]
        owner = (
            "mlp.gate_up_proj"
            if stem in ("mlp.gate_proj", "mlp.up_proj") and hasattr(layer.mlp, "gate_up_proj")
            else stem
        )
        if stem not in stems.setdefault(owner, []):
            stems[owner].append(stem)
    transposed = family.down_cut.axis == 0
    for owner, members in stems.items():
        parts = next(cut.parts for cut in family.cuts if cut.name.startswith(f"{members[0]}."))
        weights = [part for stem in members for part in tensors[f"{stem}.weight"].chunk(parts)]
        biases = tuple(tensors[f"{stem}.bias"] for stem in members if f"{stem}.bias" in tensors)
        stored = tuple(w.T if transposed else w for w in weights)
        yield _Target(submodule(layer, owner), stored, biases, int(owner == family.down))


def _packed(module: Any) -> Callable[[], None]:
    weight, bias, cpu_linear = module.weight, module.bias, module.cpu_linear

    def restore() -> None:
        module.weight, module.bias, module.cpu_linear = weight, bias, cpu_linear

    return restore


def _pack(target: _Target) -> None:
    import torch
    from vllm.model_executor.layers.utils import dispatch_cpu_unquantized_gemm

    module, dtype = target.module, target.module.weight.dtype
    module.weight = torch.nn.Parameter(torch.cat(target.weights).to(dtype).contiguous(), requires_grad=False)
    if target.biases:
        module.bias = torch.nn.Parameter(torch.cat(target.biases).to(dtype), requires_grad=False)
    dispatch_cpu_unquantized_gemm(module, remove_weight=True)


def _scale(tensors: dict[str, Any], family: Family, factors: FloatArray) -> None:
    """Multiplies the columns of down_proj, which is the same as the activations of their neurons."""
    import torch

    name, values = family.down_cut.name, torch.from_numpy(factors)
    weight = tensors[name]
    scaled = weight.float() * (values if family.down_cut.axis == 1 else values[:, None])
    tensors[name] = scaled.to(weight.dtype)


def _shift(module: Any, offset: FloatArray) -> None:
    """Adds an offset [hidden_size] to the output; an engine that was compiled would not see a bias that is new."""
    import torch

    added, bias = torch.from_numpy(offset).to(module.weight.device), module.bias
    whole = added if bias is None else added + bias.detach().float()
    module.bias = torch.nn.Parameter(whole.to(module.weight.dtype), requires_grad=False)


def _held(module: Any) -> Callable[[], None]:
    """A copy in main memory, where it takes nothing of the device's."""
    bias = module.bias
    copies = [
        (parameter, parameter.data.to("cpu", copy=True))
        for parameter in (module.weight, module.bias)
        if parameter is not None
    ]

    def restore() -> None:
        module.bias = bias
        for parameter, copy in copies:
            parameter.data.copy_(copy)

    return restore


def _write(target: _Target, width: int) -> None:
    """Every device takes its part of the whole matrix, so that removed neurons are filled up with zeros before."""
    whole = [_padded(weight, width, target.axis) for weight in target.weights]
    biases = [_padded(bias, width, 0) for bias in target.biases]
    for parameter, values in ((target.module.weight, whole), (target.module.bias, biases)):
        for part, value in enumerate(values):
            parameter.weight_loader(parameter, value, *([part] if len(values) > 1 else []))


def _padded(tensor: Any, width: int, axis: int) -> Any:
    import torch

    shape = list(tensor.shape)
    shape[axis] = width - shape[axis]
    return torch.cat([tensor, tensor.new_zeros(shape)], dim=axis)
