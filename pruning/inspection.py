"""Properties of the scores: distribution over layers, agreement between metrics, stability under resampling. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np

from harness.core.types.arrays import FloatArray
from harness.core.types.pruning import ActivationStats, GroupStats, Moments
from pruning.scores import METRICS

SHARE = 0.1  # the most and the least selective neurons: this part of the whole network's
RATIOS = (0.1, 0.2, 0.3, 0.5)
FROM_PROMPTS = (
    "smd",
    "dprime",
    "contrast",
    "contrib",
)  # metrics that follow from moments of the prompts' means of |h| alone
_RESAMPLES = 20


def share_per_layer(scores: FloatArray, share: float = SHARE) -> dict[str, list[float]]:
    """The share of every layer's neurons among the network's `share` with the highest and with the lowest scores.

    scores: [layers, intermediate_size]. A layer above `share` is over-represented.
    """
    count = max(1, round(share * scores.size))
    order = np.argsort(scores, axis=None, kind="stable")
    return {"highest": _per_layer(order[-count:], scores), "lowest": _per_layer(order[:count], scores)}


def _per_layer(flat: Any, scores: FloatArray) -> list[float]:
    layers, width = scores.shape
    return [float(n) for n in np.bincount(flat // width, minlength=layers) / width]


def agreement(tables: Mapping[str, FloatArray], ratio: float) -> dict[str, Any]:
    """Spearman's rank correlation and overlap of the removed sets for every pair of metrics, means over layers.

    overlap: share of the neurons removed by one metric at `ratio` that the other removes too; by chance it is `ratio`.
    """
    names = sorted(tables)
    ranks = {name: ranks_of(tables[name]) for name in names}
    removed = {name: removed_by(tables[name], ratio) for name in names}
    return {
        "metrics": names,
        "ratio": ratio,
        "rank_correlation": [[_mean_correlation(ranks[a], ranks[b]) for b in names] for a in names],
        "overlap": [[overlap(removed[a], removed[b]) for b in names] for a in names],
    }


def ranks_of(scores: FloatArray) -> FloatArray:
    """Ranks within each layer, from 1; equal scores share the mean of theirs."""
    return _ranks(scores, np.argsort(scores, axis=1, kind="stable"))


def _ranks(scores: FloatArray, order: Any) -> FloatArray:
    """`order`: the indices of each layer's scores, the lowest first."""
    values = np.take_along_axis(scores, order, axis=1)
    first = np.ones(values.shape, dtype=bool)
    first[:, 1:] = values[:, 1:] != values[:, :-1]
    starts = np.flatnonzero(first)  # of runs of equal scores, none of which crosses a layer
    sizes = np.diff(starts, append=first.size)
    shared = np.repeat(starts % scores.shape[1] + (sizes + 1) / 2, sizes)
    ranks = np.empty(scores.shape)
    np.put_along_axis(ranks, order, shared.reshape(scores.shape), axis=1)
    return ranks


def _mean_correlation(a: FloatArray, b: FloatArray) -> float:
    """Pearson's correlation of ranks within each layer; 0 for a layer where all scores are equal."""
    x, y = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    size = np.sqrt((x**2).sum(axis=1) * (y**2).sum(axis=1))
    return float(np.divide((x * y).sum(axis=1), size, out=np.zeros(len(x)), where=size > 0).mean())


def removed_by(scores: FloatArray, ratio: float) -> Any:
    """Boolean [layers, intermediate_size]: the lowest `ratio` of every layer."""
    return _lowest(np.argsort(scores, axis=1, kind="stable"), ratio)


def _lowest(order: Any, ratio: float) -> Any:
    mask = np.zeros(order.shape, dtype=bool)
    np.put_along_axis(mask, order[:, : round(ratio * order.shape[1])], True, axis=1)
    return mask


def overlap(a: Any, b: Any) -> float:
    """The common share of two equally large sets; 1 where nothing is removed."""
    return float((a & b).sum() / a.sum()) if a.any() else 1.0


def stability(stats: ActivationStats, resamples: int = _RESAMPLES, seed: int = 0) -> dict[str, Any]:
    """How much a ranking changes when the calibration prompts are resampled with replacement.

    Returns metric -> {"rank_correlation": [mean, min], "overlap": {ratio: [mean, min]}}, each resampled ranking against
    the ranking of all prompts. It uses the at most 256 prompts per group whose means were kept. Metrics over tokens and
    of second moments are omitted.
    """
    import torch

    rng = np.random.default_rng(seed)
    counts = {
        target: _counts(rng, len(group.sample), resamples)
        for target, group in ((True, stats.target), (False, stats.distractor))
    }
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:  # NumPy's loops leave the other threads running
        tables = list(pool.map(lambda layer: _rankings(stats, layer, counts), range(len(stats.down_norm))))
        stacked = {
            name: np.stack([table[name] for table in tables], axis=1) for name in FROM_PROMPTS
        }  # [1 + resamples, layers, F]
        return {name: _spread(values[0], values[1:], pool) for name, values in stacked.items()}


def _counts(rng: np.random.Generator, n: int, resamples: int) -> FloatArray:
    """How often each of n prompts is drawn: first each once, then `resamples` draws of n; [1 + resamples, n]."""
    return np.vstack([np.ones(n), rng.multinomial(n, np.full(n, 1 / n), size=resamples)])


def _rankings(stats: ActivationStats, layer: int, counts: Mapping[bool, FloatArray]) -> dict[str, FloatArray]:
    """metric -> [1 + resamples, F] of one layer, with the resamples in place of the layers."""

    def group(of: GroupStats, drawn: FloatArray) -> GroupStats:
        values = of.sample[:, layer].astype(np.float64)
        centre, n = values.mean(axis=0), len(values)
        mean = drawn @ (values - centre) / n  # about the mean, so that little is lost to rounding
        m2 = drawn @ (values - centre) ** 2 - n * mean**2
        return replace(of, prompts=Moments(n, mean + centre, np.maximum(m2, 0.0)), mean_abs=mean + centre)

    norm = np.broadcast_to(stats.down_norm[layer], (len(counts[True]), stats.down_norm.shape[1]))
    drawn = replace(
        stats,
        target=group(stats.target, counts[True]),
        distractor=group(stats.distractor, counts[False]),
        down_norm=norm,
    )
    return {name: METRICS[name](drawn).astype(np.float32) for name in FROM_PROMPTS}


def _spread(whole: FloatArray, draws: FloatArray, pool: ThreadPoolExecutor) -> dict[str, Any]:
    """Each table is sorted once."""
    order = np.argsort(whole, axis=1, kind="stable")
    ranks, removed = _ranks(whole, order), [_lowest(order, ratio) for ratio in RATIOS]

    def compared(draw: FloatArray) -> list[float]:
        order = np.argsort(draw, axis=1, kind="stable")
        shared = [overlap(mask, _lowest(order, ratio)) for mask, ratio in zip(removed, RATIOS, strict=True)]
        return [_mean_correlation(ranks, _ranks(draw, order)), *shared]

    correlations, *shared = zip(*pool.map(compared, draws), strict=True)
    return {
        "rank_correlation": _mean_and_least(correlations),
        "overlap": {f"{ratio:g}": _mean_and_least(values) for ratio, values in zip(RATIOS, shared, strict=True)},
    }


def _mean_and_least(values: Sequence[float]) -> list[float]:
    return [float(np.mean(values)), float(np.min(values))]
