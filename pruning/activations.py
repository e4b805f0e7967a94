"""Streaming statistics of FFN activations, read by a forward-pre-hook on the down projection.

h_j = act(gate_proj(x)_j) * up_proj(x)_j is already the input of down_proj, so nothing is computed twice; the LM head is
not run.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from harness.core.errors import UnsupportedModelError
from harness.core.files import load_arrays, save_arrays
from harness.core.types.arrays import FloatArray
from harness.core.types.calibration import CalibrationItem, CalibrationSet
from harness.core.types.pruning import ActivationStats, GroupStats, Moments
from pruning.calibration import batches
from pruning.families import Family, submodule

Observer = Callable[[int, Any], None]
ExtraObserver = Callable[[bool, Any], Observer | None]
SAMPLE = 256  # prompts per group whose means are kept one by one, for metrics that need ranks
_SAVE_EVERY_SECONDS = 60.0
_TOKEN_STATISTICS = ("mean", "positive", "mean_abs", "mean_square")


def merge(a: Moments, b: Moments) -> Moments:
    """Moments of two disjoint samples together (Chan, Golub and LeVeque 1979)."""
    if a.count == 0 or b.count == 0:
        return b if a.count == 0 else a
    n = a.count + b.count
    delta = b.mean - a.mean
    return Moments(n, a.mean + delta * (b.count / n), a.m2 + b.m2 + delta**2 * (a.count * b.count / n))


def moments_of(values: FloatArray) -> Moments:
    """Moments over the first axis of [prompts, layers, intermediate_size], in float64."""
    exact = values.astype(np.float64)
    mean = exact.mean(axis=0)
    return Moments(len(exact), mean, ((exact - mean) ** 2).sum(axis=0))


@contextmanager
def observe(model: Any, family: Family, observer: Observer, layers: Sequence[int] | None = None) -> Iterator[None]:
    """Calls observer(layer, h) with h [batch, tokens, intermediate_size] before each down projection; no hook is left
    behind.
    """
    stack = submodule(model, family.layers)
    hooks = [
        submodule(stack[i], family.down).register_forward_pre_hook(_watch(observer, i))
        for i in (layers if layers is not None else range(len(stack)))
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _watch(observer: Observer, layer: int) -> Callable[[Any, Any], None]:
    """A pre-hook that returns nothing: what a hook returns would replace the module's input."""

    def hook(_module: Any, inputs: Any) -> None:
        observer(layer, inputs[0])

    return hook


