"""Shares of a loss: their interval against simulation, and at the edges."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.core.loss_shares import loss, rest_of, scaled, share_of

unit = st.floats(0.01, 1.0)


def test_loss_is_what_is_missing() -> None:
    before, after = [True] * 8 + [False] * 2, [[True] * 4 + [False] * 6]
    value, low, high = loss(before, after)
    assert value == pytest.approx(0.4) and 0 < low < value < high < 1


@given(unit, unit, unit, unit, unit, unit)
def test_the_share_lies_in_its_interval(x: float, y: float, a: float, b: float, c: float, d: float) -> None:
    part, whole = (x - 0.5, x - 0.5 - a, x - 0.5 + b), (y + 0.1, max(0.05, y + 0.1 - c), y + 0.1 + d)
    value, low, high = share_of(part, whole)
    assert low <= value <= high
    assert value == pytest.approx(part[0] / whole[0])
    assert rest_of((value, low, high)) == (1 - value, 1 - high, 1 - low)


def test_scaling_both_parts_changes_nothing() -> None:
    part, whole = (0.2, 0.1, 0.35), (0.8, 0.7, 0.9)
    assert share_of(scaled(part, 0.5), scaled(whole, 0.5)) == pytest.approx(share_of(part, whole))


def test_a_share_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="above 0"):
        share_of((0.1, 0.0, 0.2), (0.1, -0.1, 0.3))


@pytest.mark.parametrize(("kept_with_part", "kept_with_whole"), [(0.6, 0.1), (0.95, 0.05), (0.1, 0.1)])
def test_the_interval_covers_the_true_share(kept_with_part: float, kept_with_whole: float) -> None:
    """Items that were right before stay right with these probabilities, under two interventions; 300 data sets."""
    rng = np.random.default_rng(7)
    truth = (1 - kept_with_part) / (1 - kept_with_whole)
    covered = 0
    for _ in range(300):
        before = rng.random(120) < 0.97
        part, whole = (before & (rng.random(120) < kept) for kept in (kept_with_part, kept_with_whole))
        _, low, high = share_of(loss(before.tolist(), [part.tolist()]), loss(before.tolist(), [whole.tolist()]))
        covered += low <= truth <= high
    assert covered >= 0.93 * 300


def test_a_share_has_a_width_where_all_items_agree() -> None:
    before, gone = [True] * 50, [[False] * 50]
    value, low, high = share_of(loss(before, gone), loss(before, gone))
    assert value == 1 and low < 1 < high
    few = loss([True] * 40, [[False] * 5 + [True] * 35])
    assert few[2] > 2 * few[0], "so wide that the formula has no lower end"
    value, low, high = share_of(few, few)
    assert value == 1 and 0 < low < 1 < high
