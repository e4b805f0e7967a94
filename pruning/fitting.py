"""Adam on a few tensors, with a part of the data held out that chooses the learning rate and the epoch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Tensors = Mapping[str, Any]
_TRIAL = 3  # epochs; after one, a rate that is best in the end can still be behind
_BETAS, _EPSILON = (0.9, 0.95), 1e-15  # gradients of a relative error are small beside Adam's default of 1e-8


@dataclass(frozen=True)
class Schedule:
    """How long and how fast.

    Attributes:
        epochs: Passes over the training batches.
        rates: Learning rates at the start, as a share of the root mean square of each tensor; they fall to 0 along a
            cosine. Of several, the one that is best after three epochs, with a cosine of their own, is taken.
        seed: Of the order of the batches.
    """

    epochs: int
    rates: tuple[float, ...]
    seed: int = 0

    @property
    def passes(self) -> int:
        """Epochs in all, those that choose the rate among them."""
        return self.epochs + (_TRIAL * len(self.rates) if len(self.rates) > 1 else 0)


@dataclass(frozen=True)
class Fit:
    """The tensors of the best epoch, in the dtype of the start; epoch 0 is the start itself.

    before, after: The held-out loss of the start and of the tensors.
    """

    tensors: Tensors
    epoch: int
    before: float
    after: float


def minimise(
    start: Tensors,
    loss: Callable[[Tensors, int], Any],
    batches: Sequence[int],
    held_out: Callable[[Tensors], float],
    schedule: Schedule,
) -> Fit:
    """Adam (Kingma and Ba 2015) in FP32, one step a batch, in a new order each epoch.

    Args:
        start: Name -> tensor, in the dtype in which the result is stored.
        loss: Of FP32 tensors on a batch; a scalar with a gradient.
        batches: What `loss` is asked about.
        held_out: The loss of tensors in the dtype of the start on what no step sees.

    Returns:
        The best epoch by `held_out`, so that its loss is never above that of the start.
    """
    before = held_out(start)
    if before == 0:
        return Fit(start, 0, before, before)

    def tried(rate: float, epochs: int) -> Fit:
        return _descend(start, loss, batches, held_out, rate, epochs, schedule.seed, before)

    trials = {rate: tried(rate, _TRIAL).after for rate in schedule.rates} if len(schedule.rates) > 1 else {}
    return tried(min(schedule.rates, key=lambda rate: trials.get(rate, 0.0)), schedule.epochs)


def _descend(
    start: Tensors,
    loss: Callable[[Tensors, int], Any],
    batches: Sequence[int],
    held_out: Callable[[Tensors], float],
    rate: float,
    epochs: int,
    seed: int,
    before: float,
) -> Fit:
    """With one learning rate. before: the held-out loss of the start."""
    import torch

    best = Fit(start, 0, before, before)
    masters = {name: tensor.float().clone().requires_grad_() for name, tensor in start.items()}
    steps = epochs * len(batches)
    rates = [{"params": [t], "lr": rate * float(t.detach().square().mean().sqrt())} for t in masters.values()]
    adam = torch.optim.Adam(rates, betas=_BETAS, eps=_EPSILON, fused=True)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(adam, max(steps, 1))
    order = torch.Generator().manual_seed(seed)
    for epoch in range(1, epochs + 1):
        for index in torch.randperm(len(batches), generator=order).tolist():
            adam.zero_grad()
            loss(masters, batches[index]).backward()
            adam.step()
            cosine.step()
        now = {name: tensor.detach().to(start[name].dtype, copy=True) for name, tensor in masters.items()}
        if (after := held_out(now)) < best.after:
            best = Fit(now, epoch, before, after)
    return best
