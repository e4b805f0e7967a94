"""Whether the target loses more than other tasks, beyond random and matched neurons; claim 2."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from harness.core.mask_statistics import difference_over_masks
from harness.core.statistics import Difference, specificity, wilson
from harness.core.types.evaluation import has_right_answers
from harness.core.types.sweep import Claim, SweepPoint, Verdict
from harness.sweeps.curves import GridPoint, Outcomes, difference, is_collapsed
from harness.sweeps.evidence import MATCHED, RANDOM, REVERSE, Evidence, blank, collapse_below, missing, points_text
from reports.figures import count_text, percent

_AT = 0.1
_ALIKE = 0.1  # the most that two arms' losses on the target may differ and count as the same
_ENDLESS = 1_000_000
_FEWEST = 3  # random masks off target: with fewer, their spread is not known


def specificity_on(outcomes: Outcomes, place: GridPoint, task: str) -> Difference:
    """How many points more the target loses than another task at the same point."""
    return specificity(difference(outcomes, place, outcomes.target), [difference(outcomes, place, task)])


def beyond(outcomes: Outcomes, place: GridPoint, control: GridPoint, task: str) -> Difference:
    """The specificity at a point minus that of a control arm, which may be at another ratio. The dense model cancels
    out: it is the difference between the arms on the task minus that on the target.
    """
    return specificity(_between(outcomes, place, control, outcomes.target), [_between(outcomes, place, control, task)])


def _between(outcomes: Outcomes, place: GridPoint, control: GridPoint, task: str) -> Difference:
    arm, masks = (outcomes.of(point, task) > 0 for point in (place, control))
    value, low, high = difference_over_masks(arm[0].tolist(), masks.tolist())
    return -value, -high, -low


@dataclass(frozen=True)
class _Excess:
    task: str
    control: str
    figure: Difference
    at: float  # ratio of the control


def reverse_collapses(e: Evidence) -> Claim:
    """Claim 2."""
    below = f"max({percent(e.chance)}, {percent(e.collapse_share)} of dense)"
    base = blank(
        "2. Removing the 10 % most selective neurons makes the target collapse, and it more than the other tasks",
        f"at 10 % reverse (S) the accuracy's 95 % interval ends below {below}, and every off-target task that the "
        "dense model can do and that was no distractor is left better than by random neurons and by neurons of "
        "matched contribution at ratios where they lose as much of the target, within 10 points, or where they lose "
        "most of it, if that is less and they still lose more of the other tasks; the worst decides",
        "smallest advantage off target at the same loss of the target",
        "points",
    )
    place = e.place(REVERSE, _AT)
    if place is None or not e.able:
        return missing(base, f"{REVERSE} at 10 %, and a target that the dense model can do")
    found, absent = list(_excesses(e, place)), _absent(e, place)
    right, gone = e.outcomes.of(place, e.outcomes.target)[0], collapse_below(e)
    n, (low, high) = right.size, wilson(int(right.sum()), right.size)
    line = f"accuracy {percent(right.mean())} ({percent(low)} to {percent(high)}), gone below {percent(gone)}"
    lost = is_collapsed(e.outcomes, place, e.outcomes.target, e.chance, e.collapse_share)
    alone = bool(found) and not absent and all(x.figure[1] > 0 for x in found)  # the collapse is all that is open
    undecided = not lost and low < gone
    needed, reason = _items_for_collapse(e, float(right.mean()), n, gone, alone) if undecided else (None, ())
    verdict = _verdict(found, bool(absent), lost, low >= gone)
    lines = [f"{x.task} beyond {x.control} at {percent(x.at)}: {points_text(x.figure)}" for x in found]
    details = (*(reason if verdict == "cannot say" else ()), *absent, line, *lines)
    claim = replace(base, verdict=verdict, n=n, n_needed=needed if verdict == "cannot say" else None, details=details)
    if not found:
        return claim
    value, least, most = min((x.figure for x in found), key=lambda figure: figure[1])
    return replace(claim, value=value, ci_low=least, ci_high=most)


def _verdict(found: list[_Excess], absent: bool, lost: bool, kept: bool) -> Verdict:
    if kept or any(x.figure[2] <= 0 for x in found):
        return "not supported"
    return "supported" if lost and found and not absent and all(x.figure[1] > 0 for x in found) else "cannot say"


def _judged_tasks(e: Evidence) -> list[str]:
    return [task for task in e.outcomes.others if task not in e.distractors]


def _excesses(e: Evidence, place: GridPoint) -> Iterator[_Excess]:
    for role in (RANDOM, MATCHED):
        control = _control(e, place, role)
        if control:
            for task in _judged_tasks(e):
                yield _Excess(task, role, _at_same_loss(e.outcomes, place, control, task), control.ratio_neurons)


def _at_same_loss(outcomes: Outcomes, place: GridPoint, control: GridPoint, task: str) -> Difference:
    """How much better the other task is than with the control. What the control lost more of the target is taken off;
    what it lost less is not added, since that is no specificity.
    """
    more = _between(outcomes, place, control, outcomes.target)[0] > 0
    return beyond(outcomes, place, control, task) if more else _between(outcomes, place, control, task)


def _control(e: Evidence, place: GridPoint, role: str) -> GridPoint | None:
    """The control's point that lost about as much of the target; of several the one where least is removed, as what is
    removed beyond that costs the other tasks alone. If it never does: the one that lost most of it, where that cost the
    other tasks more than reverse pruning does. To be alike, it would have to lose even more.
    """

    def left(point: GridPoint) -> float:
        return float(e.outcomes.of(point, e.outcomes.target).mean())

    points = e.outcomes.along(e.arm(role))
    alike = [point for point in points if abs(left(point) - left(place)) <= _ALIKE]
    if alike or not points:
        return alike[0] if alike else None
    lowest = min(points, key=left)
    costs = [_between(e.outcomes, place, lowest, task) for task in _judged_tasks(e)]
    return lowest if left(lowest) > left(place) and costs and all(low > 0 for _, low, _ in costs) else None


def _absent(e: Evidence, place: GridPoint) -> tuple[str, ...]:
    """What is missing for "supported"."""
    lacking = "missing: an off-target task that the dense model can do and that was no distractor"
    tasks = [] if _judged_tasks(e) else [lacking]
    controls = [
        f"missing: {role} at a ratio at which it loses about as much of the target; give --methods and --ratios"
        for role in (RANDOM, MATCHED)
        if _control(e, place, role) is None
    ]
    few = [
        f"cannot say: {count_text(n, 'random mask')} off target; at least {_FEWEST} are needed, give --seeds"
        for control in [_control(e, place, RANDOM)]
        if control and (n := len(control.variants)) < _FEWEST
    ]
    failed = [
        f"missing: {role} at {percent(ratio)}"
        for role in (REVERSE, RANDOM, MATCHED)
        for ratio in e.outcomes.missing(e.arm(role))
    ]
    unable = [f"{task}: cannot say, the dense model cannot do it" for task in e.outcomes.unable]
    marked = [f"{task}: was a distractor, not judged" for task in e.outcomes.others if task in e.distractors]
    return (*tasks, *controls, *few, *failed, *((*unable, *marked) if tasks else ()))


def _items_for_collapse(
    e: Evidence, accuracy: float, n: int, below: float, alone: bool
) -> tuple[int | None, tuple[str, ...]]:
    """Items at which an interval around the same accuracy would end below, and what there is to say about that. They
    decide where the collapse is `alone` open.
    """
    least = next(count for count in range(1, _ENDLESS) if wilson(0, count)[1] < below) if below > 0 else None
    if least and n < least:
        few = f"cannot say: with {n} items it can never be supported; at least {least} are needed"
        return least if alone else None, (few,)
    needed = n
    while accuracy < below and needed < _ENDLESS and wilson(round(accuracy * needed), needed)[1] >= below:
        needed += max(1, needed // 50)
    if accuracy >= below or needed >= _ENDLESS:
        return None, ()
    would = f"cannot say: {needed:,} items would {'decide' if alone else 'show the collapse'}"
    if e.items is not None and needed > e.items:
        return None, (f"{would}, and {e.outcomes.target} has {e.items:,}",)
    return (needed, ()) if alone else (None, (would,))


def with_specificity(e: Evidence, points: Sequence[SweepPoint]) -> tuple[SweepPoint, ...]:
    """The points of off-target tasks with their specificity, and how much of it is beyond the controls' at the same
    ratio. As they are where the target has no right answers.
    """
    if not has_right_answers(e.outcomes.metrics[e.outcomes.target]):
        return tuple(points)
    return tuple(_specific(e, p) if p.task in e.outcomes.others else p for p in points)


def _specific(e: Evidence, point: SweepPoint) -> SweepPoint:
    places = {(p.arm, p.ratio): p for p in e.outcomes.places}
    place = places[point.arm, point.ratio_requested]

    def over(role: str) -> Difference | None:
        control = places.get((e.arm(role), place.ratio))
        own = place.arm in (e.arm(RANDOM), e.arm(MATCHED))
        return None if control is None or own else beyond(e.outcomes, place, control, point.task)

    return replace(
        point,
        specificity=specificity_on(e.outcomes, place, point.task),
        beyond_random=over(RANDOM),
        beyond_matched=over(MATCHED),
        distractor=point.task in e.distractors,
    )
