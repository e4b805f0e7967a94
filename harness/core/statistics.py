"""Pure functions: arrays in, numbers out. Intervals are two-sided at 95 % unless stated otherwise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special, stats

from harness.core.types.arrays import BoolArray

_CONFIDENCE = 0.95
_LEAST_P = 1e-300  # a p-value is never 0; thousands of items that all change go below what a float holds
Difference = tuple[float, float, float]  # with the two ends of its interval


ABLE = 0.1  # a model can do a task if its accuracy's interval starts at or above this


def wilson(successes: int, n: int, confidence: float = _CONFIDENCE) -> tuple[float, float]:
    """Wilson's score interval of a proportion (Wilson 1927).

    (k + z^2/2 -+ z sqrt(k (n - k) / n + z^2/4)) / (n + z^2), exactly 0 and 1 at the ends. Written out, since scipy's
    takes a test with it, and intervals over masks need thousands. Raises ValueError where n is 0 or successes lie
    outside [0, n].
    """
    if n <= 0 or not 0 <= successes <= n:
        raise ValueError(f"wilson needs 0 <= successes <= n and n > 0, got {successes} of {n}")
    z = float(special.ndtri((1 + confidence) / 2))
    centre, half = successes + z * z / 2, z * math.sqrt(successes * (n - successes) / n + z * z / 4)
    low, high = (centre - half) / (n + z * z), (centre + half) / (n + z * z)
    return 0.0 if successes == 0 else low, 1.0 if successes == n else high


def is_able(right: int, n: int) -> bool:
    """Whether a model can do a task and has something to lose: its accuracy's interval starts at ABLE or above."""
    return wilson(right, n)[0] >= ABLE


@dataclass(frozen=True)
class PairedDifference:
    """b minus a on shared items: mean difference, its interval, discordant counts and the exact McNemar p-value."""

    n: int
    difference: float
    ci_low: float
    ci_high: float
    lost: int
    gained: int
    p_value: float


def paired_difference(a: Sequence[bool], b: Sequence[bool], confidence: float = _CONFIDENCE) -> PairedDifference:
    """Compares two models on the same items (Miller 2024, arXiv 2411.00640: the unit is the item).

    The interval is Newcombe's hybrid score interval for paired proportions (Newcombe 1998, Statistics in Medicine
    17:2635, method 10), which holds its coverage at small n and at 0 or n discordant items, where the normal one does
    not. Raises ValueError where the lengths differ or are 0.
    """
    x, y = np.asarray(a, dtype=bool), np.asarray(b, dtype=bool)
    if x.shape != y.shape or x.size == 0:
        raise ValueError(f"paired_difference needs two equally long, non-empty sequences, got {x.size} and {y.size}")
    lost, gained = int((x & ~y).sum()), int((~x & y).sum())
    difference, low, high = paired_interval(x, y, confidence)
    return PairedDifference(
        n=x.size,
        difference=difference,
        ci_low=low,
        ci_high=high,
        lost=lost,
        gained=gained,
        p_value=mcnemar_exact(lost, gained),
    )


def paired_interval(a: BoolArray, b: BoolArray, confidence: float = _CONFIDENCE) -> Difference:
    """b minus a with the interval of `paired_difference`, without its test."""
    lost, gained, both = int((a & ~b).sum()), int((~a & b).sum()), int((a & b).sum())
    low, high = _newcombe(both, gained, lost, a.size - both - gained - lost, confidence)
    return (gained - lost) / a.size, low, high


def loss_bound(before: Sequence[bool], after: Sequence[bool], level: float = 1 - _CONFIDENCE) -> float:
    """Upper one-sided bound of the accuracy lost on the same items, a share of them; wrong in at most about `level`.

    The exact bounds of the shares that were lost and gained (Clopper and Pearson 1934), combined by their distances
    from the estimate (MOVER: Zou and Donner 2008, Statistics in Medicine 27:1693). Newcombe's interval, as in
    `paired_difference`, is too narrow at this end where few answers change: of 78 items none of which changes it shows
    a loss below 3 points at 99.2 %, and one of 3 points leaves all unchanged in 9 % of cases.

    Args:
        before, after: [items].
        level: Of false claims, one-sided.
    """
    x, y = np.asarray(before, dtype=bool), np.asarray(after, dtype=bool)
    n, lost, gained = x.size, int((x & ~y).sum()), int((~x & y).sum())
    most = 1.0 if lost == n else float(stats.beta.ppf(1 - level, lost + 1, n - lost))
    least = 0.0 if gained == 0 else float(stats.beta.ppf(level, gained, n - gained + 1))
    return float((lost - gained) / n + np.hypot(most - lost / n, gained / n - least))


