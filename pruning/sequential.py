"""Second moments layer by layer through the pruned model: each layer sees the outputs of the pruned layers before it.

The hidden states of all calibration tokens are kept between layers (tokens * hidden_size floats), so every layer runs
twice, once to be measured and once pruned (as in SparseGPT, arXiv 2301.00774, and SlimGPT, arXiv 2412.18110).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from harness.core.types.calibration import CalibrationSet
from pruning.activations import down_weight, observe, pad
from pruning.calibration import batches
from pruning.families import Family, submodule
from pruning.second_moments import Sums


@dataclass
class _Batch:
    """Hidden states before the next layer, and the other arguments with which every layer was called."""

    target: bool
    mask: Any
    hidden: Any
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]]


class LayerwiseRefit:
    """Goes through the layers of `model` once, in order, and replaces their down projections."""

    def __init__(self, model: Any, family: Family, calibration: CalibrationSet, general_weight: float) -> None:
        self.model, self.family, self.calibration, self.general_weight = model, family, calibration, general_weight
        self.stack = submodule(model, family.layers)
        weights = Sums(calibration, general_weight, ()).weights
        self.batches = [
            self._start(batch) for batch in batches([item for item in calibration.items if weights[item.target] > 0])
        ]

    def _start(self, batch: Any) -> _Batch:
        """One dense pass that records the first layer's input and every layer's other arguments."""
        import torch

        ids, attention, mask = pad(batch, self.model.device)
        calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        hooks = [
            layer.register_forward_pre_hook(lambda _m, a, k: calls.append((a, k)), with_kwargs=True)
            for layer in self.stack
        ]
        try:
            with torch.inference_mode():
                getattr(self.model, self.family.body)(input_ids=ids, attention_mask=attention, use_cache=False)
        finally:
            for hook in hooks:
                hook.remove()
        first = calls[0][0][0] if calls[0][0] else calls[0][1]["hidden_states"]
        others = [(a[1:], {name: value for name, value in k.items() if name != "hidden_states"}) for a, k in calls]
        return _Batch(batch[0].target, mask, first, others)

    def second_moment(self, layer: int) -> Any:
        """H [F, F] float32 of this layer, given the pruned layers before it."""
        sums = Sums(self.calibration, self.general_weight, [layer])
        for batch in self.batches:
            add = sums.observer(batch.target, batch.mask)
            assert add is not None
            with observe(self.model, self.family, add, [layer]):
                self._run(layer, batch)
        return sums.found[layer]

    def prune(self, layer: int, keep: Any, fitted: Any) -> None:
        """Sets the layer's down projection to the re-fitted columns [hidden, kept] and the rest to zero, then
        advances.
        """
        import torch

        with torch.inference_mode():
            weight = down_weight(self.stack[layer], self.family)
            weight.zero_()
            weight[:, keep.to(weight.device)] = fitted.to(weight)
        for batch in self.batches:
            batch.hidden = self._run(layer, batch)

    def _run(self, layer: int, batch: _Batch) -> Any:
        import torch

        arguments, named = batch.calls[layer]
        with torch.inference_mode():
            out = self.stack[layer](batch.hidden, *arguments, **named)
        return out[0] if isinstance(out, tuple) else out
