"""Whether an arm is above random pruning: a rank among random masks at every ratio."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from harness.core.mask_statistics import FEWEST_MASKS, difference_over_masks, rank_p_value
from harness.core.statistics import Difference, collapsed, holm
from harness.core.types.sweep import Claim, Verdict
from harness.sweeps.evidence import LEVEL, RANDOM, Evidence, judged, missing, points_text, unable
from harness.sweeps.grid import is_claimed, near
from reports.figures import count_text, percent

_NEEDED = (0.10, 0.20, 0.30, 0.35)  # ratios that have to be there
RULE = (
    "above random masks by rank, p = (1 + masks at least as good) / (masks + 1) at most 5 %, with at least "
    f"{FEWEST_MASKS} masks, at 10, 20, 30 and 35 % and at every other ratio tried between; not supported where at one "
    "of them the difference to the mean of all masks, by an interval over masks and items that holds for all ratios "
    "together, is below 0"
)


@dataclass(frozen=True)
class AgainstRandom:
    """An arm against random masks at one ratio.

    Attributes:
        ratio: Of neurons.
        figure: The arm minus the mean of all masks, with its interval over masks and items.
        p: By rank among the masks.
        refuted: The interval that holds for all ratios together is below 0.
        edge: What leaves no room for a difference.
    """

    ratio: float
    figure: Difference
    p: float
    masks: int
    refuted: bool
    edge: str | None


def above_random(e: Evidence, role: str, base: Claim) -> Claim:
    """Judges an arm by RULE. All ratios have to hold, each at its own level, so that no correction is needed
    (intersection-union test: Berger 1982, Technometrics 24:295). For one ratio picked out, the details have p after
    Holm.
    """
    if not e.able:
        return unable(base)
    found = against_random(e, role)
    if not found:
        return missing(base, f"{role} and random at the same ratios from 10 to 35 %")
    masks, absent = min(row.masks for row in found), _absent(e, role, found)
    worst = min(found, key=lambda row: row.figure[0])
    few = (f"cannot say: {count_text(masks, 'mask')}; at least {FEWEST_MASKS} are needed, give --masks",)
    verdict = "cannot say" if masks < FEWEST_MASKS else _verdict(found, bool(absent))
    reason = few if masks < FEWEST_MASKS else _undecided(found) if verdict == "cannot say" and not absent else ()
    details = (*reason, *absent, *_lines(found))
    n = e.outcomes.of(e.outcomes.dense, e.outcomes.target).shape[1]
    return replace(judged(base, worst.figure, 0.0, n, *details, verdict=verdict), n_needed=None)


def _verdict(found: list[AgainstRandom], absent: bool) -> Verdict:
    if any(row.refuted and not row.edge for row in found):
        return "not supported"
    shown = all(row.p <= LEVEL and not row.edge for row in found)
    return "supported" if shown and not absent else "cannot say"


def _undecided(found: list[AgainstRandom]) -> tuple[str, ...]:
    """At which ratios it is not shown, with why where there is no room for a difference."""
    open_ones = [row for row in found if row.p > LEVEL or row.edge]
    where = (percent(row.ratio) + (f" ({row.edge.partition(':')[0]})" if row.edge else "") for row in open_ones)
    return (f"cannot say: not shown at {', '.join(where)}",)


def _absent(e: Evidence, role: str, found: list[AgainstRandom]) -> tuple[str, ...]:
    """Ratios of the rule that were not tried, and planned ones that failed."""
    there = [row.ratio for row in found]
    failed = {r for each in (role, RANDOM) for r in e.outcomes.missing(e.arm(each)) if is_claimed(r)}
    gone = sorted({*(ratio for ratio in _NEEDED if near(ratio, there) is None), *failed})
    return tuple(f"missing: {percent(ratio)}" for ratio in gone)


def _lines(found: list[AgainstRandom]) -> tuple[str, ...]:
    adjusted = holm([row.p for row in found])
    return tuple(
        f"{percent(row.ratio)}: {points_text(row.figure)} against {count_text(row.masks, 'mask')}, "
        f"p = {row.p:.2g} by rank ({p:.2g} after Holm)" + (f"; {row.edge}" if row.edge else "")
        for row, p in zip(found, adjusted, strict=True)
    )


def against_random(e: Evidence, role: str) -> list[AgainstRandom]:
    """The target's outcomes at every ratio of neurons from 10 to 35 % that the arm shares with random pruning."""
    pairs = [
        (place, other)
        for place in e.outcomes.along(e.arm(role))
        for other in e.outcomes.along(e.arm(RANDOM))
        if place.ratio == other.ratio and is_claimed(place.ratio_neurons)
    ]
    level = 1 - LEVEL / max(1, len(pairs))
    found = []
    for place, other in pairs:
        arm, masks = e.outcomes.of(place, e.outcomes.target)[0] > 0, e.outcomes.of(other, e.outcomes.target) > 0
        figure, (_, _, high) = (_minus(arm.tolist(), masks.tolist(), confidence) for confidence in (0.95, level))
        p, edge = rank_p_value(arm.mean(), masks.mean(axis=1).tolist()), _edge(e, arm, masks)
        found.append(AgainstRandom(place.ratio_neurons, figure, p, len(masks), high < 0, edge))
    return found


def _minus(arm: list[bool], masks: list[list[bool]], confidence: float) -> Difference:
    value, low, high = difference_over_masks(arm, masks, confidence)
    return -value, -high, -low


def _edge(e: Evidence, arm: np.ndarray, masks: np.ndarray) -> str | None:
    """Where both have lost all, or neither has lost anything, there is nothing to compare."""
    dense = float(e.outcomes.of(e.outcomes.dense, e.outcomes.target).mean())
    lost = (collapsed(int(row.sum()), row.size, dense, e.chance, e.collapse_share) for row in (arm, *masks))
    if all(lost):
        return "floor: all is lost with both"
    if min(arm.mean(), float(np.median(masks.mean(axis=1)))) >= dense:
        return "ceiling: nothing is lost with either"
    return None
