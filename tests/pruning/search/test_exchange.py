"""Exchanges on a probe whose damage is a known function of the choices."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from pruning.search.choices import LayerChoice
from pruning.search.exchange import improve
from pruning.search.table import DamageTable

CHOICES = (LayerChoice(0, attention=False), LayerChoice(8), LayerChoice(16))
COSTS = np.array([[0.0, 1.0, 2.0]] * 4)
ALONE = np.array([[3.0, 1.0, 0.0], [3.0, 1.0, 0.0], [2.0, 1.0, 0.0], [2.5, 1.5, 0.0]])


class Interacting:
    """Damages add up, but for layers 0 and 2: what one of them loses counts fourfold where the other loses too."""

    def __init__(self) -> None:
        self.asked: list[tuple[LayerChoice, ...]] = []

    def nats(self, choices: Sequence[LayerChoice]) -> float:
        self.asked.append(tuple(choices))
        alone = [float(ALONE[layer, CHOICES.index(choice)]) for layer, choice in enumerate(choices)]
        return sum(alone) + 3 * min(alone[0], alone[2])


def improved(start: list[int], looks: int, **bounds: Any) -> tuple[list[int], float, Interacting]:
    probe = Interacting()
    found, nats = improve(probe, DamageTable(CHOICES, ALONE), COSTS, 5.0, start, looks, **bounds)  # type: ignore[arg-type]
    return found, nats, probe


def test_exchanges_find_what_single_changes_do_not_say() -> None:
    """The start is the best by the table; the best of all combinations needs another pair of layers."""
    found, nats, probe = improved([1, 2, 1, 1], 60)
    within = (chosen for chosen in itertools.product(range(3), repeat=4) if sum(COSTS[range(4), list(chosen)]) <= 5)
    best = min(probe.nats([CHOICES[c] for c in chosen]) for chosen in within)
    assert nats == best == probe.nats([CHOICES[c] for c in found]) < probe.nats([CHOICES[c] for c in (1, 2, 1, 1)])


def test_no_more_looks_than_given_and_none_twice() -> None:
    for looks in (1, 2, 7):
        _, _, probe = improved([0, 2, 1, 2], looks)
        assert len(probe.asked) == len(set(probe.asked)) == looks


def test_the_most_promising_by_the_table_is_measured_first() -> None:
    """From layer 3 removed: keeping half of it for half of layer 1 gains nothing by the table; less width in layer 1
    alone would cost 1.
    """
    _, _, probe = improved([2, 2, 1, 0], 2, at_least=5.0)
    changes = {
        chosen: ALONE[range(4), list(chosen)].sum()
        for chosen in itertools.product(range(3), repeat=4)
        if sum(COSTS[range(4), list(chosen)]) == 5 and 1 <= sum(np.array(chosen) != (2, 2, 1, 0)) <= 2
    }
    measured = tuple(CHOICES.index(choice) for choice in probe.asked[1])
    assert changes[measured] == min(changes.values())


def test_every_measurement_is_within_the_bounds() -> None:
    _, _, probe = improved([1, 2, 1, 1], 60, at_least=4.0)
    sums = [sum(choice.width for choice in asked) / 8 for asked in probe.asked]
    assert min(sums) >= 4 and max(sums) <= 5 and len(sums) > 10


def test_choices_that_overflow_are_never_measured() -> None:
    probe, nats = Interacting(), ALONE.copy()
    nats[1, 0] = np.inf
    improve(probe, DamageTable(CHOICES, nats), COSTS, 5.0, [1, 2, 1, 1], 100)  # type: ignore[arg-type]
    assert all(asked[1] != CHOICES[0] for asked in probe.asked)
