"""Pure functions: arrays in, numbers out. Intervals are two-sided at 95 % unless stated otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from harness.core.types.arrays import FloatArray

_CONFIDENCE = 0.95
Difference = tuple[float, float, float]  # with the two ends of its interval


def wilson(successes: int, n: int, confidence: float = _CONFIDENCE) -> tuple[float, float]:
    """Wilson's score interval of a proportion (Wilson 1927), by scipy.

    Raises ValueError where n is 0 or successes lie outside [0, n].
    """
    if n <= 0 or not 0 <= successes <= n:
        raise ValueError(f"wilson needs 0 <= successes <= n and n > 0, got {successes} of {n}")
    low, high = stats.binomtest(successes, n).proportion_ci(confidence, method="wilson")
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

    The interval is Newcombe's hybrid score interval for paired proportions (Newcombe 1998, Statistics in Medicine
    17:2635, method 10), which holds its coverage at small n and at 0 or n discordant items, where the normal one does
    not. Raises ValueError where the lengths differ or are 0.
    """
    x, y = np.asarray(a, dtype=bool), np.asarray(b, dtype=bool)
    if x.shape != y.shape or x.size == 0:
        raise ValueError(f"paired_difference needs two equally long, non-empty sequences, got {x.size} and {y.size}")
    lost, gained = int((x & ~y).sum()), int((~x & y).sum())
    low, high = _newcombe(int((x & y).sum()), gained, lost, int((~x & ~y).sum()), confidence)
    return PairedDifference(
        n=x.size,
        difference=(gained - lost) / x.size,
        ci_low=low,
        ci_high=high,
        lost=lost,
        gained=gained,
        p_value=mcnemar_exact(lost, gained),
    )


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


def paired_mean_difference(
    a: Sequence[float], b: Sequence[Sequence[float]], confidence: float = _CONFIDENCE
) -> tuple[float, float, float]:
    """Mean over items of a_i - mean_s b_si with its interval: one arm against several seeds of another, items as
    clusters.

    Student's t on the per-item differences.

    Args:
        a: [items].
        b: [seeds, items].

    Returns:
        (difference, low, high).

    Raises:
        ValueError: The shapes differ, or there are fewer than two items.
    """
    x, y = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if y.ndim != 2 or y.shape[1:] != x.shape or x.size < 2:
        raise ValueError(
            "paired_mean_difference needs [items] and [seeds, items] with two items "
            f"or more, got {x.shape} and {y.shape}"
        )
    per_item = x - y.mean(axis=0)
    half = stats.t.ppf((1 + confidence) / 2, x.size - 1) * per_item.std(ddof=1) / np.sqrt(x.size)
    return float(per_item.mean()), float(per_item.mean() - half), float(per_item.mean() + half)


def paired_ratio(
    a: Sequence[float], b: Sequence[float], confidence: float = _CONFIDENCE
) -> tuple[float, float | None, float | None]:
    """b / a over pairs of consecutive measurements: the geometric mean, with Student's t on the logarithms.

    Returns:
        (ratio, low, high); (ratio, None, None) for one pair, whose spread is unknown.

    Raises:
        ValueError: The lengths differ, or a value is not positive.
    """
    x, y = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if x.shape != y.shape or x.size == 0 or min(x.min(), y.min()) <= 0:
        raise ValueError(
            f"paired_ratio needs two equally long sequences of positive numbers, got {x.size} and {y.size}"
        )
    logs = np.log(y / x)
    if x.size == 1:
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
    nats = ratio_mean(nll, units)
    value, low, high = np.exp(nats) if metric == "perplexity" else np.asarray(nats) / np.log(2)
    return float(value), float(low), float(high)


def paired_mean_p_value(a: Sequence[float], b: Sequence[Sequence[float]]) -> float:
    """Two-sided p-value of `paired_mean_difference`: Student's t on the per-item differences; 1 where all are 0."""
    per_item = np.asarray(a, dtype=float) - np.asarray(b, dtype=float).mean(axis=0)
    if not per_item.any():
        return 1.0
    return float(stats.ttest_1samp(per_item, 0).pvalue) if per_item.std() > 0 else 0.0


