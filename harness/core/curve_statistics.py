"""Curves over ratios: how far accuracy is shown to hold, and where it bends down. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from harness.core.mask_statistics import difference_over_masks
from harness.core.statistics import loss_bound
from harness.core.types.arrays import FloatArray


def non_inferiority_threshold(
    arms: Sequence[tuple[float, Sequence[Sequence[bool]]]], dense: Sequence[bool], margin: float
) -> float:
    """The largest ratio up to which accuracy is shown to fall by less than `margin`; 0 where not even the first is.

    Ratios are tested in ascending order, each by the upper one-sided bound of the loss against the margin, until the
    first that fails. A fixed sequence needs no correction (Maurer et al. 1995). The bound is `loss_bound` at 95 %. Over
    masks it is that of `difference_over_masks` at 97.5 %: their accuracies are skewed, and at 95 % up to 7 % of
    simulated runs claimed too much.

    Args:
        arms: (ratio, outcomes [masks, items] on the same items as `dense`); several masks are a sample of all.
        dense: Outcomes of the dense model, [items].
        margin: The loss that still counts as none, a share of all items.
    """
    reached = 0.0
    for ratio, outcomes in sorted(arms, key=lambda arm: arm[0]):
        if len(outcomes) == 1:
            most = loss_bound(dense, outcomes[0])
        else:
            most = -difference_over_masks(dense, outcomes, confidence=0.95)[1]
        if most >= margin:
            break
        reached = ratio
    return reached


Shape = Literal["knee", "line", "curve", "edge", "flat"]


@dataclass(frozen=True)
class Knee:
    """Where a curve bends down: the ratio and its bootstrap interval; None where it does not.

    Attributes:
        bic_gain: How much lower the hinge's BIC is than that of the line and of the quadratic, whichever is lower.
        support: Share of bootstrap samples with a knee.
        shape: knee; flat where no more than the margin is lost; else what explains the curve as well: a line, a smooth
            curve (quadratic), or a bend at the edge of the ratios.
    """

    ratio: float | None
    ci_low: float | None
    ci_high: float | None
    bic_gain: float
    support: float
    shape: Shape


_BIC_GAIN = 6.0  # "strong" (Kass and Raftery 1995)
_GRID = 61


def knee(
    ratios: Sequence[float],
    outcomes: Sequence[Sequence[float]],
    margin: float = 0.0,
    samples: int = 2000,
    seed: int = 0,
) -> Knee:
    """A hinge a + b r + c max(0, r - k) against a line and a quadratic: least squares, k between the second and the
    last but one ratio.

    A knee needs a BIC lower by 6 than both, c < 0, k strictly between, and a loss of more than `margin` up to the last
    ratio. Items are resampled, the same ones for all ratios, since the arms share them. Descriptive only: a hinge fits
    many curves that no threshold made.

    Args:
        ratios: Ascending, the first is 0 (the dense model).
        outcomes: [ratios, items].

    Raises:
        ValueError: Fewer than five ratios, or ratios that do not ascend.
    """
    x, table = np.asarray(ratios, dtype=float), np.asarray(outcomes, dtype=float)
    if len(x) < 5 or (np.diff(x) <= 0).any() or table.ndim != 2 or len(table) != len(x):
        raise ValueError(f"knee needs at least five rising ratios and [ratios, items], got {len(x)} and {table.shape}")
    draw = np.random.default_rng(seed).integers(0, table.shape[1], (samples, table.shape[1]))
    curves = np.vstack([table.mean(axis=1), *(table[:, chosen].mean(axis=1) for chosen in draw)])
    where, over_line, over_curve = _hinges(x, curves)
    gain, fall = np.minimum(over_line, over_curve), curves[:, 0] - curves[:, -1]
    edge, step = (where <= x[1]) | (where >= x[-2]), (x[-2] - x[1]) / (_GRID - 1)
    found = (gain > _BIC_GAIN) & ~edge & (fall > margin)
    support = float(found[1:].mean())
    if not found[0] or support < 0.5:
        shape: Shape = (
            "flat" if fall[0] <= margin else "line" if over_line[0] <= _BIC_GAIN else "edge" if edge[0] else "curve"
        )
        return Knee(None, None, None, bic_gain=float(gain[0]), support=support, shape=shape)
    low, high = np.percentile(where[1:][found[1:]], [2.5, 97.5])
    low, high = (low - step, high + step) if low == high else (low, high)
    return Knee(float(where[0]), float(low), float(high), bic_gain=float(gain[0]), support=support, shape="knee")


def _hinges(x: FloatArray, curves: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Best k of every curve, and how much lower the hinge's BIC is than a line's and a quadratic's; -inf where the
    curve does not bend down. curves: [samples, ratios].
    """
    n, one = len(x), np.ones(len(x))
    line, curve = (_residual(np.column_stack(design), curves) for design in ([one, x], [one, x, x**2]))
    best, where, down = np.full(len(curves), np.inf), np.zeros(len(curves)), np.zeros(len(curves), dtype=bool)
    for k in np.linspace(x[1], x[-2], _GRID):
        design = np.column_stack([one, x, np.maximum(0.0, x - k)])
        left = _residual(design, curves)
        better = left < best
        bend = np.linalg.lstsq(design, curves.T, rcond=None)[0][2]
        best, where, down = np.where(better, left, best), np.where(better, k, where), np.where(better, bend < 0, down)
    # `more`: how many parameters the hinge has beyond the other
    gains = (n * (np.log(other) - np.log(best)) - more * np.log(n) for other, more in ((line, 2), (curve, 1)))
    over_line, over_curve = (np.where(down, gain, -np.inf) for gain in gains)
    return where, over_line, over_curve


def _residual(design: FloatArray, curves: FloatArray) -> FloatArray:
    """Residual sum of squares of each curve; kept above 0 for the logarithm."""
    fitted = design @ np.linalg.lstsq(design, curves.T, rcond=None)[0]
    return np.asarray(((curves.T - fitted) ** 2).sum(axis=0) + 1e-9)
