"""Widths by search on a probe whose damage is a known function of the widths."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pruning.search.choices import LayerChoice
from pruning.search.table import DamageTable
from pruning.search.widths import measured_choices, search_widths

WHOLE = 96


class Quadratic:
    """Damage of layer i: need[i] * (removed share)^2; layers add up, and the last two hurt each other."""

    whole = LayerChoice(WHOLE)

    def __init__(self, need: Sequence[float], together: float = 0.0) -> None:
        self.need, self.together, self.layers, self.looks = np.array(need), together, len(need), 0

    def nats(self, choices: Sequence[LayerChoice]) -> float:
        self.looks += 1
        share = np.array([1 - choice.width / WHOLE for choice in choices])
        return float((self.need * share**2).sum() + self.together * share[-1] * share[-2])

    def table(self, alignment: int) -> DamageTable:
        choices = measured_choices(WHOLE, alignment)
        share = np.array([1 - choice.width / WHOLE for choice in choices])
        return DamageTable(choices, self.need[:, None] * share**2)


def test_the_widths_are_the_best_of_all_with_their_sum() -> None:
    """Where layers add up: of every combination of multiples of the alignment from the floor to the whole."""
    probe = Quadratic([1, 2, 4, 4])
    found = search_widths(probe, probe.table(8), 48, 8, 16)  # type: ignore[arg-type]
    widths = np.array([each for each in itertools.product(range(16, WHOLE + 1, 8), repeat=4) if sum(each) == 4 * 48])
    assert found.nats == pytest.approx((probe.need * (1 - widths / WHOLE) ** 2).sum(axis=1).min())
    assert found.nats == probe.nats(list(map(LayerChoice, found.widths))) < found.uniform_nats


def test_exchanges_find_what_layers_do_to_each_other() -> None:
    alone, both = Quadratic([1, 1, 1]), Quadratic([1, 1, 1], together=2.0)
    assert search_widths(alone, alone.table(8), 48, 8, 16).widths == (48, 48, 48)  # type: ignore[arg-type]
    found = search_widths(both, both.table(8), 48, 8, 16)  # type: ignore[arg-type]
    assert sum(found.widths) == 3 * 48 and found.widths[0] < 48 and found.nats < found.uniform_nats


@settings(max_examples=20)
@given(
    layers=st.integers(2, 6),
    alignment=st.sampled_from([1, 4, 7, 16]),
    share=st.floats(0.2, 1.0),
    seed=st.integers(0, 1000),
)
def test_totals_floors_and_looks(layers: int, alignment: int, share: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    probe = Quadratic(rng.uniform(0, 1, layers), together=rng.uniform(0, 2))
    floor = -(-WHOLE // 8 // alignment) * alignment
    uniform = max(floor, int(share * WHOLE) // alignment * alignment)
    found = search_widths(probe, probe.table(alignment), uniform, alignment, floor, looks=9)  # type: ignore[arg-type]
    assert sum(found.widths) == layers * uniform and probe.looks <= 9
    assert all(floor <= width <= WHOLE and width % alignment == 0 for width in found.widths)
    assert found.nats <= found.uniform_nats


def test_a_search_that_finds_nothing_better_is_uniform() -> None:
    class Even(Quadratic):
        def nats(self, choices: Sequence[LayerChoice]) -> float:
            self.looks += 1
            return float(np.ptp([choice.width for choice in choices]))

    probe = Even([1, 2, 4, 4])
    found = search_widths(probe, probe.table(8), 48, 8, 16, looks=6)  # type: ignore[arg-type]
    assert found.widths == (48,) * 4 and found.nats == 0


@pytest.mark.parametrize(("size", "alignment"), [(96, 16), (96, 1), (1536, 128), (640, 16), (100, 16), (20, 16)])
def test_measured_widths_reach_from_an_eighth_to_the_whole(size: int, alignment: int) -> None:
    widths = [choice.width for choice in measured_choices(size, alignment)]
    assert widths == sorted(set(widths)) and widths[-1] == size and len(widths) <= 9
    assert widths[0] == min(size, -(-(size // 8) // alignment) * alignment)
    assert all(width % alignment == 0 for width in widths[:-1])
