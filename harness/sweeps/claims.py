"""The claims of the paper (arXiv 2604.27115), judged by rules that are fixed here; the same for `best`.

All intervals are at 95 %, paired where items are shared. S is the metric smd.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from harness.core.statistics import Difference, ratio_mean
from harness.core.types.sweep import Claim, Threshold, Verdict
from harness.sweeps.curves import difference, threshold
from harness.sweeps.evidence import (
    BEST,
    PAPER,
    REASONS,
    Evidence,
    blank,
    judged,
    missing,
    points_text,
    unable,
)
from harness.sweeps.grid import NEAR
from harness.sweeps.random_claim import RULE, above_random
from harness.sweeps.specificity import reverse_collapses
from harness.sweeps.speed_claim import smaller_and_faster
from reports.figures import count_text, percent

RULES = 6  # version of the rules: raise it with every change of one
_HALF, _AT = 0.5, 0.3
_KNEE = (0.15, 0.20)
_FEWEST_SEEDS = 3  # of fine-tuning: two say too little of how far seeds differ


def judge(evidence: Evidence) -> tuple[Claim, ...]:
    """The paper's six claims and a seventh for `best`; a claim without the cells it needs names the missing ones."""
    rules = (_selective_beats_random, reverse_collapses, _keeps_half, smaller_and_faster, _knee, _recovers, _best)
    return tuple(rule(evidence) for rule in rules)


def _selective_beats_random(e: Evidence) -> Claim:
    base = blank(
        "1. Selective pruning beats random pruning at equal width",
        f"selective (S): {RULE}",
        "smallest difference to the masks' mean",
        "points",
    )
    return above_random(e, PAPER, base)


def _keeps_half(e: Evidence) -> Claim:
    base = blank(
        "3. Removing 30 % keeps a substantial part of the accuracy",
        "accuracy at 30 % selective (S) over dense: lower end at least 50 %",
        "retained accuracy",
        "share",
    )
    return _retained(e, PAPER, base)


def _retained(e: Evidence, arm: str, base: Claim) -> Claim:
    place, dense = e.place(arm, _AT), e.outcomes.of(e.outcomes.dense, e.outcomes.target)[0]
    if not e.able:
        return unable(base)
    if place is None:
        return missing(base, f"{arm} at 30 %")
    pruned = e.outcomes.of(place, e.outcomes.target)[0]
    change = difference(e.outcomes, place, e.outcomes.target)
    line = f"{percent(dense.mean())} -> {percent(pruned.mean())}, {points_text(change)}"
    return judged(base, _ratio(pruned.tolist(), dense.tolist(), change), _HALF, dense.size, line)


def _ratio(after: list[float], before: list[float], change: Difference) -> Difference:
    """after / before with the wider of two intervals: the ratio estimator's has no width where all items agree."""
    value, low, high = ratio_mean(after, before)
    share = sum(before) / len(before)
    most = 1 / share  # all items right
    return value, max(0.0, min(low, 1 + change[1] / share)), min(most, max(high, 1 + change[2] / share))


def _knee(e: Evidence) -> Claim:
    base = blank(
        "5. Accuracy bends down at a ratio of 15 to 20 %",
        (
            "the interval of the knee of selective (S), where two lines explain the curve better than one and than a "
            "quadratic, lies within 15 to 20 %, with ratios below 15 and above 20 %; not supported where it lies "
            "outside, where there is no knee, or where all is lost before a first ratio of at most 15 %"
        ),
        "knee",
        "ratio",
    )
    if e.arm(PAPER) not in e.outcomes.arms or not e.able:
        return missing(base, f"{PAPER} at four ratios or more, and a dense model that can do the target")
    found = threshold(e.outcomes, e.arm(PAPER), e.margin, (e.chance, e.collapse_share))
    n, shape = e.outcomes.of(e.outcomes.dense, e.outcomes.target).size, found.shape
    if shape is None:
        return missing(base, f"{PAPER} at four ratios or more")
    tried = [place.ratio_neurons for place in e.outcomes.along(e.arm(PAPER))]
    unseen = _unseen(tried, shape == "lost")
    failed = [f"missing: {percent(ratio)}" for ratio in e.outcomes.missing(e.arm(PAPER))]
    details = (*failed, threshold_line(found), f"a knee in {percent(found.support)} of the resamplings")
    if unseen:
        return replace(base, n=n, details=(f"missing: {unseen}", *details))
    if found.knee is None or found.knee_low is None or found.knee_high is None:
        why = _NO_KNEE.get(shape, f"all is lost before the first ratio, {percent(tried[0])}")
        return replace(base, verdict="cannot say" if shape == "flat" else "not supported", n=n, details=(why, *details))
    figure, (low, high) = (found.knee, found.knee_low, found.knee_high), _KNEE
    inside, outside = low <= found.knee_low and found.knee_high <= high, found.knee_high < low or found.knee_low > high
    verdict: Verdict = "supported" if inside and not failed else "not supported" if outside else "cannot say"
    edge = min(_KNEE, key=lambda edge: abs(edge - figure[0]))
    return judged(base, figure, edge, n, *details, verdict=verdict)


