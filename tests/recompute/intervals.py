"""Intervals and p-values, written anew from their formulas: nothing of the product is used."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

Triple = tuple[float, float, float]


def normal(confidence: float) -> float:
    return float(stats.norm.ppf((1 + confidence) / 2))


def score(k: float, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson."""
    z = normal(confidence)
    p, d = k / n, 1 + z**2 / n
    centre, half = p + z**2 / (2 * n), z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    return max(0.0, (centre - half) / d), min(1.0, (centre + half) / d)


def pair(a: np.ndarray, b: np.ndarray, confidence: float = 0.95) -> Triple:
    """b minus a by Newcombe's method 10."""
    n, pa, pb = len(a), a.mean(), b.mean()
    la, ua = score(a.sum(), n, confidence)
    lb, ub = score(b.sum(), n, confidence)
    e, f, g, h = ((a * b).sum(), (a * (1 - b)).sum(), ((1 - a) * b).sum(), ((1 - a) * (1 - b)).sum())
    product = (e + f) * (g + h) * (e + g) * (f + h)
    numerator = e * h - f * g
    if numerator > 0:
        numerator = max(numerator - n / 2, 0)
    phi = numerator / math.sqrt(product) if product else 0.0
    down = (pb - lb) ** 2 - 2 * phi * (pb - lb) * (ua - pa) + (ua - pa) ** 2
    up = (pa - la) ** 2 - 2 * phi * (pa - la) * (ub - pb) + (ub - pb) ** 2
    return float(pb - pa), float(pb - pa - math.sqrt(max(0, down))), float(pb - pa + math.sqrt(max(0, up)))


def mcnemar(a: np.ndarray, b: np.ndarray) -> float:
    lost, gained = int((a > b).sum()), int((b > a).sum())
    n = lost + gained
    return min(1.0, 2 * sum(math.comb(n, i) for i in range(min(lost, gained) + 1)) / 2**n) if n else 1.0


def over_masks(before: np.ndarray | None, masks: np.ndarray, confidence: float = 0.95) -> Triple:
    """Mean of masks, minus a model where there is one, over masks and items."""
    k, n = masks.shape
    single = [
        (float(row.mean()), *score(row.sum(), n, confidence)) if before is None else pair(before, row, confidence)
        for row in masks
    ]
    if k == 1:
        return single[0]
    d = masks - (0 if before is None else before)
    value = float(d.mean())
    within = float(np.mean([row.var(ddof=1) for row in d]))
    rest = d - d.mean(axis=1)[:, None] - d.mean(axis=0)[None, :] + value
    shared = float(d.mean(axis=0).var(ddof=1)) - float((rest**2).sum()) / ((k - 1) * (n - 1)) / k
    share = min(1.0, max(1 / k, shared / within)) if within else 1.0
    below = math.sqrt(share) * (value - float(np.mean([low for _, low, _ in single])))
    above = math.sqrt(share) * (float(np.mean([high for _, _, high in single])) - value)
    levels = masks.mean(axis=1)
    mean, half = float(levels.mean()), float(stats.t.ppf((1 + confidence) / 2, k - 1) * levels.std(ddof=1) / k**0.5)
    inside = (mean * n + 0.5) / (n + 1)
    odds, width = math.log(inside / (1 - inside)), half / (inside * (1 - inside))
    low, high = (1 / (1 + math.exp(-min(700.0, max(-700.0, odds + sign * width)))) for sign in (-1, 1))
    low, high = min(mean, max(0.0, min(mean - half, low))), max(mean, min(1.0, max(mean + half, high)))
    least = 0.0 if before is None else -1.0
    ends = value - math.hypot(below, mean - low), value + math.hypot(above, high - mean)
    return value, max(least, ends[0]), min(1.0, ends[1])


def p_over_masks(before: np.ndarray, masks: np.ndarray) -> float:
    if len(masks) == 1:
        return mcnemar(before, masks[0])

    def excludes(p: float) -> bool:
        _, low, high = over_masks(before, masks, 1 - p)
        return low > 0 or high < 0

    if not excludes(1 - 1e-9):
        return 1.0
    if excludes(1e-12):
        return 1e-12
    low, high = math.log(1e-12), math.log(1 - 1e-9)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if excludes(math.exp(middle)) else (middle, high)
    return math.exp(high)


def step_down(p: Sequence[float]) -> list[float]:
    """Holm."""
    order, found, so_far = sorted(range(len(p)), key=lambda i: p[i]), [0.0] * len(p), 0.0
    for step, i in enumerate(order):
        so_far = max(so_far, min(1.0, (len(p) - step) * p[i]))
        found[i] = so_far
    return found


def against(target: Triple, other: Triple) -> Triple:
    """other minus target, by distances from the estimates, cut at what is possible."""
    value = other[0] - target[0]
    low = value - math.hypot(other[0] - other[1], target[2] - target[0])
    high = value + math.hypot(other[2] - other[0], target[0] - target[1])
    most = 1.0 if abs(value) <= 1 else 2.0
    return value, max(low, -most), min(high, most)


def mean_of_items(x: np.ndarray) -> Triple:
    """Student's t with half an item in each cell."""
    mean, n = float(x.mean()), len(x)
    squares = float(((x - mean) ** 2).sum()) + ((1 - mean) ** 2 + (1 + mean) ** 2) / 2 + mean**2
    half = float(stats.t.ppf(0.975, n - 1)) * math.sqrt(squares / ((n + 1) * (n + 2)))
    return mean, max(-1.0, mean - half), min(1.0, mean + half)


def bend(x: np.ndarray, table: np.ndarray, margin: float) -> tuple[float | None, float | None, float | None, float]:
    """Knee, its interval and the share of resamplings with one."""
    draw = np.random.default_rng(0).integers(0, table.shape[1], (2000, table.shape[1]))
    curves = np.vstack([table.mean(axis=1), *(table[:, d].mean(axis=1) for d in draw)]).T
    grid, n = np.linspace(x[1], x[-2], 61), len(x)

    def fit(*columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        design = np.column_stack([np.ones(n), x, *columns])
        beta = np.linalg.pinv(design) @ curves
        return ((curves - design @ beta) ** 2).sum(axis=0) + 1e-9, beta[-1]

    line, square = fit()[0], fit(x**2)[0]
    tried = [fit(np.clip(x - k, 0, None)) for k in grid]
    errors = np.array([error for error, _ in tried])
    best = errors.argmin(axis=0)
    least, slope = errors.min(axis=0), np.array([beta for _, beta in tried])[best, np.arange(curves.shape[1])]
    gain = np.minimum(n * np.log(line / least) - 2 * np.log(n), n * np.log(square / least) - np.log(n))
    good = (slope < 0) & (gain > 6) & (best > 0) & (best < 60) & (curves[0] - curves[-1] > margin)
    support = float(good[1:].mean())
    if not good[0] or support < 0.5:
        return None, None, None, support
    low, high = np.percentile(grid[best[1:][good[1:]]], [2.5, 97.5])
    step = grid[1] - grid[0]
    low, high = (low - step, high + step) if low == high else (low, high)
    return float(grid[best[0]]), float(low), float(high), support
