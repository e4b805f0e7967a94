"""The search against every oracle that is monotone in the width: it finds the narrowest that passes, in the looks that
the bounds were corrected for.
"""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from harness.sweeps.goal.search import first_true, most_calls, most_looks, narrowest


@given(st.integers(0, 200), st.integers(0, 200))
def test_bisection_finds_the_first_that_passes_in_the_calls_it_promises(count: int, first: int) -> None:
    asked: list[int] = []

    def passes(index: int) -> bool:
        asked.append(index)
        return index >= first

    assert first_true(count, passes) == (first if first < count else None)
    assert len(asked) <= most_calls(count) == math.ceil(math.log2(count + 1))
    assert len(set(asked)) == len(asked)
    if count and first >= count:
        assert asked[-1] == count - 1, "the likeliest candidate of a search without success"


@given(st.integers(1, 120), st.lists(st.integers(0, 130), min_size=1, max_size=4))
def test_several_ways_give_the_one_that_reaches_the_narrowest(count: int, reaches: list[int]) -> None:
    asked: list[tuple[int, int]] = []

    def passes(way: int, index: int) -> bool:
        asked.append((way, index))
        return index >= reaches[way]

    able = [reach for reach in reaches if reach < count]
    expected = (reaches.index(min(able)), min(able)) if able else None
    assert narrowest(len(reaches), count, passes) == expected
    assert len(asked) <= most_looks(len(reaches), count)


def test_a_further_way_that_reaches_no_farther_takes_one_look() -> None:
    asked: list[tuple[int, int]] = []

    def passes(way: int, index: int) -> bool:
        asked.append((way, index))
        return index >= 10

    assert narrowest(2, 100, passes) == (0, 10)
    assert [index for way, index in asked if way == 1] == [9]
