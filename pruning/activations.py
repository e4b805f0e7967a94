"""Streaming moments of FFN activations, read by a forward-pre-hook on down_proj.

h_j = silu(gate_proj(x)_j) * up_proj(x)_j is already the input of down_proj, so nothing is computed twice; the LM head is not run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from harness.errors import UnsupportedModelError
from harness.types import ActivationStats, CalibrationItem, CalibrationSet, FloatArray, Moments
from pruning.calibration import batches
from pruning.families import Family

Observer = Callable[[int, Any], None]


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
def observe(layers: Sequence[Any], observer: Observer) -> Iterator[None]:
    """Calls observer(layer, h) with h [batch, tokens, intermediate_size] before each down_proj; no hook is left behind."""
    hooks = [
        layer.mlp.down_proj.register_forward_pre_hook(lambda _, inputs, index=i: observer(index, inputs[0]))
        for i, layer in enumerate(layers)
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


class _Accumulator:
    """The running sums of a layer stack, and what one batch needs: its weights, its mask and one scratch buffer."""

    def __init__(self, layers: int, width: int) -> None:
        empty = Moments(0, np.zeros((layers, width)), np.zeros((layers, width)))
        self.moments = {True: empty, False: empty}
        self.squares, self.tokens = np.zeros((layers, width)), 0
        self.means: list[Any] = [None] * layers
        self.target = True
        self.mask: Any = None
        self.weights: Any = None
        self.scratch: Any = None

    def begin(self, mask: Any, target: bool) -> None:
        """mask: 1 on the scored tokens, [batch, tokens]; their weights in the mean are [batch, 1, tokens]."""
        self.mask, self.target = mask, target
        self.weights = (mask / mask.sum(dim=1, keepdim=True)).unsqueeze(1)
        self.scratch = None

    def observe(self, layer: int, h: Any) -> None:
        """Means over the scored tokens by one batched product [B, 1, T] @ [B, T, F]; one buffer serves all layers."""
        import torch

        if self.scratch is None:
            self.scratch = torch.empty(h.shape, device=h.device)
        size = torch.abs(h.float(), out=self.scratch)
        self.means[layer] = (self.weights @ size).squeeze(1)
        if self.target:
            self.squares[layer] += (self.mask.flatten() @ size.square_().flatten(0, 1)).double().cpu().numpy()

    def end(self) -> None:
        import torch

        means = torch.stack(self.means, dim=1).cpu().numpy()  # [batch, layers, intermediate_size]
        self.moments[self.target] = merge(self.moments[self.target], moments_of(means))
        self.tokens += int(self.mask.sum()) if self.target else 0


def collect(model: Any, family: Family, calibration: CalibrationSet, progress: Callable[[int], None] = lambda _: None) -> ActivationStats:
    """Runs the body of `model` over the calibration set; `progress` gets the number of prompts done in each batch.

    Raises UnsupportedModelError where weights or activations are not finite.
    """
    import torch

    body = getattr(model, family.body)
    width = model.config.intermediate_size
    _need_finite(model)
    sums = _Accumulator(len(body.layers), width)
    with torch.inference_mode(), observe(body.layers, sums.observe):
        for batch in batches(calibration.items):
            ids, attention, mask = pad(batch, model.device)
            sums.begin(mask, batch[0].target)
            body(input_ids=ids, attention_mask=attention, use_cache=False)
            sums.end()
            progress(len(batch))
    stats = ActivationStats(
        sums.moments[True], sums.moments[False], sums.squares / max(sums.tokens, 1), _down_norms(body.layers), calibration.hash
    )
    if not (np.isfinite(stats.target.mean).all() and np.isfinite(stats.distractor.mean).all()):
        raise UnsupportedModelError("an activation is not finite (overflow or NaN); check the checkpoint and its dtype")
    return stats


def _need_finite(model: Any) -> None:
    import torch

    for name, parameter in model.named_parameters():
        if not torch.isfinite(parameter).all():
            raise UnsupportedModelError(f"weight {name} holds NaN or infinity; the checkpoint is damaged, get it again")


def _down_norms(layers: Sequence[Any]) -> FloatArray:
    return np.stack([layer.mlp.down_proj.weight.detach().float().norm(dim=0).cpu().numpy() for layer in layers]).astype(np.float64)


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
