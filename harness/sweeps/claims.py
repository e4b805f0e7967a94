"""The claims of the paper (arXiv 2604.27115), judged by rules fixed before the data were seen; the same for `best`.

All intervals are at 95 %, paired where items are shared. S is the metric smd.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from scipy import stats

from harness.core.statistics import (
    Difference,
    holm,
    items_needed,
    paired_mean_difference,
    paired_mean_p_value,
    ratio_mean,
    wilson,
)
from harness.core.types.serving import SpeedRatio
from harness.core.types.sweep import Claim, Threshold, Verdict
from harness.core.types.training import Recovery
from harness.sweeps.curves import GridPoint, Outcomes, difference, is_collapsed, specificity_of, threshold
from harness.sweeps.grid import NEAR, near
from reports.figures import percent, points

PAPER, BEST, RANDOM, REVERSE = "selective-S", "selective-best", "random", "reverse-S"
_LEVEL = 0.05
_ENDLESS = 1_000_000
_LOW, _HIGH = 0.10, 0.35  # ratios of claim 1
_HALF, _AT, _REVERSE_AT = 0.5, 0.3, 0.1
_KNEE = (0.15, 0.20)


@dataclass(frozen=True)
class Evidence:
    """What the claims are judged on.

    Attributes:
        sizes: Variant -> ((parameters, bytes) by formula, (parameters, bytes) as written), for written checkpoints.
        chance: Accuracy by chance; collapse_share and margin are settings of the sweep too.
        roles: PAPER, BEST ... -> the arm in that role, if it has another name.
    """

    outcomes: Outcomes
    speed_ratios: Sequence[SpeedRatio]
    recoveries: Sequence[Recovery]
    sizes: Mapping[str, tuple[tuple[int, int], tuple[int, int]]]
    chance: float
    collapse_share: float
    margin: float
    roles: Mapping[str, str] = field(default_factory=dict)

    def arm(self, role: str) -> str:
        return self.roles.get(role, role)

    def place(self, role: str, ratio: float) -> GridPoint | None:
        places = self.outcomes.along(self.arm(role))
        found = near(ratio, [place.ratio for place in places])
        return next((place for place in places if place.ratio == found), None)


def judge(evidence: Evidence) -> tuple[Claim, ...]:
    """The paper's six claims and a seventh for `best`; a claim without the cells it needs names the missing ones."""
    rules = (_selective_beats_random, _reverse_collapses, _keeps_half, _smaller_and_faster, _knee, _recovers, _best)
    return tuple(rule(evidence) for rule in rules)


def _claim(base: Claim, figure: Difference, aim: float, n: int, *details: str, verdict: Verdict | None = None) -> Claim:
    """The claim with its figure, which must exceed `aim`."""
    value, low, high = figure
    found = verdict or ("supported" if low > aim else "not supported" if high <= aim else "cannot say")
    needed = _needed(figure, aim, n) if found == "cannot say" else None
    return replace(base, value=value, ci_low=low, ci_high=high, verdict=found, n=n, n_needed=needed, details=details)


def _needed(figure: Difference, aim: float, n: int, level: float = _LEVEL) -> int | None:
    """Items at which this distance from `aim` would be found with 80 % power, given the width of the present
    interval.
    """
    value, low, high = figure
    if math.isclose(value, aim) or high <= low or n < 2:
        return None
    variance = n * ((high - low) / 2 / stats.t.ppf(1 - _LEVEL / 2, n - 1)) ** 2
    return max(n + 1, items_needed(abs(value - aim), variance, confidence=1 - level))


