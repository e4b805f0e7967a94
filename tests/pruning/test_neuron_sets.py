"""Sets of neurons: their sizes, what they share, and what they are matched on."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.core.errors import UsageError
from harness.core.types.pruning import NeuronScores
from pruning.neuron_sets import difference, largest, matched, random_set, top
from pruning.plan import PlanRequest, make_plan

seeds = st.integers(0, 2**32 - 1)


@given(seeds, st.integers(0, 20))
def test_top_is_what_reverse_pruning_removes(seed: int, count: int) -> None:
    """Equal scores included: they are drawn from few values."""
    scores = np.random.default_rng(seed).integers(0, 6, (3, 40)).astype(np.float32)
    table = NeuronScores({"smd": scores}, "m", "0" * 16, "all", "0" * 16)
    plan = make_plan(table, PlanRequest(count / 40, method="reverse", metric="smd"))
    assert [np.flatnonzero(~row).tolist() for row in top(scores, count)] == [keep.tolist() for keep in plan.keep]


def test_largest_looks_at_all_layers_and_only_at_the_set() -> None:
    values = np.array([[1.0, 9.0, 3.0], [8.0, 2.0, 7.0]])
    among = np.array([[True, False, True], [True, True, True]])
    assert np.argwhere(largest(values, 2, among)).tolist() == [[1, 0], [1, 2]]
    assert largest(values, 10, among).sum() == 5


def test_random_sets_differ_by_number_and_have_a_size() -> None:
    sets = [random_set((4, 50), 7, number) for number in range(20)]
    assert all((one.sum(axis=1) == 7).all() for one in sets)
    assert len({one.tobytes() for one in sets}) == 20
    assert abs(np.mean(sets, axis=0).mean() - 7 / 50) < 1e-9


@given(seeds, st.booleans())
def test_a_matched_set_is_another_one_of_the_same_size(seed: int, by_layer: bool) -> None:
    rng = np.random.default_rng(seed)
    values, chosen = rng.gamma(1, 1, (3, 60)), top(rng.random((3, 60)), int(rng.integers(1, 31)))
    found = matched(chosen, values, seed, by_layer)
    assert not (found & chosen).any() and found.sum() == chosen.sum()
    if by_layer:
        assert (found.sum(axis=1) == chosen.sum(axis=1)).all()
    assert (found == matched(chosen, values, seed, by_layer)).all()


def test_a_match_is_among_the_five_nearest() -> None:
    """One neuron of value 50 among 0, 1, .. 99: each of its five neighbours is taken at times, and no other."""
    values, chosen = np.arange(100.0)[None], np.zeros((1, 100), dtype=bool)
    chosen[0, 50] = True
    found = {int(np.flatnonzero(matched(chosen, values, seed, True))[0]) for seed in range(200)}
    assert found <= {47, 48, 49, 51, 52, 53} and len(found) == 5


def test_matching_in_total_follows_the_value_into_other_layers() -> None:
    values = np.stack([np.full(40, 10.0), np.full(40, 1.0)])
    values[1, :4] = 10.0  # the large ones of the second layer, whose like is in the first
    chosen = np.zeros(values.shape, dtype=bool)
    chosen[1, :4] = True
    assert matched(chosen, values, 0, by_layer=False)[0].sum() == 4
    assert matched(chosen, values, 0, by_layer=True)[1].sum() == 4


def test_more_than_half_has_no_match() -> None:
    with pytest.raises(UsageError, match="more than half"):
        matched(np.array([[True, True, False]]), np.ones((1, 3)), 0, by_layer=True)


def test_the_difference_leaves_out_what_matters_elsewhere() -> None:
    """Important here in falling order 0, 1, 2, ...; elsewhere the even ones are the important half."""
    here = -np.arange(20.0)[None]
    elsewhere = np.where(np.arange(20) % 2 == 0, 100.0, 0.0)[None] + here
    assert np.flatnonzero(difference(here, elsewhere, 3)).tolist() == [1, 3, 5]
    assert not difference(here, here, 3).any(), "nothing matters here alone"