def _unseen(ratios: Sequence[float], lost: bool) -> str:
    """Which ratios are missing for a bend at 15 to 20 % to be seen; empty where none are. `lost`: all of them are."""
    low, high = _KNEE
    if ratios[0] > low + NEAR:
        return f"{PAPER} at a ratio of at most {percent(low)}"
    if lost or (ratios[0] < low and ratios[-1] > high):
        return ""
    return f"{PAPER} at ratios below {percent(low)} and above {percent(high)}"


_NO_KNEE = {
    "line": "no knee: a straight line fits as well",
    "curve": "no knee: a smooth curve fits as well",
    "edge": "no knee between the ratios: it would be at their edge",
    "flat": "missing: ratios at which more than the margin is lost",
}


def threshold_line(found: Threshold) -> str:
    return f"loses less than {100 * found.margin:g} points up to {percent(found.non_inferior)} removed, as far as shown"


def _recovers(e: Evidence) -> Claim:
    base = blank(
        "6. Fine-tuning recovers much of the loss",
        (
            f"at 30 % selective (S), with {_FEWEST_SEEDS} seeds of fine-tuning or more, where something was lost and "
            "dense fine-tuned the same way is above pruned: fine-tuned minus the mean of both, lower end at least 0; "
            "not supported where fine-tuning is shown to hurt"
        ),
        "margin over half of the gap",
        "points",
    )
    if not e.able:
        return unable(base)
    place = e.place(PAPER, _AT)
    names = [v.name for v in place.variants] if place else []
    row = next((r for r in e.recoveries if r.before in names and r.task == e.outcomes.target), None)
    if place is None or row is None or row.gain is None or row.gap is None:
        return missing(base, f"{PAPER} at 30 % and dense, both fine-tuned")
    rest = [r for r in e.recoveries if r.task == e.outcomes.target]
    lines = [
        f"{r.before}: {'no clear gap' if r.share is None else percent(r.share) + ' of the gap recovered'}" for r in rest
    ]
    lines.append(f"over {count_text(row.seeds, 'seed')} of fine-tuning and items")
    why, verdict = _recovered(row.seeds, row.gain, row.gap, difference(e.outcomes, place, e.outcomes.target))
    if verdict is None and row.ci_low >= 0:
        verdict = "supported"
    found = judged(base, (row.margin_over_half, row.ci_low, row.ci_high), 0.0, row.n, *why, *lines, verdict=verdict)
    return replace(found, n_needed=None)  # its interval is over seeds too, which more items do not narrow


def _recovered(
    seeds: int, gain: Difference, gap: Difference, change: Difference
) -> tuple[tuple[str, ...], Verdict | None]:
    """What decides before the margin over half is read, and its verdict. gain: of fine-tuning; gap: dense fine-tuned
    minus pruned; change: pruned minus dense, before.
    """
    if seeds < _FEWEST_SEEDS:
        said = f"{count_text(seeds, 'seed')} of fine-tuning, {_FEWEST_SEEDS} are needed (--recovery-seeds)"
        return (f"cannot say: {said}",), "cannot say"
    if gain[2] < 0:
        return (f"fine-tuning hurts: {points_text(gain)}",), "not supported"
    if change[2] >= 0:
        return (f"cannot say: nothing to recover, pruning changed {points_text(change)}",), "cannot say"
    if gap[1] <= 0:
        why = f"nothing to recover, dense fine-tuned the same way is not above pruned: {points_text(gap)}"
        return (f"cannot say: {why}",), "cannot say"
    return (), None


def _best(e: Evidence) -> Claim:
    base = blank(
        "`best` instead of S: above random, and keeps a substantial part",
        "the rules of 1 and 3 for `best`",
        "retained accuracy at 30 %",
        "share",
    )
    kept, above = _retained(e, BEST, base), above_random(e, BEST, base)
    if kept.value is None or above.value is None:
        return kept if kept.value is None else above
    order: Sequence[Verdict] = ("not supported", "cannot say", "supported")
    verdict = min((kept.verdict, above.verdict), key=order.index)
    needed = [claim.n_needed for claim in (kept, above) if claim.verdict == "cannot say"]
    n_needed = max((n for n in needed if n), default=None) if verdict == "cannot say" else None
    details = sorted((*kept.details, *above.details), key=lambda line: not line.startswith(REASONS))
    return replace(kept, verdict=verdict, n_needed=n_needed, details=tuple(details))
