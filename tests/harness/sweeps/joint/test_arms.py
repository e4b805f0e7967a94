"""What a layer may become in each arm, and that plans within their shares keep the goal."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.core.types.goal import Goal
from harness.models.registry import shape
from harness.serving.cost_table import roofline_table, shape_with
from harness.serving.roofline import find_device
from harness.sweeps.goal.conditions import shape_conditions
from harness.sweeps.joint.arms import (
    ARMS,
    goal_shares,
    grid_table,
    next_speedup,
    of_arm,
    sizes_of_widths,
    to_measure,
    width_grid,
)
from pruning.plan import floor_width
from pruning.search.choices import LayerChoice
from pruning.search.table import DamageTable

WHOLE = shape("tiny-math", "math")
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
    grid = width_grid(WHOLE.intermediate_size, 64, 0)
    table = roofline_table(WHOLE, find_device(goal.device), goal.concurrency, goal.context) if goal.device else None
    rows = data.draw(st.sampled_from((WHOLE.vocab_size, 320)))
    shares = goal_shares(goal, WHOLE, table, goal.speedup or 1.0, grid, rows)
    assert shares is not None and shares[0] == 0 and (np.diff(shares) > 0).all()
    layers = WHOLE.num_hidden_layers
    chosen = data.draw(st.lists(st.integers(0, len(grid) - 1), min_size=layers, max_size=layers).filter(any))
    widths = [grid[choice] for choice in chosen]
    met = all(c.met for c in shape_conditions(goal, WHOLE, shape_with(WHOLE, sizes_of_widths(widths, rows))))
    total = float(shares[chosen].sum())
    if total <= 1 - 1e-6:
        assert met
    elif goal.params and not goal.speedup and total > 1 + 1e-6:
        assert not met, "of one limit, the shares are exact"


def test_limits_that_what_is_in_no_layer_breaks_leave_nothing() -> None:
    beside = WHOLE.parameters - WHOLE.num_hidden_layers * WHOLE.layer_parameters
    assert goal_shares(Goal(params=beside), WHOLE, None, 1.0, (0, 64), WHOLE.vocab_size) is None
    assert goal_shares(Goal(params=beside, speedup=1.1), WHOLE, None, 1.0, (0, 64), WHOLE.vocab_size) is None
    assert goal_shares(Goal(params=beside), WHOLE, None, 1.0, (0, 64), 320) is not None, "rows that go make room"


@given(st.integers(1, 2000), st.integers(1, 128), st.integers(0, 2000))
def test_a_grid_has_aligned_widths_from_the_least_that_is_measured_to_the_whole(
    size: int, alignment: int, least: int
) -> None:
    alignment = min(alignment, size)
    assert (len(width_grid(size, alignment, 0)) > 2) is (alignment < size), "narrower layers are choices"
    grid = width_grid(size, alignment, min(least, size))
    assert grid[0] == 0 and grid[-1] == size and list(grid) == sorted(set(grid))
    smallest = max(min(least, size), min(choice.width for choice in to_measure(size, alignment) if choice.width))
    assert all(width % alignment == 0 and width >= smallest for width in grid[1:-1])
    assert 2 <= len(grid) <= 17


def test_of_few_aligned_widths_each_is_measured() -> None:
    found = {align: [choice.width for choice in to_measure(640, align)] for align in (512, 320, 256)}
    assert found == {512: [512, 640, 0], 320: [320, 640, 0], 256: [256, 640, 0]}


@given(st.integers(1, 2000), st.integers(1, 128))
def test_the_least_width_is_measured_and_is_the_floor_of_other_plans_whose_layers_differ(
    size: int, alignment: int
) -> None:
    alignment = min(alignment, size)
    *widths, removed = to_measure(size, alignment)
    assert (widths[0].width, widths[-1].width) == (min(size, floor_width(size, alignment, 0)), size)
    assert removed.removed and widths == sorted(widths, key=lambda choice: choice.width)


def test_an_ffn_goes_down_to_an_eighth_or_to_the_least_width_that_is_asked_for() -> None:
    """SmolLM2: an eighth of 1536 is 192, and 256 the next multiple of 128."""
    assert [choice.width for choice in to_measure(1536, 128)] == [256, 384, 768, 1152, 1536, 0]
    assert [width_grid(1536, 128, least)[1] for least in (0, 64, 300, 512)] == [256, 256, 384, 512]


def measured() -> DamageTable:
    choices = to_measure(512, 64)
    nats = np.array([[0.0 if c.width == 512 else (1 - c.width / 512) ** 2 for c in choices]] * 3)
    nats[:, -1] = [1.0, 7.0, np.inf]
    return DamageTable(choices, nats)


def test_damage_between_measured_widths_is_theirs_at_the_widths_and_a_removed_layer_keeps_its_own() -> None:
    """Of damage that is a square, the root is linear: the grid's values are exact."""
    grid = (0, 64, 128, 320, 512)
    found = grid_table(measured(), grid)
    assert [choice.width for choice in found.choices] == list(grid) and found.choices[0].removed
    knots = [choice.width for choice in measured().choices if choice.width]
    inside = [i for i, width in enumerate(grid) if width >= min(knots)]
    expected = [(1 - grid[i] / 512) ** 2 for i in inside]
    np.testing.assert_allclose(found.nats[1, inside], expected, atol=1e-12)
    assert found.nats[:, 0].tolist() == [1.0, 7.0, np.inf]


def test_each_arm_has_its_choices_with_their_own_damage_and_cost() -> None:
    grid = (0, 128, 256, 512)
    table, shares = grid_table(measured(), grid), np.array([0.0, 0.2, 0.3, 0.5])
    found: dict[str, Any] = {arm: of_arm(arm, table, shares) for arm in ARMS}
    widths = {arm: [choice.width for choice in each.choices] for arm, (each, _) in found.items()}
    assert widths == {"joint": [0, 128, 256, 512], "ffn-only": [128, 256, 512], "depth-only": [0, 512]}
    depth, costs = found["depth-only"]
    np.testing.assert_array_equal(depth.nats, table.nats[:, [0, 3]])
    np.testing.assert_array_equal(costs, [[0.0, 0.5]] * 3)
    assert depth.choices[0] == LayerChoice(0, removed=True)


@pytest.mark.parametrize(
    ("asked", "measured_speedup", "expected"), [(1.5, 1.25, 1.725), (1.5, 1.49, 1.53), (1.6, 1.4, 1.6 * 1.5 / 1.4)]
)
def test_a_missed_speed_is_asked_for_by_what_is_missing_within_bounds(
    asked: float, measured_speedup: float, expected: float
) -> None:
    assert next_speedup(asked, 1.5, measured_speedup) == pytest.approx(expected)
