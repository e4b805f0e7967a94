"""Random pruning over its masks: the masks are a sample of all masks, and the items one of all items. Pure functions.

An interval over items alone holds for the masks at hand. What is said about random pruning itself needs both.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import optimize, special, stats

from harness.core.statistics import Difference, paired_difference, paired_interval, paired_mean_difference, wilson
from harness.core.types.arrays import FloatArray

FEWEST_MASKS = 19  # 1 / (19 + 1) is 5 %
_CONFIDENCE = 0.95
_LEAST_P = 1e-12  # what is smaller is reported as this


def rank_p_value(value: float, masks: Sequence[float]) -> float:
    """One-sided p-value of the hypothesis that `value` is one more draw from `masks`: (1 + #masks >= value) / (K + 1).

    Exact for every distribution, as all K + 1 are alike under the hypothesis (Phipson and Smyth 2010, Stat. Appl.
    Genet. Mol. Biol. 9:39). It cannot be below 1 / (K + 1). Equal ones count against `value`, and so does NaN.
    """
    return float((1 + sum(not mask < value for mask in masks)) / (len(masks) + 1))


def accuracy_over_masks(masks: Sequence[Sequence[bool]], confidence: float = _CONFIDENCE) -> Difference:
    """Mean accuracy of all masks, (value, low, high), from outcomes [masks, items]; of one mask: Wilson's interval."""
    table = np.asarray(masks, dtype=float)
    each = [(float(row.mean()), *wilson(int(row.sum()), row.size, confidence)) for row in table]
    return _combined(table, table, each, (0.0, 1.0), confidence)


def difference_over_masks(
    before: Sequence[bool], masks: Sequence[Sequence[bool]], confidence: float = _CONFIDENCE
) -> Difference:
    """Mean of random masks minus one model on the same items, (difference, low, high).

    Variance over masks and items, as in a crossed random-effects design. The part of the masks is the wider one of
    Student's t on their accuracies and of the same on the logit of their mean, which holds for skewed accuracies too.
    That of the items is the mean of the masks' own intervals (`paired_difference`), narrowed to the variance over items
    that the masks share. Both are combined by their distances from the estimate (MOVER: Zou and Donner 2008, Statistics
    in Medicine 27:1693) and cut at what is possible. Of one mask: `paired_difference`, which holds for that mask alone.

    Args:
        before: [items].
        masks: [masks, items].
    """
    first, table = np.asarray(before, dtype=float), np.asarray(masks, dtype=float)
    if table.ndim != 2 or table.shape[1:] != first.shape or first.size < 2:
        raise ValueError(f"difference_over_masks needs [items] and [masks, items], got {first.shape} and {table.shape}")
    each = [paired_interval(first > 0, row, confidence) for row in table > 0]
    return _combined(table - first, table, each, (-1.0, 1.0), confidence)


def mean_over_masks(table: Sequence[Sequence[float]] | FloatArray, confidence: float = _CONFIDENCE) -> Difference:
    """Mean of values from -1 to 1, [masks or seeds, items], over both: such as what fine-tuning gained with each seed.

    As `difference_over_masks`, with Student's t on the masks' means, and over items `paired_mean_difference`.
    """
    values = np.asarray(table, dtype=float)
    masks, items = values.mean(axis=1), values.mean(axis=0)
    over_items = paired_mean_difference(items.tolist(), [[0.0] * items.size], confidence)
    mean, low, high = widened(over_items, masks.tolist(), confidence)
    return mean, max(-1.0, low), min(1.0, high)


def widened(over_items: Difference, masks: Sequence[float], confidence: float = _CONFIDENCE) -> Difference:
    """A mean over masks with its interval over items, widened to one over both: Student's t on the masks' values, and
    the two combined by their distances from the estimate (MOVER). Of one mask it stays: it holds for that mask alone.
    """
    if len(masks) < 2:
        return over_items
    value, low, high = over_items
    half = stats.t.ppf((1 + confidence) / 2, len(masks) - 1) * np.std(masks, ddof=1) / np.sqrt(len(masks))
    return value, float(value - np.hypot(value - low, half)), float(value + np.hypot(high - value, half))


def masks_p_value(before: Sequence[bool], masks: Sequence[Sequence[bool]]) -> float:
    """Two-sided p-value of `difference_over_masks`: 1 minus the confidence at which the interval ends at 0."""
    if len(masks) == 1:
        return paired_difference(before, masks[0]).p_value

    def beyond(log_level: float) -> float:
        value, low, high = difference_over_masks(before, masks, 1 - float(np.exp(log_level)))
        return low if value > 0 else -high

    least, most = float(np.log(_LEAST_P)), float(np.log(1 - 1e-9))
    if beyond(most) <= 0:
        return 1.0
    return _LEAST_P if beyond(least) > 0 else float(np.exp(optimize.brentq(beyond, least, most, xtol=1e-6)))


def _combined(
    table: FloatArray,
    accuracies: FloatArray,
    each: Sequence[Difference],
    bounds: tuple[float, float],
    confidence: float,
) -> Difference:
    """Mean of `table` [masks, items] with its interval over both; `accuracies`: the outcomes that vary over masks;
    `each`: the masks' own intervals over items.
    """
    value, low, high = (float(end) for end in np.mean(np.asarray(each), axis=0))
    if len(each) == 1:
        return each[0]
    mean, share = float(accuracies.mean()), np.sqrt(_shared(table))
    least, most = _masks_ends(accuracies.mean(axis=1), accuracies.shape[1], confidence)
    ends = value - np.hypot(share * (value - low), mean - least), value + np.hypot(share * (high - value), most - mean)
    return value, float(max(bounds[0], ends[0])), float(min(bounds[1], ends[1]))


def _shared(table: FloatArray) -> float:
    """The share of the variance over items that is the same for all masks, at least 1 / masks; the rest is in the
    masks' part of an interval.
    """
    masks, within = len(table), float(table.var(axis=1, ddof=1).mean())
    if within == 0:
        return 1.0
    own = (table - table.mean(axis=1, keepdims=True) - table.mean(axis=0) + table.mean()).var(axis=0, ddof=0).sum()
    residual = own * masks / ((masks - 1) * (table.shape[1] - 1))
    return float(np.clip((table.mean(axis=0).var(ddof=1) - residual / masks) / within, 1 / masks, 1))


def _masks_ends(accuracies: FloatArray, n: int, confidence: float) -> tuple[float, float]:
    """Interval of the masks' mean accuracy."""
    count, mean = len(accuracies), float(accuracies.mean())
    half = float(stats.t.ppf((1 + confidence) / 2, count - 1) * accuracies.std(ddof=1) / np.sqrt(count))
    inside = (mean * n + 0.5) / (n + 1)  # the logit is finite there
    logit, width = np.log(inside / (1 - inside)), half / (inside * (1 - inside))
    low, high = (float(special.expit(end)) for end in (logit - width, logit + width))
    return min(mean, max(0.0, min(mean - half, low))), max(mean, min(1.0, max(mean + half, high)))