@contextmanager
def observe_gates(model: Any, family: Family, observer: Observer) -> Iterator[None]:
    """Calls observer(layer, gate) with the gate before its activation function."""
    stack = submodule(model, family.layers)

    def gate_of(output: Any) -> Any:
        return output.chunk(2, dim=-1)[0] if any(cut.parts == 2 for cut in family.cuts) else output

    hooks = [
        submodule(layer, str(family.gate)).register_forward_hook(
            lambda _m, _i, output, index=i: observer(index, gate_of(output))
        )
        for i, layer in enumerate(stack)
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


class _Group:
    """The running sums of one group of prompts; all arrays float64 [layers, intermediate_size] but the sample's."""

    def __init__(self, layers: int, width: int, prompts: int) -> None:
        self.prompts = Moments(0, np.zeros((layers, width)), np.zeros((layers, width)))
        self.tokens = 0
        self.sums = {name: np.zeros((layers, width)) for name in (*_TOKEN_STATISTICS, "gate_open")}
        self.sample = np.zeros((min(prompts, SAMPLE), layers, width), dtype=np.float32)
        self.expected = prompts

    def add(self, means: dict[str, FloatArray], lengths: FloatArray) -> None:
        """means: statistic -> per-prompt token means [batch, layers, intermediate_size]; lengths: scored tokens
        [batch].
        """
        first = self.prompts.count
        self.prompts = merge(self.prompts, moments_of(means["mean_abs"]))
        self.tokens += int(lengths.sum())
        for name, values in means.items():
            self.sums[name] += np.einsum("b,blf->lf", lengths, values, dtype=np.float64)
        for row, prompt in enumerate(means["mean_abs"], start=first):
            slot = row * len(self.sample) // self.expected  # evenly spaced over prompts of growing length
            self.sample[slot] = prompt

    def finish(self, gate: bool) -> GroupStats:
        means = {name: values / max(self.tokens, 1) for name, values in self.sums.items()}
        gate_open = means.pop("gate_open")
        return GroupStats(self.prompts, self.tokens, **means, gate_open=gate_open if gate else None, sample=self.sample)


class _Batch:
    """Per-prompt token means of one batch, by one batched product [B, 1, T] @ [B, T, F] per statistic and layer."""

    def __init__(self, layers: int, mask: Any) -> None:
        self.mask = mask
        self.weights: dict[Any, Any] = {}
        self.found: dict[str, list[Any]] = {name: [None] * layers for name in (*_TOKEN_STATISTICS, "gate_open")}
        self.scratch: dict[Any, Any] = {}

    def _mean(self, values: Any) -> Any:
        """Over the scored tokens; the weights are kept once per device, where a model lies on several."""
        if values.device not in self.weights:
            mask = self.mask.to(values.device)
            self.weights[values.device] = (mask / mask.sum(dim=1, keepdim=True)).unsqueeze(1)
        return (self.weights[values.device] @ values).squeeze(1)

    def _buffer(self, h: Any) -> Any:
        import torch

        if self.scratch.get(h.device) is None:
            self.scratch[h.device] = torch.empty(h.shape, device=h.device)
        return self.scratch[h.device]

    def observe(self, layer: int, h: Any) -> None:
        import torch

        h = h.reshape(*self.mask.shape, -1).float()
        buffer = self._buffer(h)
        self.found["mean"][layer] = self._mean(h)
        self.found["positive"][layer] = self._mean(torch.gt(h, 0, out=buffer))
        self.found["mean_abs"][layer] = self._mean(torch.abs(h, out=buffer))
        self.found["mean_square"][layer] = self._mean(buffer.square_())

    def observe_gate(self, layer: int, gate: Any) -> None:
        self.found["gate_open"][layer] = self._mean((gate.reshape(*self.mask.shape, -1) > 0).float())

    def means(self) -> dict[str, FloatArray]:
        return {
            name: np.stack([value.cpu().numpy() for value in layers], axis=1)
            for name, layers in self.found.items()
            if layers[0] is not None
        }


def collect(
    model: Any,
    family: Family,
    calibration: CalibrationSet,
    gate: bool = False,
    progress: Callable[[int], None] = lambda _: None,
    partial: Path | None = None,
    extra_observer: ExtraObserver = lambda _target, _mask: None,
) -> ActivationStats:
    """Runs the body of `model` over the calibration set and returns its activation statistics.

    Args:
        gate: Also measure how often each gate is open, for `lape`.
        progress: Called with the number of prompts in each finished batch.
        partial: A file that keeps what is done, so that a killed scoring resumes; the caller removes it.
        extra_observer: Returns another observer for a batch, given its group and its mask of scored tokens.

    Raises:
        UnsupportedModelError: Weights or activations are not finite.
    """
    import torch

    check_finite(model)
    work = list(batches(calibration.items))
    key = f"{calibration.hash} {gate} {model.dtype} {model.device.type}"
    groups, done = _resume(partial, model, family, calibration, key)
    saved = time.monotonic()
    with torch.inference_mode():
        for number, batch in enumerate(work):
            if number >= done:
                _run_batch(model, family, batch, groups[batch[0].target], gate, extra_observer)
            progress(len(batch))
            if partial and number >= done and time.monotonic() - saved > _SAVE_EVERY_SECONDS:
                _save_partial(partial, groups, number + 1, key)
                saved = time.monotonic()
    if partial:
        _save_partial(partial, groups, len(work), key)
    stats = ActivationStats(
        target=groups[True].finish(gate),
        distractor=groups[False].finish(gate),
        down_norm=down_norms(model, family),
        saliency=None,
        calibration_hash=calibration.hash,
    )
    if not (np.isfinite(stats.target.prompts.mean).all() and np.isfinite(stats.distractor.prompts.mean).all()):
        raise UnsupportedModelError("an activation is not finite (overflow or NaN); check the checkpoint and its dtype")
    return stats


def _run_batch(
    model: Any,
    family: Family,
    batch: Sequence[CalibrationItem],
    group: _Group,
    gate: bool,
    extra_observer: ExtraObserver,
) -> None:
    ids, attention, mask = pad(batch, model.device)
    seen, other = _Batch(len(submodule(model, family.layers)), mask), extra_observer(batch[0].target, mask)
    with ExitStack() as watching:
        watching.enter_context(observe(model, family, seen.observe))
        if other:
            watching.enter_context(observe(model, family, other))
        if gate:
            watching.enter_context(observe_gates(model, family, seen.observe_gate))
        getattr(model, family.body)(input_ids=ids, attention_mask=attention, use_cache=False)
    group.add(seen.means(), mask.sum(dim=1).cpu().numpy().astype(np.float64))


def _resume(
    partial: Path | None, model: Any, family: Family, calibration: CalibrationSet, key: str
) -> tuple[dict[bool, _Group], int]:
    stack = submodule(model, family.layers)
    width = down_weight(stack[0], family).shape[1]
    groups = {target: _Group(len(stack), width, calibration.count(target)) for target in (True, False)}
    if partial is None or not partial.exists():
        return groups, 0
    arrays, meta = load_arrays(partial, "harness score")
    if meta.get("key") != key:
        return groups, 0
    for target, group in groups.items():
        numbers, stored = (
            json.loads(meta[str(target)]),
            {k.partition(".")[2]: v for k, v in arrays.items() if k.startswith(f"{target}.")},
        )
        group.prompts = Moments(numbers["prompts"], stored.pop("prompts.mean"), stored.pop("prompts.m2"))
        group.tokens, group.sample, group.sums = numbers["tokens"], stored.pop("sample"), stored
    return groups, int(meta["batches"])


def _save_partial(partial: Path, groups: dict[bool, _Group], done: int, key: str) -> None:
    arrays, meta = {}, {"key": key, "batches": str(done)}
    for target, group in groups.items():
        meta[str(target)] = json.dumps({"prompts": group.prompts.count, "tokens": group.tokens})
        named = {
            "prompts.mean": group.prompts.mean,
            "prompts.m2": group.prompts.m2,
            "sample": group.sample,
            **group.sums,
        }
        arrays.update({f"{target}.{name}": values for name, values in named.items()})
    save_arrays(partial, arrays, meta)


def check_finite(model: Any) -> None:
    import torch

    for name, parameter in model.named_parameters():
        if not torch.isfinite(parameter).all():
            raise UnsupportedModelError(f"weight {name} holds NaN or infinity; the checkpoint is damaged, get it again")


def down_weight(layer: Any, family: Family) -> Any:
    """[hidden, intermediate_size], whichever way round the architecture stores it."""
    weight = submodule(layer, family.down).weight.detach()
    return weight if family.down_cut.axis == 1 else weight.T


def down_norms(model: Any, family: Family) -> FloatArray:
    layers = submodule(model, family.layers)
    return np.stack([down_weight(layer, family).float().norm(dim=0).cpu().numpy() for layer in layers]).astype(
        np.float64
    )


def pad(batch: Sequence[CalibrationItem], device: Any) -> tuple[Any, Any, Any]:
    """ids, attention mask and mask of scored tokens, each [batch, longest], padded on the right with id 0."""
    import torch

    longest = max(len(item.token_ids) for item in batch)
    ids = torch.zeros(len(batch), longest, dtype=torch.long)
    attention, mask = torch.zeros_like(ids), torch.zeros(len(batch), longest)
    for row, item in enumerate(batch):
        ids[row, : len(item.token_ids)] = torch.tensor(item.token_ids)
        attention[row, : len(item.token_ids)] = 1
        mask[row, item.start : item.stop] = 1
    return ids.to(device), attention.to(device), mask.to(device)
