"""What a layer may become in each arm, and that plans within their shares keep the goal."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.core.types.goal import Goal
from harness.core.types.pruning import ModelShape
from harness.models.registry import shape
from harness.serving.cost_table import roofline_table, shape_with
from harness.serving.roofline import find_device
from harness.sweeps.goal.conditions import shape_conditions
from harness.sweeps.joint.arms import (
    ARMS,
    first_speedup,
    goal_shares,
    grid_choices,
    grid_table,
    next_speedup,
    of_arm,
    sizes_of_plan,
    to_measure,
)
from pruning.plan import floor_width
from pruning.search.choices import LayerChoice
from pruning.search.table import DamageTable

WHOLE = shape("tiny-math", "math")
GONE = LayerChoice(0, attention=False)
GOALS = [
    Goal(params=1_000_000),
    Goal(fits="2GiB", context=512, requests=4),
    Goal(fits="2x2GiB", context=512, requests=4),
    Goal(speedup=1.3, device="A100-80", context=256, concurrency=(1, 64)),
    Goal(speedup=1.2, device="A100-80", context=256, params=1_200_000),
]


@pytest.mark.parametrize("goal", GOALS, ids=lambda goal: goal.label)
@given(st.data())
def test_a_plan_whose_layers_share_the_limit_keeps_the_goal(goal: Goal, data: st.DataObject) -> None:
    """By the formulas that judge a candidate, which share nothing with the costs of single layers."""
    grid = grid_choices(WHOLE, 64, 0)
    table = roofline_table(WHOLE, find_device(goal.device), goal.concurrency, goal.context) if goal.device else None
    rows = data.draw(st.sampled_from((WHOLE.vocab_size, 320)))
    shares = goal_shares(goal, WHOLE, table, goal.speedup or 1.0, grid, rows)
    assert shares is not None and shares[0] == 0
    for attention in (True, False):
        kind = [i for i, choice in enumerate(grid) if choice.attention is attention]
        assert (np.diff(shares[kind]) > 0).all()
    layers = WHOLE.num_hidden_layers
    first = data.draw(st.sampled_from([i for i, choice in enumerate(grid) if choice.attention]))
    chosen = [first, *data.draw(st.lists(st.integers(0, len(grid) - 1), min_size=layers - 1, max_size=layers - 1))]
    choices = [grid[choice] for choice in chosen]
    met = all(c.met for c in shape_conditions(goal, WHOLE, shape_with(WHOLE, sizes_of_plan(choices, rows))))
    total = float(shares[chosen].sum())
    if total <= 1 - 1e-6:
        assert met
    elif goal.params and not goal.speedup and total > 1 + 1e-6:
        assert not met, "of one limit, the shares are exact"


SOME = (GONE, LayerChoice(64))


def test_limits_that_what_is_in_no_layer_breaks_leave_nothing() -> None:
    beside = WHOLE.parameters - WHOLE.num_hidden_layers * WHOLE.layer_parameters
    assert goal_shares(Goal(params=beside), WHOLE, None, 1.0, SOME, WHOLE.vocab_size) is None
    assert goal_shares(Goal(params=beside, speedup=1.1), WHOLE, None, 1.0, SOME, WHOLE.vocab_size) is None
    assert goal_shares(Goal(params=beside), WHOLE, None, 1.0, SOME, 320) is not None, "rows that go make room"


def of_size(size: int, attention_goes: bool = False) -> ModelShape:
    parameters = WHOLE.attention_parameters if attention_goes else 0
    return replace(WHOLE, intermediate_size=size, attention_parameters=parameters)


def widths_of(size: int, alignment: int, least: int) -> list[int]:
    return [choice.width for choice in grid_choices(of_size(size), alignment, least)]


def measured_widths(size: int, alignment: int) -> list[int]:
    return [choice.width for choice in to_measure(of_size(size), alignment)]


def test_where_attention_can_go_each_width_is_there_without_it_too() -> None:
    first, *others = grid_choices(of_size(512, attention_goes=True), 64, 0)
    assert first == GONE and {(c.width, c.attention) for c in others} == {
        (width, attention) for width in widths_of(512, 64, 0)[1:] for attention in (True, False)
    }
    extra = {*to_measure(of_size(512, attention_goes=True), 64)} - {*to_measure(of_size(512), 64)}
    assert extra == {LayerChoice(512, attention=False)}


@given(st.integers(1, 2000), st.integers(1, 128), st.integers(0, 2000))
def test_a_grid_has_aligned_widths_from_the_least_that_is_measured_to_the_whole(
    size: int, alignment: int, least: int
) -> None:
    alignment = min(alignment, size)
    assert (len(widths_of(size, alignment, 0)) > 2) is (alignment < size), "narrower layers are choices"
    grid = widths_of(size, alignment, min(least, size))
    assert grid[0] == 0 and grid[-1] == size and list(grid) == sorted(set(grid))
    smallest = max(min(least, size), min(w for w in measured_widths(size, alignment) if w))
    assert all(width % alignment == 0 and width >= smallest for width in grid[1:-1])
    assert 2 <= len(grid) <= 17


def test_of_few_aligned_widths_each_is_measured() -> None:
    found = {align: measured_widths(640, align) for align in (512, 320, 256)}
    assert found == {512: [512, 640, 0], 320: [320, 640, 0], 256: [256, 640, 0]}


@given(st.integers(1, 2000), st.integers(1, 128))
def test_the_least_width_is_measured_and_is_the_floor_of_other_plans_whose_layers_differ(
    size: int, alignment: int
) -> None:
    alignment = min(alignment, size)
    *widths, removed = to_measure(of_size(size), alignment)
    assert (widths[0].width, widths[-1].width) == (min(size, floor_width(size, alignment, 0)), size)
    assert removed.removed and widths == sorted(widths, key=lambda choice: choice.width)


def test_an_ffn_goes_down_to_an_eighth_or_to_the_least_width_that_is_asked_for() -> None:
    """SmolLM2: an eighth of 1536 is 192, and 256 the next multiple of 128."""
    assert measured_widths(1536, 128) == [256, 384, 768, 1152, 1536, 0]
    assert [widths_of(1536, 128, least)[1] for least in (0, 64, 300, 512)] == [256, 256, 384, 512]


def measured() -> DamageTable:
    choices = to_measure(of_size(512, attention_goes=True), 64)
    nats = np.array([[(1 - c.width / 512) ** 2 if c.attention else 0.25 for c in choices]] * 3)
    nats[:, -1] = [1.0, 7.0, np.inf]
    return DamageTable(choices, nats)


def test_damage_between_measured_widths_is_theirs_at_the_widths_and_a_removed_layer_keeps_its_own() -> None:
    """Of damage that is a square, the root is linear: the grid's values are exact."""
    grid = (GONE, *map(LayerChoice, (64, 128, 320, 512)), *(LayerChoice(width, False) for width in (128, 512)))
    found = grid_table(measured(), grid)
    assert found.choices == grid
    knots = [choice.width for choice in measured().choices if choice.width]
    inside = [i for i, choice in enumerate(grid) if choice.width >= min(knots)]
    expected = [(1 - grid[i].width / 512) ** 2 + 0.25 * (not grid[i].attention) for i in inside]
    np.testing.assert_allclose(found.nats[1, inside], expected, atol=1e-12)
    assert found.nats[:, 0].tolist() == [np.inf, 7.0, np.inf]
    assert np.isinf(found.nats[0, -2:]).all(), "the first layer stays and keeps its attention"


