"""The conditions of a goal, each against its definition; and how often a search names a model that loses too much."""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.core.types.evaluation import EvalResult
from harness.core.types.goal import Candidate, Condition, Goal
from harness.core.types.serving import SpeedRatio
from harness.models import registry
from harness.serving.roofline import decode_work, find_device, kv_capacity_tokens
from harness.sweeps.goal.conditions import (
    LEVEL,
    at_least,
    at_most,
    layer_conditions,
    least_bound,
    least_items,
    loss_bound,
    loss_conditions,
    nearest,
    right_conditions,
    size_conditions,
    speed_condition,
)
from harness.sweeps.goal.search import first_true, most_calls

SHAPE = registry.shape("qwen-7b", "math")
GOAL = Goal(
    params=6 * 10**9, fits="16GiB", context=4096, requests=4, speedup=1.2, device="A100-80", concurrency=(1, 32)
)


def test_sizes_are_those_of_the_model_at_this_width() -> None:
    width = 15104
    params, fits, speed = size_conditions(GOAL, SHAPE, width)
    left = SHAPE.parameters - 28 * (SHAPE.intermediate_size - width) * 3 * SHAPE.hidden_size
    narrow = replace(SHAPE, parameters=left, intermediate_size=width)
    assert params.value == left and params.miss == pytest.approx(left / 6e9 - 1) and not params.met
    assert fits.limit == 4 * 4096 and fits.value == kv_capacity_tokens(narrow, find_device("16GiB"))
    device = find_device("A100-80")
    gains = []
    for level in (1, 32):
        old, new = (decode_work(shape, level, 4096, 2) for shape in (SHAPE, narrow))
        gains.append((old.seconds(device) or 0) / (new.seconds(device) or 1))
    assert speed.value == pytest.approx(min(gains)) and gains[0] != gains[1]


def test_a_step_needs_room_for_the_widest_layer() -> None:
    """28 layers of mean width 12000: what a device holds goes by the widest, what the weights take by the sum."""
    widths = (18944, *[12000] * 26, 5056)
    _, fits, _ = layer_conditions(GOAL, SHAPE, widths)
    left = SHAPE.parameters - (26 * (18944 - 12000) + 18944 - 5056) * 3 * SHAPE.hidden_size
    formed = replace(SHAPE, parameters=left, intermediate_size=18944)
    assert fits.value == kv_capacity_tokens(formed, find_device("16GiB"))
    even = layer_conditions(GOAL, SHAPE, [12000] * 28)
    assert even == size_conditions(GOAL, SHAPE, 12000) and 0 < fits.value < even[1].value


@given(st.integers(1, 147), st.integers(1, 147))
def test_a_narrower_model_keeps_every_size_that_a_wider_one_keeps(one: int, other: int) -> None:
    narrow, wide = (size_conditions(GOAL, SHAPE, 128 * steps) for steps in sorted((one, other)))
    for below, above in zip(narrow, wide, strict=True):
        assert below.met or not above.met
        assert below.miss <= above.miss


def test_a_limit_is_missed_by_a_share_of_it() -> None:
    assert (at_most("params", 150, 100).miss, at_most("params", 150, 100).met) == (0.5, False)
    assert (at_most("params", 100, 100).miss, at_most("params", 100, 100).met) == (0.0, True)
    assert (at_least("fits", 25, 100).miss, at_least("fits", 0, 100).miss) == (0.75, 1.0)
    assert at_least("speedup", 1.5, 1.5).met and not at_least("speedup", 1.49, 1.5).met


def test_the_bound_of_a_loss_is_exact_where_nothing_changes() -> None:
    """Clopper and Pearson's: the loss at which so many unchanged answers have the probability of the level."""
    for right in (0, 50, 100):
        same = [True] * right + [False] * (100 - right)
        assert (1 - loss_bound(same, same, 0.01)) ** 100 == pytest.approx(0.01)
    before, after = [True] * 90 + [False] * 10, [True] * 84 + [False] * 10 + [True] * 6
    assert 0 < loss_bound(before, after, 0.05) < loss_bound(before, after, 0.005)
    assert loss_bound(after, [False] * 100, 0.05) == pytest.approx(0.9, abs=0.06) and loss_bound([True], [False]) == 1


