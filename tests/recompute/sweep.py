"""The intervals of a sweep's run.json, from the right and wrong answers and the timed passes in it: of variants,
points, thresholds, comparisons, recoveries, speeds, and of each claim's figure.

Of tasks without right answers, and of failures, which are in sample files only, nothing is checked.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from scipy import optimize, stats

from tests.recompute.intervals import (
    Triple,
    against,
    bend,
    mcnemar,
    mean_of_items,
    over_masks,
    p_over_masks,
    pair,
    score,
    step_down,
)

Check = tuple[str, float | None, float | None]  # what, as stored, as computed again
NEAR = 0.01


class Recomputed:
    """The outcomes of a run.json, and what follows from them."""

    def __init__(self, run: dict[str, Any]) -> None:
        self.run, self.sweep, self.target = run, run["sweep"], run["task"]
        self.bits = {
            name: {task: np.array([float(c) for c in text]) for task, text in tasks.items()}
            for name, tasks in self.sweep["outcomes"].items()
        }
        self.dense = self.bits[run["variants"][0]["name"]]
        self.points = [p for p in self.sweep["points"] if p["task"] in self.sweep["items"]]
        self.able = [
            t
            for t in self.sweep["items"]
            if t != self.target and score(self.dense[t].sum(), len(self.dense[t]))[0] >= 0.1
        ]

    def table(self, p: dict[str, Any], task: str | None = None) -> np.ndarray:
        task = task or p["task"]
        names = (p["masks"] or p["variants"]) if task == p["task"] else self._names(p, task)
        return np.array([self.bits[name][task] for name in names])

    def _names(self, p: dict[str, Any], task: str) -> list[str]:
        same = next(
            q
            for q in self.points
            if (q["arm"], q["ratio_requested"], q["task"]) == (p["arm"], p["ratio_requested"], task)
        )
        return list(same["masks"] or same["variants"])

    def at(self, arm: str, ratio: float) -> dict[str, Any] | None:
        own = [p for p in self.points if p["arm"] == arm and p["task"] == self.target]
        best = min(own, key=lambda p: abs(p["ratio_neurons"] - ratio), default=None)
        return best if best and abs(best["ratio_neurons"] - ratio) <= NEAR else None

    def between(self, p: dict[str, Any], control: dict[str, Any], task: str, confidence: float = 0.95) -> Triple:
        value, low, high = over_masks(self.table(p, task)[0], self.table(control, task), confidence)
        return -value, -high, -low

    def beyond(self, p: dict[str, Any], control: dict[str, Any], task: str) -> Triple:
        return against(self.between(p, control, self.target), self.between(p, control, task))


def checks(run: dict[str, Any]) -> Iterator[Check]:
    """Every figure with an interval, as stored and as computed again."""
    r = Recomputed(run)
    for part in (_variants, _points, _thresholds, _comparisons, _recoveries, _speeds, _claims):
        yield from part(r)


def three(what: str, stored: Sequence[float | None] | None, again: Sequence[float | None] | None) -> Iterator[Check]:
    stored, again = stored or (None,) * 3, again or (None,) * 3
    yield from ((f"{what} {end}", x, y) for end, x, y in zip(("value", "low", "high"), stored, again, strict=True))


def _variants(r: Recomputed) -> Iterator[Check]:
    for v in r.run["variants"]:
        for task, e in v["eval"].items():
            if task in r.sweep["items"]:
                own = r.bits[v["name"]][task]
                stored, again = (e["value"], e["ci_low"], e["ci_high"]), (own.mean(), *score(own.sum(), len(own)))
                yield from three(f"{v['name']} {task}", stored, again)


def _points(r: Recomputed) -> Iterator[Check]:
    adjusted = step_down([p_over_masks(r.dense[p["task"]], r.table(p)) for p in r.points])
    for p, holm in zip(r.points, adjusted, strict=True):
        what, masks, before = f"{p['arm']} {p['ratio_requested']} {p['task']}", r.table(p), r.dense[p["task"]]
        yield from three(what, (p["value"], p["ci_low"], p["ci_high"]), over_masks(None, masks))
        change = p["difference"], p["difference_low"], p["difference_high"]
        yield from three(f"{what} difference", change, over_masks(before, masks))
        yield f"{what} sd", p["sd"], float(masks.mean(axis=1).std(ddof=1)) if len(masks) > 1 else None
        yield f"{what} p", p["holm_p"], holm
        if p["task"] not in r.able:
            continue
        own, target = over_masks(before, masks), over_masks(r.dense[r.target], r.table(p, r.target))
        yield from three(f"{what} specificity", p["specificity"], against(target, own))
        for control, key in (("random", "beyond_random"), ("matched", "beyond_matched")):
            same = next(
                (q for q in r.points if (q["arm"], q["ratio_requested"]) == (control, p["ratio_requested"])), None
            )
            if same and p["arm"] not in ("random", "matched"):
                yield from three(f"{what} {key}", p[key], r.beyond(p, same, p["task"]))


def _reach(r: Recomputed, arm: str, task: str, margin: float) -> float:
    reached = 0.0
    own = [p for p in r.points if p["arm"] == arm and p["task"] == task]
    for p in sorted(own, key=lambda p: p["ratio_neurons"]):
        before, table = r.dense[task], r.table(p)
        if arm == "random" and len(table) < 19:
            continue
        most = most_lost(before, table[0]) if len(table) == 1 else -over_masks(before, table, 0.95)[1]
        if most >= margin:
            break
        reached = p["ratio_neurons"]
    return reached


def most_lost(before: np.ndarray, after: np.ndarray, level: float = 0.05) -> float:
    """Upper one-sided bound of the loss: binomial tails solved for the shares, combined by their distances."""
    n, lost, gained = before.size, int(((before > 0) & (after <= 0)).sum()), int(((before <= 0) & (after > 0)).sum())
    up = optimize.brentq(lambda q: stats.binom.cdf(lost, n, q) - level, lost / n, 1) if lost < n else 1.0
    down = optimize.brentq(lambda q: stats.binom.sf(gained - 1, n, q) - level, 0, gained / n) if gained else 0.0
    return (lost - gained) / n + math.hypot(up - lost / n, gained / n - down)


def _thresholds(r: Recomputed) -> Iterator[Check]:
    for t in r.sweep["thresholds"]:
        own = _reach(r, t["arm"], r.target, t["margin"])
        yield f"{t['arm']} threshold", t["non_inferior"], own
        others = [_reach(r, t["arm"], task, t["off_target_margin"]) for task in r.able]
        yield f"{t['arm']} everywhere", t["everywhere"], min(own, *others) if others else None
        if t["shape"] not in (None, "lost"):
            found = _knee(r, t["arm"], t["margin"])
            yield from three(f"{t['arm']} knee", (t["knee"], t["knee_low"], t["knee_high"]), found[:3])
            yield f"{t['arm']} support", t["support"], found[3]


def _knee(r: Recomputed, arm: str, margin: float) -> tuple[float | None, float | None, float | None, float]:
    own = sorted((p for p in r.points if p["arm"] == arm and p["task"] == r.target), key=lambda p: p["ratio_neurons"])
    rows = [r.dense[r.target], *(r.table(p).mean(axis=0) for p in own)]
    return bend(np.array([0.0, *(p["ratio_neurons"] for p in own)]), np.array(rows), margin)


def _comparisons(r: Recomputed) -> Iterator[Check]:
    for c in r.run["comparisons"]:
        if c["task"] in r.sweep["items"]:
            before, after = (r.bits[c[key]][c["task"]] for key in ("baseline", "variant"))
            what = f"{c['variant']} - {c['baseline']} {c['task']}"
            yield from three(what, (c["difference"], c["ci_low"], c["ci_high"]), pair(before, after))
            yield f"{what} p", c["mcnemar_p"], mcnemar(before, after)


def _recoveries(r: Recomputed) -> Iterator[Check]:
    for row in r.run["recoveries"]:
        before, after, control = _fine_tuned(r, row)
        yield from three(row["variant"], (row["margin_over_half"], row["ci_low"], row["ci_high"]), _margin(r, row))
        for what, tables in (("gain", after), ("gap", control)):
            again = pair(before, tables[0]) if len(tables) == 1 else over_masks(before, tables)
            yield from three(f"{row['variant']} {what}", row[what], again)


def _margin(r: Recomputed, row: dict[str, Any]) -> Triple:
    """Fine-tuned minus the mean of pruned and of dense fine-tuned the same way: over items, and over seeds too where
    there are several (Student's t on their means; distances from the estimate add in squares).
    """
    before, after, control = _fine_tuned(r, row)
    each = after - (before + control) / 2
    mean, low, high = mean_of_items(each.mean(axis=0))
    if len(each) == 1:
        return mean, low, high
    half = stats.t.ppf(0.975, len(each) - 1) * each.mean(axis=1).std(ddof=1) / len(each) ** 0.5
    return mean, max(-1.0, mean - math.hypot(mean - low, half)), min(1.0, mean + math.hypot(high - mean, half))


def _fine_tuned(r: Recomputed, row: dict[str, Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Right answers before [items], and after and of the control [seeds, items]."""
    bits = {key: r.bits[row[key]][row["task"]] for key in ("variant", "before", "control")}
    more = [f"-{seed + 1}" for seed in range(1, row.get("seeds", 1))]
    after, control = (
        np.array([bits[key], *(r.bits[row[key] + end][row["task"]] for end in more)]) for key in ("variant", "control")
    )
    return bits["before"], after, control


def _speeds(r: Recomputed) -> Iterator[Check]:
    for s in r.run["speed_ratios"]:
        what = f"{s['variant']} {s['quantity']} at {s['concurrency']}"
        yield from three(what, (s["ratio"], s["ci_low"], s["ci_high"]), _passes(s))


def _passes(s: dict[str, Any]) -> tuple[float, float | None, float | None]:
    logs = np.log(np.array(s["variant_passes"]) / np.array(s["baseline_passes"]))
    if len(logs) < 2:
        return math.exp(logs.mean()), None, None
    half = float(stats.t.ppf(0.975, len(logs) - 1)) * logs.std(ddof=1) / len(logs) ** 0.5
    return math.exp(logs.mean()), math.exp(logs.mean() - half), math.exp(logs.mean() + half)


def _claims(r: Recomputed) -> Iterator[Check]:
    for number, again in (
        (0, _above(r)),
        (1, _reverse(r)),
        (2, _kept(r, "selective-S")),
        (3, _faster(r)),
        (4, _bent(r)),
        (5, _over_half(r)),
        (6, _kept(r, "selective-best")),
    ):
        c = r.run["claims"][number]
        if c["value"] is not None:
            yield from three(c["claim"][:30], (c["value"], c["ci_low"], c["ci_high"]), again)


def _above(r: Recomputed) -> Triple | None:
    own = [p for p in r.points if p["arm"] == "selective-S" and p["task"] == r.target]
    found = [
        r.between(p, q, r.target)
        for p in own
        for q in r.points
        if (q["arm"], q["task"], q["ratio_requested"]) == ("random", r.target, p["ratio_requested"])
        and 0.1 - NEAR <= p["ratio_neurons"] <= 0.35 + NEAR
    ]
    return min(found, default=None)


def _reverse(r: Recomputed) -> Triple | None:
    place, found = r.at("reverse-S", 0.1), []
    marked = {p["task"] for p in r.points if p["distractor"]}
    judged = [task for task in r.able if task not in marked]
    for arm in ("random", "matched"):
        own = [p for p in r.points if p["arm"] == arm and p["task"] == r.target]
        if place is None or not own:
            continue
        left = r.table(place).mean()
        alike = [p for p in own if abs(r.table(p).mean() - left) <= 0.1]
        control = min(alike, key=lambda p: p["ratio_neurons"], default=None)
        if control is None:
            control = min(own, key=lambda p: r.table(p).mean())
            costs = [r.between(place, control, task)[1] for task in judged]
            if r.table(control).mean() <= left or not costs or min(costs) <= 0:
                continue
        more = r.between(place, control, r.target)[0] > 0
        for task in judged:
            found.append(r.beyond(place, control, task) if more else r.between(place, control, task))
    return min(found, key=lambda figure: figure[1], default=None)


def _kept(r: Recomputed, arm: str) -> Triple | None:
    place, before = r.at(arm, 0.3), r.dense[r.target]
    if place is None:
        return None
    after, n, share = r.table(place)[0], len(before), before.mean()
    value = after.sum() / before.sum()
    spread = math.sqrt(float(((after - value * before) ** 2).sum()) * n / (n - 1)) / before.sum()
    half, (_, low, high) = float(stats.t.ppf(0.975, n - 1)) * spread, pair(before, after)
    return (
        float(value),
        max(0.0, min(value - half, 1 + low / share)),
        min(1 / share, max(value + half, 1 + high / share)),
    )


def _faster(r: Recomputed) -> tuple[float, float | None, float | None] | None:
    """Of the first arm at 30 % that was timed with the most requests at a time."""
    tokens = [s for s in r.run["speed_ratios"] if s["quantity"] == "output_tok_s"]
    most = max((s["concurrency"] for s in tokens), default=0)
    places = (r.at(arm, 0.3) for arm in dict.fromkeys(("selective-S", *(p["arm"] for p in r.points))))
    names = [name for p in places if p for name in p["variants"]]
    timed = {s["variant"]: s for s in tokens if s["concurrency"] == most}
    return next((_passes(timed[name]) for name in names if name in timed), None)


def _bent(r: Recomputed) -> tuple[float | None, float | None, float | None] | None:
    margins = [t["margin"] for t in r.sweep["thresholds"] if t["arm"] == "selective-S"]
    return _knee(r, "selective-S", margins[0])[:3] if margins else None


def _over_half(r: Recomputed) -> Triple | None:
    names = (r.at("selective-S", 0.3) or {"variants": ()})["variants"]
    rows = [row for row in r.run["recoveries"] if row["before"] in names and row["task"] == r.target]
    return _margin(r, rows[0]) if rows else None