def _needed_for_collapse(accuracy: float, n: int, below: float) -> int | None:
    """Items at which an interval around the same accuracy would end below; None where it never does."""
    while accuracy < below and n < _ENDLESS:
        n += max(1, n // 50)
        if wilson(round(accuracy * n), n)[1] < below:
            return n
    return None


def _missing(base: Claim, what: str) -> Claim:
    return replace(base, details=(f"missing: {what}",))


def _blank(claim: str, rule: str, figure: str, unit: Literal["points", "share", "factor", "ratio"]) -> Claim:
    return Claim(
        claim=claim,
        rule=rule,
        figure=figure,
        unit=unit,
        value=None,
        ci_low=None,
        ci_high=None,
        verdict="cannot say",
        n=None,
        n_needed=None,
    )


def _selective_beats_random(e: Evidence) -> Claim:
    base = _blank(
        "1. Selective pruning beats random pruning at equal width",
        "selective (S) minus random, mean over its seeds, above 0 at every ratio from 10 to 35 %, after Holm",
        "smallest difference",
        "points",
    )
    return _above_random(e, PAPER, base)


def _above_random(e: Evidence, arm: str, base: Claim) -> Claim:
    found = _against_random(e, arm)
    if not found:
        return _missing(base, f"{arm} and random at the same ratios from 10 to 35 %")
    gone = {r for role in (arm, RANDOM) for r in e.outcomes.missing(e.arm(role)) if _LOW - NEAR <= r <= _HIGH + NEAR}
    adjusted = holm([p for _, _, p in found])
    shown = [figure[0] > 0 and p < _LEVEL for (_, figure, _), p in zip(found, adjusted, strict=True)]
    refuted = any(high <= 0 for _, (_, _, high), _ in found)
    verdict: Verdict = "not supported" if refuted else "supported" if all(shown) and not gone else "cannot say"
    _, worst, _ = min(found, key=lambda row: row[1][0])
    n = e.outcomes.of(e.outcomes.dense, e.outcomes.target).size
    lines = (
        f"{percent(r)}: {_points(d)}, p = {p:.2g} after Holm" for (r, d, _), p in zip(found, adjusted, strict=True)
    )
    absent = [f"missing: {percent(ratio)}" for ratio in sorted(gone)]
    claim = _claim(base, worst, 0.0, n, *absent, *lines, verdict=verdict)
    open_ones = [
        _needed(figure, 0.0, n, _LEVEL / len(found)) for (_, figure, _), ok in zip(found, shown, strict=True) if not ok
    ]
    needed = (
        None
        if verdict != "cannot say" or None in open_ones
        else max((value for value in open_ones if value), default=None)
    )
    return replace(claim, n_needed=needed)


def _against_random(e: Evidence, arm: str) -> list[tuple[float, Difference, float]]:
    """(ratio, arm minus random, p-value) on the target."""
    found = []
    others = {place.ratio: place for place in e.outcomes.along(e.arm(RANDOM))}
    for place in e.outcomes.along(e.arm(arm)):
        other = others.get(place.ratio)
        if other and _LOW - NEAR <= place.ratio <= _HIGH + NEAR:
            rows = [e.outcomes.of(p, e.outcomes.target) for p in (place, other)]
            pair = rows[0].mean(axis=0).tolist(), rows[1].tolist()
            found.append((place.ratio, paired_mean_difference(*pair), paired_mean_p_value(*pair)))
    return found


def _reverse_collapses(e: Evidence) -> Claim:
    base = _blank(
        "2. Removing the 10 % most selective neurons makes the target collapse, and it more than the other tasks",
        "at 10 % reverse (S) the accuracy's 95 % interval ends below "
        f"max({percent(e.chance)}, {percent(e.collapse_share)} of dense), "
        "and specificity is above 0",
        "specificity",
        "points",
    )
    place = e.place(REVERSE, _REVERSE_AT)
    specific = specificity_of(e.outcomes, place) if place else None
    if place is None or specific is None:
        return _missing(base, f"{REVERSE} at 10 %, and an off-target task that the dense model can do")
    right, below = e.outcomes.of(place, e.outcomes.target)[0], collapse_below(e)
    n, (low, high) = right.size, wilson(int(right.sum()), right.size)
    gone, kept = is_collapsed(e.outcomes, place, e.outcomes.target, e.chance, e.collapse_share), low >= below
    accuracy = f"accuracy {percent(right.mean())} ({percent(low)} to {percent(high)}), gone below {percent(below)}"
    if kept:
        return _claim(base, specific, 0.0, n, accuracy, verdict="not supported")
    found = _claim(base, specific, 0.0, n, accuracy)
    if gone or found.verdict == "not supported":
        return found
    needed = [
        _needed_for_collapse(float(right.mean()), n, below),
        *([_needed(specific, 0.0, n)] if found.verdict == "cannot say" else []),
    ]
    return replace(
        found, verdict="cannot say", n_needed=None if None in needed else max(value for value in needed if value)
    )


def collapse_below(e: Evidence) -> float:
    return max(e.chance, e.collapse_share * float(e.outcomes.of(e.outcomes.dense, e.outcomes.target).mean()))


def _keeps_half(e: Evidence) -> Claim:
    base = _blank(
        "3. Removing 30 % keeps a substantial part of the accuracy",
        "accuracy at 30 % selective (S) over dense: lower end at least 50 %",
        "retained accuracy",
        "share",
    )
    return _retained(e, PAPER, base)


def _retained(e: Evidence, arm: str, base: Claim) -> Claim:
    place, dense = e.place(arm, _AT), e.outcomes.of(e.outcomes.dense, e.outcomes.target)[0]
    if place is None or not dense.any():
        return _missing(base, f"{arm} at 30 %, and a dense model that answers anything right")
    pruned = e.outcomes.of(place, e.outcomes.target)[0]
    change = difference(e.outcomes, place, e.outcomes.target)
    line = f"{percent(dense.mean())} -> {percent(pruned.mean())}, {_points(change)}"
    return _claim(base, _ratio(pruned.tolist(), dense.tolist(), change), _HALF, dense.size, line)


def _ratio(after: list[float], before: list[float], change: Difference) -> Difference:
    """after / before with the wider of two intervals: the ratio estimator's has no width where all items agree."""
    value, low, high = ratio_mean(after, before)
    share = sum(before) / len(before)
    return value, max(0.0, min(low, 1 + change[1] / share)), max(high, 1 + change[2] / share)


def _smaller_and_faster(e: Evidence) -> Claim:
    base = _blank(
        "4. Parameters and memory fall as computed, and throughput rises",
        "the checkpoint at 30 % has the parameters and bytes of the formula; tokens per second over dense above 1",
        "throughput",
        "factor",
    )
    arms = [e.place(arm, _AT) for arm in (PAPER, *e.outcomes.arms)]
    names = [name for place in arms if place for name in (v.name for v in place.variants)]
    ratios = [
        r for name in dict.fromkeys(names) for r in e.speed_ratios if r.variant == name and r.quantity == "output_tok_s"
    ]
    written = next((name for name in names if name in e.sizes), None)
    if not ratios or written is None:
        return _missing(base, "an arm at 30 % that was written and timed")
    chosen = max((r for r in ratios if r.variant == ratios[0].variant), key=lambda r: r.concurrency)
    predicted, found = e.sizes[written]
    line = (
        f"{written}: {found[0]:,} parameters and {found[1]:,} bytes written, "
        f"{predicted[0]:,} and {predicted[1]:,} predicted"
    )
    others = [f"{r.ratio:.3f} at {r.concurrency} concurrent requests" for r in ratios if r.variant == chosen.variant]
    details: tuple[str, ...] = (line, f"{chosen.variant}: {', '.join(others)}")
    wrong: Verdict | None = None if predicted == found else "not supported"
    if chosen.ci_low is None or chosen.ci_high is None:
        details = (*details, "one pair: no interval")
        return replace(base, value=chosen.ratio, n=chosen.pairs, verdict=wrong or "cannot say", details=details)
    return _claim(base, (chosen.ratio, chosen.ci_low, chosen.ci_high), 1.0, chosen.pairs, *details, verdict=wrong)


def _knee(e: Evidence) -> Claim:
    base = _blank(
        "5. Accuracy bends down at a ratio of 15 to 20 %",
        (
            "the interval of the knee of selective (S) lies within 15 to 20 %; not supported "
            "where there is no knee or it lies outside"
        ),
        "knee",
        "ratio",
    )
    if e.arm(PAPER) not in e.outcomes.arms:
        return _missing(base, f"{PAPER} at four ratios or more")
    found, n = threshold(e.outcomes, e.arm(PAPER), e.margin), e.outcomes.of(e.outcomes.dense, e.outcomes.target).size
    if found.support is None:
        return _missing(base, f"{PAPER} at four ratios or more")
    details = (threshold_line(found), f"a knee in {percent(found.support)} of the resamplings")
    if found.knee is None or found.knee_low is None or found.knee_high is None:
        return replace(base, verdict="not supported", n=n, details=("no knee: a straight line fits as well", *details))
    figure, (low, high) = (found.knee, found.knee_low, found.knee_high), _KNEE
    inside, outside = low <= found.knee_low and found.knee_high <= high, found.knee_high < low or found.knee_low > high
    verdict: Verdict = "supported" if inside else "not supported" if outside else "cannot say"
    edge = min(_KNEE, key=lambda edge: abs(edge - figure[0]))
    return _claim(base, figure, edge, n, *details, verdict=verdict)


def threshold_line(found: Threshold) -> str:
    return f"loses less than {100 * found.margin:g} points up to {percent(found.non_inferior)} removed, as far as shown"


def _recovers(e: Evidence) -> Claim:
    base = _blank(
        "6. Fine-tuning recovers much of the loss",
        (
            "at 30 % selective (S), fine-tuned minus the mean of pruned and dense "
            "fine-tuned the same way: lower end at least 0"
        ),
        "margin over half of the gap",
        "points",
    )
    place = e.place(PAPER, _AT)
    names = [v.name for v in place.variants] if place else []
    row = next((r for r in e.recoveries if r.before in names and r.task == e.outcomes.target), None)
    if row is None:
        return _missing(base, f"{PAPER} at 30 % and dense, both fine-tuned")
    rest = [r for r in e.recoveries if r.task == e.outcomes.target]
    lines = (
        f"{r.before}: {'no clear gap' if r.share is None else percent(r.share) + ' of the gap recovered'}" for r in rest
    )
    verdict: Verdict | None = "supported" if row.ci_low >= 0 else None
    return _claim(base, (row.margin_over_half, row.ci_low, row.ci_high), 0.0, row.n, *lines, verdict=verdict)


def _best(e: Evidence) -> Claim:
    base = _blank(
        "`best` instead of S: above random, and keeps a substantial part",
        "the rules of 1 and 3 for `best`",
        "retained accuracy at 30 %",
        "share",
    )
    kept, above = _retained(e, BEST, base), _above_random(e, BEST, base)
    if kept.value is None or above.value is None:
        return kept if kept.value is None else above
    order: Sequence[Verdict] = ("not supported", "cannot say", "supported")
    verdict = min((kept.verdict, above.verdict), key=order.index)
    needed = [claim.n_needed for claim in (kept, above) if claim.verdict == "cannot say"]
    n_needed = max((n for n in needed if n), default=None) if verdict == "cannot say" else None
    return replace(kept, verdict=verdict, n_needed=n_needed, details=(*kept.details, *above.details))


def _points(figure: Difference) -> str:
    value, low, high = map(points, figure)
    return f"{value} points ({low} to {high})"