def _newcombe(both: int, only_b: int, only_a: int, neither: int, confidence: float) -> tuple[float, float]:
    n = both + only_b + only_a + neither
    p_b, p_a = (both + only_b) / n, (both + only_a) / n
    low_b, high_b = wilson(both + only_b, n, confidence)
    low_a, high_a = wilson(both + only_a, n, confidence)
    phi = _phi(both, only_b, only_a, neither)
    down = (p_b - low_b) ** 2 - 2 * phi * (p_b - low_b) * (high_a - p_a) + (high_a - p_a) ** 2
    up = (p_a - low_a) ** 2 - 2 * phi * (p_a - low_a) * (high_b - p_b) + (high_b - p_b) ** 2
    return p_b - p_a - max(down, 0.0) ** 0.5, p_b - p_a + max(up, 0.0) ** 0.5


def _phi(both: int, only_b: int, only_a: int, neither: int) -> float:
    """Correlation of the two outcomes, 0 where a margin is empty, with Newcombe's continuity correction above 0."""
    n = both + only_b + only_a + neither
    margins = (both + only_b) * (only_a + neither) * (both + only_a) * (only_b + neither)
    if margins == 0:
        return 0.0
    excess = both * neither - only_b * only_a
    return float((max(excess - n / 2, 0) if excess > 0 else excess) / margins**0.5)


def mcnemar_exact(lost: int, gained: int) -> float:
    """Two-sided exact McNemar test: the binomial test that a discordant item falls either way with probability 1/2."""
    discordant = lost + gained
    p = 1.0 if discordant == 0 else float(stats.binomtest(lost, discordant, 0.5).pvalue)
    return max(p, _LEAST_P)


def percentiles(values: Sequence[float], points: Sequence[int] = (50, 90, 99)) -> dict[str, float | None]:
    """{"p50": .., "p90": .., "p99": ..} by linear interpolation; None of no values."""
    return {f"p{point}": float(np.percentile(values, point)) if len(values) else None for point in points}


def paired_mean_difference(
    a: Sequence[float], b: Sequence[Sequence[float]], confidence: float = _CONFIDENCE
) -> Difference:
    """Mean over items of a_i - mean_s b_si with its interval over items, for outcomes from 0 to 1.

    Student's t on the per-item differences, with half an item added to each cell of right and wrong (Agresti and Min
    2005, Statistics in Medicine 24:729), so that it has a width where all items agree, and cut at -1 and 1.

    Args:
        a: [items].
        b: [rows, items]; the rows are these and no others, not a sample.

    Returns:
        (difference, low, high).

    Raises:
        ValueError: The shapes differ, or there are fewer than two items.
    """
    x, y = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if y.ndim != 2 or y.shape[1:] != x.shape or x.size < 2:
        raise ValueError(
            "paired_mean_difference needs [items] and [rows, items] with two items "
            f"or more, got {x.shape} and {y.shape}"
        )
    per_item = x - y.mean(axis=0)
    mean, size = float(per_item.mean()), x.size + 2
    added = ((1 - mean) ** 2 + (1 + mean) ** 2) / 2 + mean**2
    variance = (((per_item - mean) ** 2).sum() + added) / (size - 1) / size
    half = float(stats.t.ppf((1 + confidence) / 2, x.size - 1) * np.sqrt(variance))
    return mean, max(-1.0, mean - half), min(1.0, mean + half)


