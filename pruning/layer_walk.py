"""Goes through a model layer by layer: every batch of prompts passes one layer before any passes the next.

So only one layer's weights are needed at a time, and what is measured in a layer is finished before the next one begins
(as in SparseGPT, arXiv 2301.00774). The hidden states of all batches are kept between layers, tokens * hidden_size
numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from harness.core.files import check_disk
from harness.core.memory import device_bytes_free
from harness.core.types.calibration import CalibrationItem
from pruning.activations import observe, observe_gates, pad
from pruning.calibration import batches
from pruning.families import Family, submodule
from pruning.hidden_states import HiddenStates
from pruning.layer_source import LayerSource
from pruning.placement import SAMPLE

_MEMORY_SHARE = 0.25  # of the free memory of the device; more hidden states than that go to files


@dataclass(frozen=True)
class ScoredTokens:
    """Which tokens of a batch are scored; everything on one device.

    Attributes:
        weights: [prompts, 1, tokens] float32, 1 / (the prompt's scored tokens) at each of them and 0 elsewhere.
        lengths: Scored tokens [prompts], float64.
        positions: Of the scored tokens in [prompts * tokens], int64.
        rows: The prompts whose means are kept one by one, int64, and `slots`: where in the sample they go.
    """

    weights: Any
    lengths: Any
    positions: Any
    rows: Any
    slots: Any

    def to(self, device: Any) -> ScoredTokens:
        return replace(self, **{name: value.to(device) for name, value in vars(self).items()})


@dataclass
class Batch:
    """A batch on its way through the layers, and the arguments with which each layer is called besides its input."""

    target: bool
    scored: ScoredTokens
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]]
    others: dict[Any, ScoredTokens] = field(default_factory=dict)  # copies, where a model lies on several devices

    def scored_on(self, device: Any) -> ScoredTokens:
        if self.scored.weights.device == device:
            return self.scored
        if device not in self.others:
            self.others[device] = self.scored.to(device)
        return self.others[device]


class LayerWalk:
    """Takes the hidden states of all batches of `items` through the layers of `source`.

    folder: For hidden states that are too large for the memory, or are saved; None keeps them in memory.
    work: The items as batches of one group each, where they are not `calibration.batches`.
    """

    def __init__(
        self,
        source: LayerSource,
        items: Sequence[CalibrationItem],
        folder: Path | None = None,
        work: Sequence[Sequence[CalibrationItem]] = (),
    ) -> None:
        self.source, self.family, self.layer = source, source.family, 0
        self.batches: list[Batch] = []
        work = work or list(batches(items))
        expected = {target: sum(item.target is target for item in items) for target in (True, False)}
        seen = {True: 0, False: 0}
        self.hidden = HiddenStates(folder)
        for number, batch in enumerate(work):
            target = batch[0].target
            first = self._start(batch, seen[target], expected[target])
            if number == 0:
                self.hidden = HiddenStates(folder, _in_files(work, first, folder))
            self.hidden.write(number, first)
            seen[target] += len(batch)
        self.hidden.advance(0)

    def _start(self, items: Sequence[CalibrationItem], seen: int, expected: int) -> Any:
        """Records how the body calls its layers on this batch; returns the first layer's input."""
        import torch

        ids, attention, mask = pad(items, self.source.device)
        with torch.inference_mode():
            first, calls = _recorded(self.source.model, self.family, self.source.embed(ids), attention)
        self.batches.append(Batch(items[0].target, _scored(items, mask, seen, expected), calls))
        return first

    def resume(self, layer: int) -> None:
        """Goes on from states that were saved before `layer`."""
        self.hidden.resume(layer, lambda number: self.batches[number].scored.weights.device)
        self.layer = layer

    def forward(self, module: Any, advance: bool = True) -> None:
        """Every batch through the current layer; `advance`: its outputs become the next layer's inputs."""
        import torch

        with torch.inference_mode():
            for number, batch in enumerate(self.batches):
                self.current = batch
                arguments, named = batch.calls[self.layer]
                found = module(self.hidden.read(number, self.source.device), *arguments, **named)
                if advance:
                    self.hidden.write(number, found)
        if advance:
            self.layer += 1
            self.hidden.advance(self.layer)

    @contextmanager
    def observing(self, observer: Callable[[Batch, Any], None]) -> Iterator[None]:
        """Calls observer(batch, h) before the current layer's down projection."""
        with observe(self.source.model, self.family, lambda _, h: observer(self.current, h), [self.layer]):
            yield

    @contextmanager
    def observing_gates(self, observer: Callable[[Batch, Any], None]) -> Iterator[None]:
        """Calls observer(batch, gate) with the current layer's gate before its activation function."""
        with observe_gates(self.source.model, self.family, lambda _, gate: observer(self.current, gate), [self.layer]):
            yield


def _in_files(work: Sequence[Sequence[CalibrationItem]], first: Any, folder: Path | None) -> bool:
    """Whether the hidden states of all batches are too large for the memory of the first one's device."""
    if folder is None:
        return False
    tokens = sum(len(batch) * max(len(item.token_ids) for item in batch) for batch in work)
    size = tokens * first.shape[-1] * first.element_size()
    if size <= _MEMORY_SHARE * device_bytes_free(first.device):
        return False
    check_disk(folder, 2 * size)
    return True


def _recorded(model: Any, family: Family, embedded: Any, attention: Any) -> tuple[Any, list[Any]]:
    """Runs the body with layers that only record their arguments.

    Returns the hidden states before the first layer, and for each layer its other arguments; what the layers share,
    such as a mask, is one object.
    """
    states: list[Any] = []
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def record(hidden_states: Any, *arguments: Any, **named: Any) -> Any:
        states.append(hidden_states)
        calls.append((arguments, named))
        return hidden_states

    with replaced_forwards(submodule(model, family.layers), record):
        getattr(model, family.body)(inputs_embeds=embedded, attention_mask=attention, use_cache=False)
    return states[0], calls


@contextmanager
def replaced_forwards(stack: Any, forward: Callable[..., Any]) -> Iterator[None]:
    """Layers that do what `forward` does instead."""
    own = [vars(layer).get("forward") for layer in stack]  # accelerate's, where it has put hooks
    try:
        for layer in stack:
            layer.forward = forward
        yield
    finally:
        for layer, before in zip(stack, own, strict=True):
            del layer.forward
            if before is not None:
                layer.forward = before


def _scored(items: Sequence[CalibrationItem], mask: Any, seen: int, expected: int) -> ScoredTokens:
    """`seen`: prompts of the group before this batch; `expected`: prompts of the group."""
    import torch

    longest = mask.shape[1]
    positions = [row * longest + token for row, item in enumerate(items) for token in range(item.start, item.stop)]
    kept = [(row, slot) for row in range(len(items)) if (slot := sample_slot(seen + row, expected)) is not None]
    numbers = torch.tensor([*positions, *(row for row, _ in kept), *(slot for _, slot in kept)], dtype=torch.long)
    parts = numbers.to(mask.device).split_with_sizes([len(positions), len(kept), len(kept)])  # one copy to the device
    lengths = mask.sum(dim=1)
    return ScoredTokens((mask / lengths.unsqueeze(1)).unsqueeze(1), lengths.double(), *parts)


def sample_slot(prompt: int, prompts: int) -> int | None:
    """Where in a sample of at most 256 prompts this one's means are kept; None where they are not.

    The sample is spread evenly over the prompts, which are of growing length.
    """
    size = min(SAMPLE, prompts)
    slot, following = prompt * size // prompts, (prompt + 1) * size // prompts
    return slot if following > slot else None