def test_each_arm_has_its_choices_with_their_own_damage_and_cost() -> None:
    bare = LayerChoice(512, attention=False)
    grid = (GONE, LayerChoice(128), LayerChoice(256), LayerChoice(512), bare)
    table, shares = grid_table(measured(), grid), np.array([0.0, 0.2, 0.3, 0.5, 0.4])
    found: dict[str, Any] = {arm: of_arm(arm, table, shares) for arm in ARMS}
    choices = {arm: each.choices for arm, (each, _) in found.items()}
    assert choices == {"joint": grid, "ffn-only": grid[1:4], "depth-only": (grid[0], grid[3])}
    depth, costs = found["depth-only"]
    np.testing.assert_array_equal(depth.nats, table.nats[:, [0, 3]])
    np.testing.assert_array_equal(costs, [[0.0, 0.5]] * 3)


@pytest.mark.parametrize(
    ("asked", "measured_speedup", "expected"),
    [
        (1.5, 1.25, 1.725),
        (1.5, 1.49, 1.53),
        (1.6, 1.4, 1.6 * 1.5 / 1.4),
        (1.6, 1.5, 1.6),
        (1.6, 1.57, 1.6),
        (1.6, 1.6, 1.6 * 1.01 * 1.5 / 1.6),
        (1.61, 3.0, 1.4),
    ],
)
def test_the_next_speed_is_asked_for_by_what_is_missing_or_wasted_within_bounds(
    asked: float, measured_speedup: float, expected: float
) -> None:
    assert next_speedup(asked, 1.5, measured_speedup) == pytest.approx(expected)


def test_a_measured_goal_is_planned_for_with_a_margin_and_a_computed_one_without() -> None:
    assert first_speedup(Goal(speedup=1.5)) == pytest.approx(1.515)
    assert first_speedup(Goal(speedup=1.5, device="H100")) == 1.5 and first_speedup(Goal(params=1)) == 1
