"""The integer programme against all combinations of small tables."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pruning.search.programme import cheapest


def every(nats: np.ndarray, costs: np.ndarray, least: float, most: float) -> float | None:
    """The least sum of damages over all combinations within the bounds."""
    layers = range(len(nats))
    sums = [
        sum(nats[layer, choice] for layer, choice in zip(layers, chosen, strict=True))
        for chosen in itertools.product(range(nats.shape[1]), repeat=len(nats))
        if least <= sum(costs[layer, choice] for layer, choice in zip(layers, chosen, strict=True)) <= most
    ]
    found = min(sums, default=np.inf)
    return float(found) if np.isfinite(found) else None


@settings(max_examples=40)
@given(
    layers=st.integers(1, 4),
    choices=st.integers(1, 4),
    seed=st.integers(0, 10_000),
    budget=st.integers(0, 40),
    slack=st.one_of(st.none(), st.integers(0, 5)),
    size=st.sampled_from([1e-6, 1.0, 1e5]),
)
def test_the_least_of_all_combinations(
    layers: int, choices: int, seed: int, budget: int, slack: int | None, size: float
) -> None:
    rng = np.random.default_rng(seed)
    nats = rng.uniform(0, 1, (layers, choices)) * size
    nats[rng.uniform(size=nats.shape) < 0.1] = np.inf
    costs = rng.integers(0, 15, (layers, choices)).astype(float)
    least = -np.inf if slack is None else float(budget - slack)
    found, expected = cheapest(nats, costs, budget, least), every(nats, costs, least, budget)
    assert (found is None) == (expected is None)
    if found is not None and expected is not None:
        rows = range(layers)
        assert nats[rows, found].sum() == pytest.approx(expected, rel=1e-6)
        assert least - 1e-4 <= costs[rows, found].sum() <= budget + 1e-4


def test_a_budget_below_the_cheapest_has_no_answer() -> None:
    costs = np.array([[2.0, 3.0], [4.0, 1.0]])
    assert cheapest(np.zeros((2, 2)), costs, 2.9) is None
    assert cheapest(np.zeros((2, 2)), costs, 3.0) == [0, 1]
    assert cheapest(np.zeros((2, 2)), costs, 10.0, at_least=8.0) is None
