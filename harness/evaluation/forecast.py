"""Forecasts accuracy from the distance to the dense model: a logistic curve in log KL with noise on its scale.

KL here is in nats per answer, the sum over its tokens: a long answer has more places at which it can leave the path of
the dense model's, and per token tasks with answers of different lengths do not fall on one curve.

The share of the dense model's accuracy that a variant keeps is r = 1 / (1 + exp(-(a - b log KL + e))), e normal with
standard deviation s; right answers are binomial with r times the dense model's accuracy (a logistic-normal binomial
model: Agresti, Categorical Data Analysis, 13.1). All are fitted by maximum likelihood, but s on ways of pruning
and on tasks that a and b were not fitted on, so that intervals hold for one that is new.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import optimize, special, stats

from harness.core.types.arrays import FloatArray
from harness.core.types.evaluation import KLToDense

GRID = Path(__file__).with_name("kl_grid.json")  # benchmarks/kl_grid.py makes it
CONFIDENCE = 0.9
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(31)
_SMALLEST = 1e-4  # nats per answer: below it nothing is distinguished
_RESTARTS = 3  # a simplex may collapse before the optimum; a new one goes on from there
_SPREADS = np.geomspace(0.02, 4, 40)  # of s


@dataclass(frozen=True)
class GridCell:
    """A measured variant.

    Attributes:
        task: The model and its task.
        arm: The way of pruning, whose variants differ in their ratio.
        kl: Nats per answer from the dense model.
        dense: Accuracy of the dense model, a share.
        right: Right answers of `n`.
    """

    task: str
    arm: str
    kl: float
    dense: float
    right: int
    n: int


@dataclass(frozen=True)
class Fit:
    """`a`, `b` and `s` of the curve; `lowest` and `highest`: the KL between which it was fitted."""

    a: float
    b: float
    s: float
    lowest: float
    highest: float


@dataclass(frozen=True)
class Forecast:
    """Accuracy on n items as a share, with its 90 % interval; `extrapolated`: the KL lies outside of the grid's."""

    accuracy: float
    low: float
    high: float
    extrapolated: bool


def nats_per_answer(distance: KLToDense, tokens_per_answer: float | None) -> float:
    """Of whole answers, where their mean length is known: those that the distance was measured on end after 128 tokens.

    Args:
        distance: To the dense model.
        tokens_per_answer: Of the dense model, in its evaluation.
    """
    return distance.nats_per_token * (tokens_per_answer or distance.tokens / distance.n)


def read_grid(file: Path = GRID) -> list[GridCell]:
    """The committed grid."""
    rows = json.loads(file.read_text(encoding="utf-8"))["cells"]
    return [GridCell(**{key: row[key] for key in ("task", "arm", "kl", "dense", "right", "n")}) for row in rows]


def fit(cells: Sequence[GridCell]) -> Fit:
    """The curve of all cells; its noise is the larger of that from leaving out arms and that from leaving out tasks.

    Raises ValueError where there are fewer than two arms.
    """
    arms = sorted({cell.arm for cell in cells})
    if len(arms) < 2:
        raise ValueError(f"a forecast needs two ways of pruning or more, got {', '.join(arms) or 'none'}")
    tasks = len({cell.task for cell in cells})
    s = max(_noise(cells, by) for by in ("arm", "task")[: 1 + (tasks > 1)])
    distances = [cell.kl for cell in cells]
    return Fit(*_curve(cells), s, min(distances), max(distances))


def _noise(cells: Sequence[GridCell], by: str) -> float:
    """s by maximum likelihood, around curves that did not see the `by` of a cell."""
    held_out: list[GridCell] = []
    expected: list[FloatArray] = []
    for group in sorted({getattr(cell, by) for cell in cells}):
        a, b = _curve([cell for cell in cells if getattr(cell, by) != group])
        left = [cell for cell in cells if getattr(cell, by) == group]
        held_out += left
        expected.append(a - b * _logs(left))
    losses = [_loss(held_out, np.concatenate(expected), s) for s in _SPREADS]
    return float(_SPREADS[int(np.argmin(losses))])


def forecast(found: Fit, kl: float, dense: float, n: int) -> Forecast:
    """Of a variant, as it would be measured on n items.

    Args:
        kl: Nats per answer from the dense model.
        dense: The dense model's accuracy, a share.
    """
    shares = dense * special.expit(found.a - found.b * _log(kl) + found.s * _NODES)
    weights = _WEIGHTS / _WEIGHTS.sum()
    below = np.cumsum(stats.binom.pmf(np.arange(n + 1)[:, None], n, shares) @ weights)
    low, high = (int(np.searchsorted(below, p)) for p in ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2))
    outside = not found.lowest <= kl <= found.highest
    return Forecast(float(shares @ weights), low / n, min(high, n) / n, outside)


def _log(kl: float) -> float:
    return float(np.log(max(kl, _SMALLEST)))


def _logs(cells: Sequence[GridCell]) -> FloatArray:
    return np.array([_log(cell.kl) for cell in cells])


def _curve(cells: Sequence[GridCell]) -> tuple[float, float]:
    """a and b, fitted together with the noise; b is positive, so that accuracy falls with the distance."""
    logs = _logs(cells)

    def loss(values: FloatArray) -> float:
        a, b, s = values[0], np.exp(values[1]), np.exp(values[2])
        return _loss(cells, a - b * logs, s)

    found, options = np.array([-3.0, 0.0, -1.0]), {"xatol": 1e-3, "fatol": 1e-7}
    for _ in range(_RESTARTS):
        found = optimize.minimize(loss, found, method="Nelder-Mead", options=options).x
    return float(found[0]), float(np.exp(found[1]))


def _loss(cells: Sequence[GridCell], eta: FloatArray, s: float) -> float:
    """Mean negative log likelihood, without the binomial coefficients; eta [cells]: the curve on the logistic scale."""
    dense, right, n = (np.array([[getattr(cell, name)] for cell in cells]) for name in ("dense", "right", "n"))
    shares = np.clip(dense * special.expit(eta[:, None] + s * _NODES), 1e-9, 1 - 1e-9)
    logs = right * np.log(shares) + (n - right) * np.log1p(-shares)
    return float(-np.mean(special.logsumexp(logs, axis=1, b=_WEIGHTS / _WEIGHTS.sum())))
