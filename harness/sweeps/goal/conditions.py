"""Which conditions of a goal a candidate meets, and by how much it misses the others. Pure functions.

Sizes are formulas of the FFN width and monotone in it. A loss is judged by the upper end of a one-sided interval of the
paired difference, a measured speed-up by the lower end of its interval: what a candidate keeps is shown, not estimated.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from harness.core.statistics import loss_bound
from harness.core.types.evaluation import EvalResult, has_right_answers
from harness.core.types.goal import Candidate, Condition, Goal, Quantity
from harness.core.types.pruning import ModelShape
from harness.core.types.serving import SpeedRatio
from harness.serving.cost_table import shape_with, sizes_of
from harness.serving.roofline import decode_work, engine_shape, find_device, kv_capacity_tokens, roofline_speedup
from harness.sweeps.goal.search import first_true

Answers = Mapping[str, tuple[Sequence[bool], Sequence[bool]]]  # task -> right or wrong, of dense and of the candidate
LEVEL = 0.05  # of all looks together


def at_most(quantity: Quantity, value: float, limit: float, task: str | None = None) -> Condition:
    """What must not exceed its limit."""
    return Condition(quantity, limit, value, value <= limit, max(0.0, value / limit - 1), task)


def at_least(quantity: Quantity, value: float, limit: float) -> Condition:
    """What must not fall below its limit."""
    return Condition(quantity, limit, value, value >= limit, max(0.0, 1 - value / limit))


def size_conditions(goal: Goal, dense: ModelShape, width: int) -> tuple[Condition, ...]:
    """What follows from the width of every layer alone.

    Raises:
        UsageError: A device is unknown.
    """
    return shape_conditions(goal, dense, dense.narrowed(width))


def layer_conditions(goal: Goal, dense: ModelShape, widths: Sequence[int]) -> tuple[Condition, ...]:
    """What follows from the widths of the layers; raises as `size_conditions`. A step needs room for the largest."""
    return shape_conditions(goal, dense, shape_with(dense, replace(sizes_of(dense), widths=tuple(widths))))


def shape_conditions(goal: Goal, dense: ModelShape, smaller: ModelShape) -> tuple[Condition, ...]:
    """What follows from the sizes of a model alone; raises UsageError for an unknown device."""
    return tuple(_sizes(goal, dense, smaller))


def _sizes(goal: Goal, dense: ModelShape, narrow: ModelShape) -> Iterator[Condition]:
    if goal.params is not None:
        yield at_most("params", narrow.parameters, goal.params)
    if goal.fits is not None:
        room = kv_capacity_tokens(engine_shape(narrow), find_device(goal.fits))
        yield at_least("fits", room, goal.requests * goal.context)
    if goal.speedup is not None and goal.device is not None:
        yield at_least("speedup", _by_roofline(goal, dense, narrow), goal.speedup)


def _by_roofline(goal: Goal, dense: ModelShape, narrow: ModelShape) -> float:
    """The least over the levels of concurrency; 0 where the device's speeds are unknown."""
    device, gains = find_device(str(goal.device)), []
    for level in goal.concurrency:
        shapes = map(engine_shape, (dense, narrow))
        old, new = (decode_work(shape, level, goal.context, shape.dtype_bytes, device.count) for shape in shapes)
        gains.append(roofline_speedup(old, new, device) or 0.0)
    return min(gains)


def least_bound(n: int, level: float) -> float:
    """The bound of `n` items none of which changes, however many are right."""
    return loss_bound([True] * n, [True] * n, level)


def least_items(limit: float, level: float, most: int) -> int | None:
    """The fewest items, up to `most`, of which unchanged answers show a loss within the limit; None where none do."""
    found = first_true(most - 1, lambda index: least_bound(index + 2, level) <= limit)
    return None if found is None else found + 2


def loss_conditions(goal: Goal, target: str, answers: Answers, level: float) -> tuple[Condition, ...]:
    """The limits of loss on the target and on the other tasks in `answers`."""
    limits: dict[Quantity, float | None] = {"max-loss": goal.max_loss, "off-target-loss": goal.off_target_loss}
    found = []
    for task, (before, after) in answers.items():
        quantity: Quantity = "max-loss" if task == target else "off-target-loss"
        limit = limits[quantity]
        if limit is not None:
            found.append(at_most(quantity, loss_bound(before, after, level), limit, task))
    return tuple(found)


def speed_condition(limit: float, measured: Iterable[SpeedRatio]) -> Condition:
    """A measured speed-up by the lower ends of its intervals, the least over the levels of concurrency."""
    return at_least("speedup", min((r.ci_low or 0.0 for r in measured), default=0.0), limit)


def is_open(limit: float, measured: Sequence[SpeedRatio]) -> bool:
    """Whether the speed-up is missed by the lower ends of the intervals, and not by the upper ends."""
    return not speed_condition(limit, measured).met and all((ratio.ci_high or 0.0) >= limit for ratio in measured)


def right_conditions(task: str, found: EvalResult) -> tuple[Condition, ...]:
    """At least one right answer, so that a model that has lost its task meets no goal; none for a mean such as
    perplexity or similarity, of which no item is right.
    """
    if not has_right_answers(found.metric):
        return ()
    return (replace(at_least("right", round(found.value * found.n), 1), task=task),)


def nearest(candidates: Sequence[Candidate]) -> Candidate:
    """The candidate whose most missed condition is missed by least; of equals, the first."""
    return min(candidates, key=lambda candidate: candidate.miss)