def difference_over_seeds(
    before: Sequence[bool], after: Sequence[Sequence[bool]], confidence: float = _CONFIDENCE
) -> tuple[Difference, float]:
    """after [seeds, items] minus before [items]: ((difference, low, high), p-value).

    The ends of the interval are the means of the seeds' own (`paired_difference`), as in `over_seeds`. The p-value is
    McNemar's exact one for a single seed, Student's t on the items' means for several.
    """
    each = [paired_difference(before, seed, confidence) for seed in after]
    value, low, high = (
        float(np.mean([getattr(found, end) for found in each])) for end in ("difference", "ci_low", "ci_high")
    )
    if len(each) == 1:
        return (value, low, high), each[0].p_value
    mean = np.asarray(after, dtype=float).mean(axis=0).tolist()
    return (value, low, high), paired_mean_p_value(mean, [[float(right) for right in before]])


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values over a family, in the order given (Holm 1979, Scand. J. Statist. 6:65).

    The i-th smallest of m p-values (i from 0) is multiplied by m - i; the results are made monotone and capped at 1.
    """
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return [float(value) for value in adjusted]


@dataclass(frozen=True)
class SeedSummary:
    """Accuracy over seeds on the same items: mean, standard deviation over seeds (None for one), interval over
    items.
    """

    seeds: int
    mean: float
    sd: float | None
    ci_low: float
    ci_high: float


def over_seeds(outcomes: Sequence[Sequence[bool]], confidence: float = _CONFIDENCE) -> SeedSummary:
    """Summary of outcomes [seeds, items]. All seeds share the items, so seeds do not count as more items.

    The ends of the interval are the means of the seeds' own Wilson intervals. These are sound near 0 and 1, where an
    interval from the spread of identical items would have no width.
    """
    table = np.asarray(outcomes, dtype=bool)
    per_seed = table.mean(axis=1)
    low, high = np.mean([wilson(int(seed.sum()), seed.size, confidence) for seed in table], axis=0)
    sd = float(per_seed.std(ddof=1)) if len(table) > 1 else None
    return SeedSummary(seeds=len(table), mean=float(per_seed.mean()), sd=sd, ci_low=float(low), ci_high=float(high))


def minimum_detectable_effect(n: int, discordant: float, power: float = 0.8, confidence: float = _CONFIDENCE) -> float:
    """Smallest paired difference that n items find with this power, if a share `discordant` of them changes.

    (z_(1 - alpha/2) + z_power) * sqrt(discordant / n), the normal approximation of McNemar's test (Connor 1987,
    Biometrics 43:207, without its small term in the difference itself).
    """
    return float((stats.norm.ppf((1 + confidence) / 2) + stats.norm.ppf(power)) * np.sqrt(discordant / n))


def items_needed(effect: float, discordant: float, power: float = 0.8, confidence: float = _CONFIDENCE) -> int:
    """Items that find a paired difference of `effect`: `minimum_detectable_effect` solved for n."""
    z = stats.norm.ppf((1 + confidence) / 2) + stats.norm.ppf(power)
    return int(np.ceil(discordant * (z / effect) ** 2))


def collapsed(right: int, n: int, dense: float, chance: float = 0.0, share: float = 0.1) -> bool:
    """Whether accuracy has collapsed: the upper end of its 95 % Wilson interval is below max(chance, share * dense)."""
    return wilson(right, n)[1] < max(chance, share * dense)


def non_inferiority_threshold(
    arms: Sequence[tuple[float, Sequence[Sequence[bool]]]], dense: Sequence[bool], margin: float
) -> float:
    """The largest ratio up to which accuracy is shown to fall by less than `margin`; 0 where not even the first is.

    Ratios are tested in ascending order, each by the lower one-sided 95 % bound of the paired difference against
    -margin, until the first that fails. A fixed sequence needs no correction (Maurer et al. 1995).

    Args:
        arms: (ratio, outcomes [seeds, items] on the same items as `dense`).
        dense: Outcomes of the dense model, [items].
        margin: The loss that still counts as none, a share of all items.
    """
    reached = 0.0
    for ratio, outcomes in sorted(arms, key=lambda arm: arm[0]):
        (_, low, _), _ = difference_over_seeds(dense, outcomes, confidence=0.9)
        if low <= -margin:
            break
        reached = ratio
    return reached


@dataclass(frozen=True)
class Knee:
    """Where a curve bends down: the ratio and its bootstrap interval; None where a straight line fits as well.

    Attributes:
        bic_gain: How much lower the hinge's BIC is than the line's.
        support: Share of bootstrap samples with a knee.
    """

    ratio: float | None
    ci_low: float | None
    ci_high: float | None
    bic_gain: float
    support: float


_BIC_GAIN = 6.0  # "strong" (Kass and Raftery 1995)
_GRID = 61


def knee(ratios: Sequence[float], outcomes: Sequence[Sequence[float]], samples: int = 2000, seed: int = 0) -> Knee:
    """A hinge a + b r + c max(0, r - k) against a line: least squares, k on a grid from the second to the last but one
    ratio.

    A knee needs a BIC lower by 6 and c < 0. Items are resampled, the same ones for all ratios, since the arms share
    them. Descriptive only: a smooth curve bends somewhere, too.

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
    where, gain = _hinges(x, curves)
    found = gain[1:] > _BIC_GAIN
    support = float(found.mean())
    if gain[0] <= _BIC_GAIN or support < 0.5:
        return Knee(ratio=None, ci_low=None, ci_high=None, bic_gain=float(gain[0]), support=support)
    low, high = np.percentile(where[1:][found], [2.5, 97.5])
    return Knee(ratio=float(where[0]), ci_low=float(low), ci_high=float(high), bic_gain=float(gain[0]), support=support)


def _hinges(x: FloatArray, curves: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Best k of every curve and its gain in BIC over a line; -inf where the curve does not bend down. curves: [samples,
    ratios].
    """
    n, grid = len(x), np.linspace(x[1], x[-2], _GRID)
    line = _residual(np.column_stack([np.ones(n), x]), curves)
    best, where, down = np.full(len(curves), np.inf), np.zeros(len(curves)), np.zeros(len(curves), dtype=bool)
    for k in grid:
        design = np.column_stack([np.ones(n), x, np.maximum(0.0, x - k)])
        left = _residual(design, curves)
        better = left < best
        bend = np.linalg.lstsq(design, curves.T, rcond=None)[0][2]
        best, where, down = np.where(better, left, best), np.where(better, k, where), np.where(better, bend < 0, down)
    gain = n * (np.log(line) - np.log(best)) - 2 * np.log(n)  # two parameters more: c and k
    return where, np.where(down, gain, -np.inf)


def _residual(design: FloatArray, curves: FloatArray) -> FloatArray:
    """Residual sum of squares of each curve; kept above 0 for the logarithm."""
    fitted = design @ np.linalg.lstsq(design, curves.T, rcond=None)[0]
    return np.asarray(((curves.T - fitted) ** 2).sum(axis=0) + 1e-9)


def specificity(target: Difference, others: Sequence[Difference]) -> Difference:
    """How much more the target falls than the mean of the other tasks under the same removal; above 0 if it does.

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
    return float(difference), float(low), float(high)