def test_each_task_has_its_own_limit_and_a_task_without_one_counts_for_nothing() -> None:
    same = ([True] * 400, [True] * 400)
    worse = ([True] * 400, [True] * 360 + [False] * 40)
    found = loss_conditions(Goal(max_loss=0.02), "a", {"a": same, "b": worse}, LEVEL)
    assert [(c.quantity, c.task, c.met) for c in found] == [("max-loss", "a", True)]
    found = loss_conditions(Goal(max_loss=0.02, off_target_loss=0.1), "a", {"a": same, "b": worse}, LEVEL)
    assert [(c.quantity, c.task, c.met) for c in found] == [("max-loss", "a", True), ("off-target-loss", "b", False)]


@pytest.mark.parametrize("limit", [0.01, 0.03, 0.1])
def test_fewer_items_than_are_asked_for_cannot_show_the_limit(limit: float) -> None:
    enough = least_items(limit, LEVEL / 6, 5000)
    assert enough is not None and least_bound(enough, LEVEL / 6) <= limit < least_bound(enough - 1, LEVEL / 6)
    assert least_items(limit, LEVEL / 6, enough - 1) is None


def test_a_measured_speedup_is_the_least_lower_end() -> None:
    def ratio(level: int, low: float | None) -> SpeedRatio:
        return SpeedRatio("x", "dense", level, "output_tok_s", 5, 1.4, low, 1.6, 1.0, 1.0)

    assert speed_condition(1.3, [ratio(1, 1.35), ratio(32, 1.31)]).met
    assert speed_condition(1.3, [ratio(1, 1.35), ratio(32, 1.29)]).value == 1.29
    assert not speed_condition(1.3, [ratio(1, None)]).met and not speed_condition(1.3, []).met


def test_a_model_that_has_lost_its_task_meets_no_goal() -> None:
    def conditions(metric: str, value: float) -> tuple[Condition, ...]:
        return right_conditions("t", EvalResult(40, metric, value, None, None, {}, None, None, 1.0, "samples"))

    assert [c.met for c in conditions("exact_match", 0.0)] == [False]
    assert [(c.met, c.value) for c in conditions("exact_match", 1 / 40)] == [(True, 1)]
    assert not conditions("perplexity", 3.5), "no item of a mean is right"


def test_nearest_is_what_misses_its_worst_condition_by_least() -> None:
    def candidate(name: str, *misses: float) -> Candidate:
        conditions = tuple(at_most("params", 100 * (1 + miss), 100) for miss in misses)
        return Candidate(name, "a", 1, 0.5, conditions)

    rows = [candidate("one", 0.0, 0.5), candidate("two", 0.3, 0.3), candidate("three", 0.1, 0.4)]
    assert nearest(rows).variant == "two"
    assert candidate("met", 0.0).met and not rows[0].met and rows[2].miss == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("items", "right", "limit", "gained"),
    [
        (300, 0.8, 0.05, 0.05),
        (237, 0.5, 0.01, 0.0),
        (78, 0.5, 0.03, 0.0),
        (500, 0.6, 0.01, 0.0),
        (1319, 0.75, 0.01, 0.0),
        (500, 0.8, 0.03, 0.0),
        (1319, 0.75, 0.01, 0.005),
    ],
)
def test_a_search_seldom_names_a_model_that_loses_more_than_the_limit(
    items: int, right: float, limit: float, gained: float
) -> None:
    """Simulated where it is worst: every width loses exactly the limit, so that each look may be a false one."""
    draw, widths, wrong, runs = np.random.default_rng(0), 31, 0, 1500
    level, count = LEVEL / most_calls(widths), round(right * items)
    before = np.arange(items) < count

    @functools.cache
    def passes(lost: int, won: int) -> bool:
        after = (np.arange(items) < count - lost) | (np.arange(items) >= items - won)
        return loss_bound(before.tolist(), after.tolist(), level) <= limit

    for _ in range(runs):
        lost = draw.binomial(count, (limit + gained) * items / count, widths)
        won = draw.binomial(items - count, gained * items / (items - count), widths)
        wrong += first_true(widths, lambda i, lost=lost, won=won: passes(int(lost[i]), int(won[i]))) is not None  # type: ignore[misc]
    assert wrong / runs <= LEVEL + 2 * (LEVEL * (1 - LEVEL) / runs) ** 0.5