def paired_ratio(
    a: Sequence[float], b: Sequence[float], confidence: float = _CONFIDENCE
) -> tuple[float, float | None, float | None]:
    """b / a over pairs of consecutive measurements: the geometric mean, with Student's t on the logarithms.

    Returns:
        (ratio, low, high); (ratio, None, None) where no spread is known: of one pair, or of pairs that are all alike.

    Raises:
        ValueError: The lengths differ, or a value is not positive.
    """
    x, y = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if x.shape != y.shape or x.size == 0 or min(x.min(), y.min()) <= 0:
        raise ValueError(
            f"paired_ratio needs two equally long sequences of positive numbers, got {x.size} and {y.size}"
        )
    logs = np.log(y / x)
    if np.ptp(logs) == 0:
        return float(np.exp(logs[0])), None, None
    half = stats.t.ppf((1 + confidence) / 2, x.size - 1) * logs.std(ddof=1) / np.sqrt(x.size)
    return float(np.exp(logs.mean())), float(np.exp(logs.mean() - half)), float(np.exp(logs.mean() + half))


def ratio_mean(
    values: Sequence[float], units: Sequence[float], confidence: float = _CONFIDENCE
) -> tuple[float, float, float]:
    """sum(values) / sum(units) over clusters with its interval: the ratio estimator (Cochran 1977, section 6.3),
    Student's t.

    Raises:
        ValueError: The lengths differ, there are fewer than two clusters, or the units sum to 0.
    """
    y, x = np.asarray(values, dtype=float), np.asarray(units, dtype=float)
    if y.shape != x.shape or y.size < 2 or x.sum() <= 0:
        raise ValueError(f"ratio_mean needs two or more clusters with units, got {y.size} values and {x.sum():g} units")
    ratio = y.sum() / x.sum()
    spread = np.sqrt(((y - ratio * x) ** 2).sum() * y.size / (y.size - 1)) / x.sum()
    half = stats.t.ppf((1 + confidence) / 2, y.size - 1) * spread
    return float(ratio), float(ratio - half), float(ratio + half)


def likelihood_metric(metric: str, nll: Sequence[float], units: Sequence[int]) -> tuple[float, float, float]:
    """Value and interval over texts: perplexity = exp(nats per token), or bits per byte = nats per byte / ln 2.

    nll: negative log likelihood of each text in nats; units: its tokens or bytes.
    """
    return from_nats(metric, ratio_mean(nll, units))


def from_nats(metric: str, nats: Difference) -> Difference:
    """Nats per token as perplexity, or nats per byte as bits per byte, with the ends of the interval."""
    value, low, high = np.asarray(nats) / np.log(2) if metric == "bits_per_byte" else np.exp(nats)
    return float(value), float(low), float(high)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values over a family, in the order given (Holm 1979, Scand. J. Statist. 6:65).

    The i-th smallest of m p-values (i from 0) is multiplied by m - i; the results are made monotone and capped at 1.
    """
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return [float(value) for value in adjusted]


def items_needed(effect: float, discordant: float, power: float = 0.8, confidence: float = _CONFIDENCE) -> int:
    """Items that find a paired difference of `effect`, by the normal approximation of McNemar's test (Connor 1987,
    Biometrics 43:207): discordant * ((z_(1 - alpha/2) + z_power) / effect)^2.
    """
    z = stats.norm.ppf((1 + confidence) / 2) + stats.norm.ppf(power)
    return int(np.ceil(discordant * (z / effect) ** 2))


def collapsed(right: int, n: int, dense: float, chance: float = 0.0, share: float = 0.1) -> bool:
    """Whether accuracy has collapsed: the upper end of its 95 % Wilson interval is below max(chance, share * dense)."""
    return wilson(right, n)[1] < max(chance, share * dense)


def specificity(target: Difference, others: Sequence[Difference]) -> Difference:
    """How much more the target falls than the mean of the other tasks under the same removal; above 0 if it does. Cut
    at 1, all of the target and nothing of the others, or at 2 where the others rise.

    The tasks have different items, so the intervals are combined as for independent estimates, by their distances from
    the estimate (MOVER: Zou and Donner 2008, Statistics in Medicine 27:1693).

    Args:
        target: Pruned minus dense on the target, with its interval.
        others: The same for every other task.
    """
    down = sum((value - low) ** 2 for value, low, _ in others) / len(others) ** 2
    up = sum((high - value) ** 2 for value, _, high in others) / len(others) ** 2
    difference = sum(value for value, _, _ in others) / len(others) - target[0]
    low = difference - np.sqrt(down + (target[2] - target[0]) ** 2)
    high = difference + np.sqrt(up + (target[0] - target[1]) ** 2)
    most = 1.0 if abs(difference) <= 1 else 2.0
    return float(difference), float(max(low, -most)), float(min(high, most))
