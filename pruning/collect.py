"""All that one pass over the calibration prompts measures: activation statistics and second moments, layer by layer."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harness.core.errors import UnsupportedModelError, UsageError
from harness.core.files import load_arrays, save_arrays
from harness.core.types.arrays import FloatArray
from harness.core.types.calibration import CalibrationSet
from harness.core.types.pruning import ActivationStats, GroupStats, Moments
from pruning.activations import LayerSums, down_weight
from pruning.layer_source import LayerSource, widths
from pruning.layer_walk import Batch, LayerWalk
from pruning.placement import SAMPLE
from pruning.second_moments import SecondMoments
from pruning.token_means import TOKEN_STATISTICS

_SAVE_EVERY_SECONDS = 60.0


@dataclass(frozen=True)
class _Layer:
    """What was measured in one layer, as torch tensors: `LayerSums`, and the norms of down_proj's columns."""

    sums: Any
    sample: Any
    down_norm: Any


def collect(
    source: LayerSource,
    calibration: CalibrationSet,
    gate: bool = False,
    progress: Callable[[int], None] = lambda _: None,
    partial: Path | None = None,
    moments: SecondMoments | None = None,
    units: int | None = None,
) -> ActivationStats:
    """Takes the calibration prompts through the layers of a model and returns its activation statistics.

    Args:
        gate: Also measure how often each gate is open, for `lape`.
        progress: Called with 1 after each layer.
        partial: A folder that keeps what is done, so that a killed scoring resumes; the caller removes it.
        moments: Second moments to measure in the same pass; each layer's are written to its file.
        units: Of each layer, each of as many channels in a row; None: every channel by itself.

    Raises:
        UnsupportedModelError: Weights or activations are not finite.
    """
    layers = len(widths(source))
    if moments:
        moments.check_disk(widths(source))
    measured = f"{gate} {source.family.down} {units} {source.model.dtype} {source.device.type}"
    store = _Partial(partial, f"{calibration.hash} {measured}", moments)
    walk = LayerWalk(source, calibration.items, partial)
    done = store.load(walk)
    progress(len(done))
    prompts = {target: calibration.count(target) for target in (True, False)}
    for layer in range(len(done), layers):
        with source.layer(layer) as module:
            done.append(_measure(walk, module, prompts, gate, moments, units))
        if source.streamed:  # its memory is the next layer's
            done[-1] = _Layer(*(value.cpu() for value in vars(done[-1]).values()))
        progress(1)
        store.save(walk, done, last=layer == layers - 1)
    return _statistics(done, calibration, gate)


def _measure(
    walk: LayerWalk,
    module: Any,
    prompts: Mapping[bool, int],
    gate: bool,
    moments: SecondMoments | None,
    units: int | None,
) -> _Layer:
    """One layer: its statistics, its second moments where they are wanted, and the next layer's inputs."""
    weight, layer = down_weight(module, walk.family), walk.layer
    width = units or weight.shape[1]
    sums = LayerSums(width, prompts, gate, weight.device)
    second = moments.of_layer(layer) if moments else None

    def add(batch: Batch, h: Any) -> None:
        scored = batch.scored_on(h.device)
        sums.observe(batch.target, h, scored)
        if second:
            second.add(batch, h)

    def add_gates(batch: Batch, gates: Any) -> None:
        sums.observe_gates(batch.target, gates, batch.scored_on(gates.device))

    with ExitStack() as watching:
        watching.enter_context(walk.observing(add))
        if gate:
            watching.enter_context(walk.observing_gates(add_gates))
        walk.forward(module)
    if second:
        second.save()
    squares = weight.float().square().sum(dim=0).view(width, -1).sum(dim=1)
    return _Layer(sums.sums, sums.sample, squares.sqrt().double())


def _statistics(done: Sequence[_Layer], calibration: CalibrationSet, gate: bool) -> ActivationStats:
    """One copy to the host for each kind of tensor."""
    sums, sample, down_norm = (_on_host([getattr(layer, name) for layer in done]) for name in vars(done[0]))
    sizes = np.cumsum([min(SAMPLE, calibration.count(target)) for target in (True, False)])
    groups = [
        _group(calibration, target, sums[:, number], rows.swapaxes(0, 1), gate)
        for number, (target, rows) in enumerate(zip((True, False), np.split(sample, sizes[:1], axis=1), strict=True))
    ]
    if not all(np.isfinite(group.prompts.mean).all() for group in groups):
        raise UnsupportedModelError("an activation is not finite (overflow or NaN); check the checkpoint and its dtype")
    return ActivationStats(groups[0], groups[1], down_norm, saliency=None, calibration_hash=calibration.hash)


def _group(calibration: CalibrationSet, target: bool, sums: FloatArray, sample: FloatArray, gate: bool) -> GroupStats:
    """sums: [layers, rows, intermediate_size] of one group."""
    tokens = sum(item.stop - item.start for item in calibration.items if item.target is target)
    prompts = Moments(calibration.count(target), sums[:, 0], sums[:, 1])
    means = {name: sums[:, row] / max(tokens, 1) for row, name in enumerate(TOKEN_STATISTICS, start=2)}
    return GroupStats(prompts, tokens, **means, gate_open=sums[:, -1] / max(tokens, 1) if gate else None, sample=sample)


def _on_host(layers: Sequence[Any]) -> FloatArray:
    """Tensors of one shape, of every layer, as one array; they may lie on several devices."""
    import torch

    device = layers[0].device
    together = [values if values.device == device else values.to(device) for values in layers]
    found: FloatArray = torch.stack(together).cpu().numpy()
    return found


class _Partial:
    """The finished layers of a scoring in a folder, and the hidden states after them.

    A layer's file is written before the states that follow it, so that states never belong to a layer without a file.
    """

    def __init__(self, folder: Path | None, key: str, moments: SecondMoments | None) -> None:
        self.folder, self.key, self.moments = folder, key, moments
        self.time, self.written = time.monotonic(), 0

    def load(self, walk: LayerWalk) -> list[_Layer]:
        """What another process has finished of the same scoring; afterwards `walk` stands behind it."""
        if self.folder is None:
            return []
        for layer in sorted(walk.hidden.saved(), reverse=True):
            found = [self._read(number) for number in range(layer)]
            if layer and all(found) and not (self.moments and self.moments.missing(range(layer))):
                if layer < len(widths(walk.source)):
                    walk.resume(layer)
                self.written = layer
                return [values for values in found if values]
        return []

    def save(self, walk: LayerWalk, done: Sequence[_Layer], last: bool) -> None:
        """After the last layer, after each where the hidden states are in files anyway, else at most once a minute."""
        recent = time.monotonic() - self.time < _SAVE_EVERY_SECONDS
        if self.folder is None or (recent and not last and not walk.hidden.in_files):
            return
        for layer in range(self.written, len(done)):
            arrays = {name: value.cpu().numpy() for name, value in vars(done[layer]).items()}
            save_arrays(self._file(layer), arrays, {"key": self.key})
        walk.hidden.save(last)
        self.written, self.time = len(done), time.monotonic()

    def _read(self, layer: int) -> _Layer | None:
        import torch

        try:
            arrays, meta = load_arrays(self._file(layer), "harness score")
            values = {name: torch.from_numpy(array) for name, array in arrays.items()}
            return _Layer(**values) if meta.get("key") == self.key else None
        except (UsageError, TypeError):
            return None

    def _file(self, layer: int) -> Path:
        assert self.folder is not None
        return self.folder / f"layer-{layer:04d}.safetensors"
