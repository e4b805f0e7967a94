"""Reconstruction: the FFN of each pruned layer, optimised so that the layer writes what the dense layer writes.

Layer by layer, on the calibration prompts: the pruned layer reads hidden states that come from the pruned layers before
it, and the dense layer reads those of the dense layers, so that a layer also corrects what the layers before it got
wrong. No labels and no LM head are needed. The unit of reconstruction is a layer, as in BRECQ (arXiv 2102.05426); the
error of a token is relative to the norm of the dense output, as the next layer's norm divides by it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from harness.core.types.arrays import IndexArray
from harness.core.types.calibration import CalibrationItem
from pruning.calibration import batches
from pruning.families import submodule
from pruning.fitting import Fit, Schedule, Tensors, minimise
from pruning.layer_source import LayerSource
from pruning.layer_walk import LayerWalk, replaced_forwards
from pruning.missing_attention import without_attention
from pruning.narrowed import call, narrowed, resized
from pruning.second_moments import SecondMoments, token_weights

SCHEDULE = Schedule(epochs=10, rates=(0.05, 0.005))
BATCH_TOKENS = 512  # of a step
_HELD_OUT = 10  # one prompt in so many
_SCALE = 4096  # of the loss, which Adam does not see; gradients in FP16 would be rounded to 0 without


class LayerReconstruction:
    """Goes through the layers of `source` once, in order.

    layers: Those that stay, sorted; hidden states of the pruned model pass over the others unchanged.
    no_attention: Those of them whose attention goes.
    moments: Which prompts are read, how much a token of each group weighs, and a folder for hidden states that are too
        large for the memory.
    """

    def __init__(
        self,
        source: LayerSource,
        layers: Sequence[int],
        moments: SecondMoments,
        schedule: Schedule = SCHEDULE,
        no_attention: Sequence[int] = (),
    ) -> None:
        self.no_attention = frozenset(no_attention)
        self.source, self.family, self.schedule, self.last = source, source.family, schedule, layers[-1]
        self.weights = token_weights(moments.calibration, moments.general_weight)
        items = [item for item in moments.calibration.items if self.weights[item.target] > 0]
        training, held_out = _split(items)
        work = [list(batches(part, BATCH_TOKENS)) for part in (training, held_out)]
        self.training = range(len(work[0]))
        self.held_out = range(len(work[0]), len(work[0]) + len(work[1]))
        self.dense, self.pruned = (
            LayerWalk(source, items, moments.folder / name, [*work[0], *work[1]]) for name in ("dense", "pruned")
        )

    def fit(self, layer: int, keep: IndexArray, fitted: Tensors) -> Fit:
        """The FFN's tensors by the names of their cuts, as stored; then both streams go on to the next layer.

        Args:
            layer: The next one that stays.
            keep: Its neurons that stay.
            fitted: Its re-fitted down projection, by its name; the result has its dtype.
        """
        while self.dense.layer < layer:
            self._pass_over()
        with self.source.layer(layer) as module:
            module.requires_grad_(False)
            self.dense.forward(module)  # the states of this stream are the targets from here on
            start = narrowed(module, self.family, keep, fitted)
            bare = without_attention(module, layer in self.no_attention)
            with bare, resized(module, start), self._attention_once(module):
                loss = partial(self._loss, module)
                found = minimise(start, loss, self.training, partial(self._held_out, module), self.schedule)
                if layer < self.last:
                    self.pruned.forward(partial(call, module, found.tensors))
        if layer == self.last:
            self.dense.hidden.remove()
            self.pruned.hidden.remove()
        return replace(found, tensors={name: tensor.cpu() for name, tensor in found.tensors.items()})

    @contextmanager
    def _attention_once(self, module: Any) -> Iterator[None]:
        """The attention of a batch, which no step changes, is computed the first time alone; anew each time where the
        hidden states are too large for the memory.
        """
        attention, known = submodule(module, self.family.attention.output.rpartition(".")[0]), {}
        own = attention.forward

        def once(*arguments: Any, **named: Any) -> Any:
            batch = id(self.pruned.current)
            if batch not in known:
                known[batch] = own(*arguments, **named)[0]
            return known[batch], None

        if self.pruned.hidden.in_files:
            yield
            return
        with replaced_forwards([attention], once):
            yield

    def _pass_over(self) -> None:
        """A layer that is removed: the dense stream goes through it."""
        with self.source.layer(self.dense.layer) as module:
            self.dense.forward(module)
        self.pruned.forward(lambda hidden, *_arguments, **_named: hidden)

    def _loss(self, module: Any, tensors: Tensors, number: int) -> Any:
        """The weighted error of a batch, scaled; its mean over the training batches is that of their tokens."""
        share = self._weight(number) * len(self.training)
        return _SCALE * share * self._errors(module, tensors, number).mean()

    def _held_out(self, module: Any, tensors: Tensors) -> float:
        import torch

        with torch.inference_mode():
            found = [self._weight(n) * float(self._errors(module, tensors, n).mean()) for n in self.held_out]
        return sum(found) / sum(map(self._weight, self.held_out))

    def _weight(self, number: int) -> float:
        batch = self.pruned.batches[number]
        return self.weights[batch.target] * len(batch.scored.positions)

    def _errors(self, module: Any, tensors: Tensors, number: int) -> Any:
        """|pruned - dense|^2 / |dense|^2 of the layer's output at each scored token of a batch, float32."""
        batch = self.pruned.current = self.pruned.batches[number]
        arguments, named = batch.calls[self.pruned.layer]
        states = (walk.hidden.read(number, self.source.device) for walk in (self.pruned, self.dense))
        given, wanted = states
        written = call(module, tensors, given, *arguments, **named)
        positions = batch.scored_on(written.device).positions
        wanted = wanted.to(written.device)
        rows, target = (x.reshape(-1, x.shape[-1]).index_select(0, positions).float() for x in (written, wanted))
        return (rows - target).square().sum(dim=-1) / target.square().sum(dim=-1)


def _split(items: Sequence[CalibrationItem]) -> tuple[list[CalibrationItem], list[CalibrationItem]]:
    """Training and held-out prompts of both groups: of every group, one in ten is held out, at least one."""
    held = [item for side in (True, False) for item in [i for i in items if i.target is side][::_HELD_OUT]]
    chosen = set(map(id, held))
    return [item for item in items if id(item) not in chosen], held
