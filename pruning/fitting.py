"""Adam on a few tensors, with a part of the data held out that chooses the epoch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Tensors = Mapping[str, Any]
_BETAS, _EPSILON = (0.9, 0.95), 1e-15  # gradients of a relative error are small beside Adam's default of 1e-8


@dataclass(frozen=True)
class Schedule:
    """How long and how fast.

    Attributes:
        epochs: Passes over the training batches.
        rate: The learning rate at the start, as a share of the root mean square of each tensor; it falls to 0 along a
            cosine.
        seed: Of the order of the batches.
    """

    epochs: int
    rate: float
    seed: int = 0


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
    import torch

    before = held_out(start)
    best = Fit(start, 0, before, before)
    if before == 0:
        return best
    masters = {name: tensor.float().clone().requires_grad_() for name, tensor in start.items()}
    steps = schedule.epochs * len(batches)
    rates = [{"params": [t], "lr": schedule.rate * float(t.detach().square().mean().sqrt())} for t in masters.values()]
    adam = torch.optim.Adam(rates, betas=_BETAS, eps=_EPSILON)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(adam, max(steps, 1))
    order = torch.Generator().manual_seed(schedule.seed)
    for epoch in range(1, schedule.epochs + 1):
        for index in torch.randperm(len(batches), generator=order).tolist():
            adam.zero_grad()
            loss(masters, batches[index]).backward()
            adam.step()
            cosine.step()
        now = {name: tensor.detach().to(start[name].dtype, copy=True) for name, tensor in masters.items()}
        if (after := held_out(now)) < best.after:
            best = Fit(now, epoch, before, after)
    return best
