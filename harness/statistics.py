"""Pure functions: arrays in, numbers out. Intervals are two-sided at 95 % unless told otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

_CONFIDENCE = 0.95


def wilson(successes: int, n: int, confidence: float = _CONFIDENCE) -> tuple[float, float]:
    """Wilson's score interval of a proportion (Wilson 1927), by statsmodels.

    Raises ValueError where n is 0 or successes lie outside [0, n].
    """
    if n <= 0 or not 0 <= successes <= n:
        raise ValueError(f"wilson needs 0 <= successes <= n and n > 0, got {successes} of {n}")
    low, high = proportion_confint(successes, n, alpha=1 - confidence, method="wilson")
    return float(low), float(high)


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

    The interval is Newcombe's hybrid score interval for paired proportions (Newcombe 1998, Statistics in Medicine 17:2635,
    method 10), which holds its coverage at small n and at 0 or n discordant items, where the normal one does not.
    Raises ValueError where the lengths differ or are 0.
    """
    x, y = np.asarray(a, dtype=bool), np.asarray(b, dtype=bool)
    if x.shape != y.shape or x.size == 0:
        raise ValueError(f"paired_difference needs two equally long, non-empty sequences, got {x.size} and {y.size}")
    lost, gained = int((x & ~y).sum()), int((~x & y).sum())
    low, high = _newcombe(int((x & y).sum()), gained, lost, int((~x & ~y).sum()), confidence)
    return PairedDifference(x.size, (gained - lost) / x.size, low, high, lost, gained, mcnemar_exact(lost, gained))


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
    return 1.0 if discordant == 0 else float(stats.binomtest(lost, discordant, 0.5).pvalue)


def percentiles(values: Sequence[float], points: Sequence[int] = (50, 90, 99)) -> dict[str, float | None]:
    """{"p50": .., "p90": .., "p99": ..} by linear interpolation; None of no values."""
    return {f"p{point}": float(np.percentile(values, point)) if len(values) else None for point in points}


def paired_mean_difference(a: Sequence[float], b: Sequence[Sequence[float]], confidence: float = _CONFIDENCE) -> tuple[float, float, float]:
    """Mean over items of a_i - mean_s b_si with its interval: one arm against several seeds of another, items as clusters.

    a: [items]; b: [seeds, items]. Student's t on the per-item differences. Returns (difference, low, high).
    Raises ValueError where the shapes differ or there are fewer than two items.
    """
    x, y = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if y.ndim != 2 or y.shape[1:] != x.shape or x.size < 2:
        raise ValueError(f"paired_mean_difference needs [items] and [seeds, items] with two items or more, got {x.shape} and {y.shape}")
    per_item = x - y.mean(axis=0)
    half = stats.t.ppf((1 + confidence) / 2, x.size - 1) * per_item.std(ddof=1) / np.sqrt(x.size)
    return float(per_item.mean()), float(per_item.mean() - half), float(per_item.mean() + half)


def paired_ratio(
    a: Sequence[float], b: Sequence[float], confidence: float = _CONFIDENCE
) -> tuple[float, float | None, float | None]:  # fmt: skip
    """b / a over pairs taken one after the other: the geometric mean with its interval, Student's t on the logarithms.

    Returns (ratio, low, high), of one pair (ratio, None, None), as nothing is known of its spread.
    Raises ValueError where the lengths differ or a value is not positive.
    """
    x, y = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if x.shape != y.shape or x.size == 0 or min(x.min(), y.min()) <= 0:
        raise ValueError(f"paired_ratio needs two equally long sequences of positive numbers, got {x.size} and {y.size}")
    logs = np.log(y / x)
    if x.size == 1:
        return float(np.exp(logs[0])), None, None
    half = stats.t.ppf((1 + confidence) / 2, x.size - 1) * logs.std(ddof=1) / np.sqrt(x.size)
    return float(np.exp(logs.mean())), float(np.exp(logs.mean() - half)), float(np.exp(logs.mean() + half))


LIKELIHOOD_METRICS = ("perplexity", "bits_per_byte")
SIMILARITY = "similarity"  # a mean of scores, not a share of right answers


def ratio_mean(values: Sequence[float], units: Sequence[float], confidence: float = _CONFIDENCE) -> tuple[float, float, float]:
    """sum(values) / sum(units) over clusters with its interval: the ratio estimator (Cochran 1977, section 6.3), Student's t.

    Raises ValueError where the lengths differ, there are fewer than two clusters, or the units sum to nothing.
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
    nats = ratio_mean(nll, units)
    value, low, high = np.exp(nats) if metric == "perplexity" else np.asarray(nats) / np.log(2)
    return float(value), float(low), float(high)
