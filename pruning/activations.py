"""What is measured of FFN activations, read by a forward-pre-hook on the down projection.

h_j = act(gate_proj(x)_j) * up_proj(x)_j is already the input of down_proj, so nothing is computed twice; the LM head is
not run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from harness.core.types.calibration import CalibrationItem
from pruning.families import Family, submodule
from pruning.placement import SAMPLE
from pruning.token_means import TOKEN_STATISTICS, token_means

if TYPE_CHECKING:
    from pruning.layer_walk import ScoredTokens

Observer = Callable[[int, Any], None]
_PROMPT_MEAN, _PROMPT_M2 = 0, 1  # rows of the sums; one for each token statistic follows
_FIRST = 2


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
def observe_gates(model: Any, family: Family, observer: Observer, layers: Sequence[int]) -> Iterator[None]:
    """Calls observer(layer, gate) with the gate before its activation function."""
    stack = submodule(model, family.layers)

    def gate_of(output: Any) -> Any:
        return output.chunk(2, dim=-1)[0] if any(cut.parts == 2 for cut in family.cuts) else output

    hooks = [
        submodule(stack[i], str(family.gate)).register_forward_hook(
            lambda _m, _i, output, index=i: observer(index, gate_of(output))
        )
        for i in layers
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


class LayerSums:
    """One layer's sums over the prompts of both groups, on the layer's device; nothing is copied to the host.

    A unit is one channel of h, or as many channels in a row as go into `width` units; then its statistics are the means
    of its channels' statistics.

    Attributes:
        sums: [2, rows, width] float64, target first: mean and sum of squared deviations of the prompts'
            means of |h|, then for each token statistic, and for the gate where it is measured, its sum over the tokens.
        sample: Means of |h| of single prompts, float32: those of the target, then those of the distractors.
    """

    def __init__(self, width: int, prompts: Mapping[bool, int], gate: bool, device: Any) -> None:
        import torch

        rows = _FIRST + len(TOKEN_STATISTICS) + gate
        self.sums = torch.zeros(2, rows, width, dtype=torch.float64, device=device)
        sizes = [min(SAMPLE, prompts[target]) for target in (True, False)]
        self.sample = torch.zeros(sum(sizes), width, device=device)
        self._samples = dict(zip((True, False), self.sample.split_with_sizes(sizes), strict=True))
        self._counts = {True: 0, False: 0}
        self._width = width

    def observe(self, target: bool, h: Any, scored: ScoredTokens) -> None:
        """h: of a batch, [prompts, tokens, intermediate_size] or the first two as one."""
        prompts, _, tokens = scored.weights.shape
        means = token_means(h.reshape(prompts, tokens, -1), scored.weights)
        if means.shape[-1] != self._width:
            means = means.unflatten(-1, (self._width, -1)).mean(dim=-1)
        self.add(target, means, scored)

    def observe_gates(self, target: bool, gates: Any, scored: ScoredTokens) -> None:
        """gates: before their activation function, shaped as h."""
        prompts, _, tokens = scored.weights.shape
        means = (scored.weights @ (gates.reshape(prompts, tokens, -1) > 0).float()).squeeze(1)
        self.sums[0 if target else 1, -1] += scored.lengths @ means.double()

    def add(self, target: bool, means: Any, scored: ScoredTokens) -> None:
        """means: of each prompt, float32 [statistics, prompts, intermediate_size], as `TOKEN_STATISTICS` names them."""
        group, exact = self.sums[0 if target else 1], means.double()
        self._merge(target, group, exact[0])
        group[_FIRST : _FIRST + len(means)] += scored.lengths @ exact
        self._samples[target].index_copy_(0, scored.slots, means[0].index_select(0, scored.rows))

    def _merge(self, target: bool, group: Any, values: Any) -> None:
        """Adds a batch to the moments over prompts (Chan, Golub and LeVeque 1979)."""
        before, count = self._counts[target], len(values)
        total, mean = before + count, values.mean(dim=0)
        delta = mean - group[_PROMPT_MEAN]
        group[_PROMPT_M2] += (values - mean).square().sum(dim=0) + delta.square() * (before * count / total)
        group[_PROMPT_MEAN] += delta * (count / total)
        self._counts[target] = total


def down_weight(layer: Any, family: Family) -> Any:
    """[hidden, intermediate_size], whichever way round the architecture stores it."""
    weight = submodule(layer, family.down).weight.detach()
    return weight if family.down_cut.axis == 1 else weight.T


def pad(batch: Sequence[CalibrationItem], device: Any) -> tuple[Any, Any, Any]:
    """ids, attention mask and mask of scored tokens, each [batch, longest], padded on the right with id 0; one copy to
    the device.
    """
    import torch

    longest = max(len(item.token_ids) for item in batch)
    padded = torch.zeros(3, len(batch), longest, dtype=torch.long)
    for row, item in enumerate(batch):
        padded[0, row, : len(item.token_ids)] = torch.tensor(item.token_ids)
        padded[1, row, : len(item.token_ids)] = 1
        padded[2, row, item.start : item.stop] = 1
    ids, attention, mask = padded.to(device)
    return ids, attention, mask.float()
