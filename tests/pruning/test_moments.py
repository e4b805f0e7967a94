"""Running sums without a model: any split gives the same moments, and the sample is spread over all prompts."""

from __future__ import annotations

from functools import reduce

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pruning.activations import _Group, merge, moments_of


@given(st.lists(st.integers(1, 6), min_size=1, max_size=6), st.integers(0, 2**31))
def test_any_split_gives_the_same_moments(sizes: list[int], seed: int) -> None:
    values = np.random.default_rng(seed).normal(3, 2, (sum(sizes), 2, 5))
    parts = np.split(values, np.cumsum(sizes)[:-1])
    merged, whole = reduce(merge, map(moments_of, parts)), moments_of(values)
    assert merged.count == len(values)
    np.testing.assert_allclose(merged.mean, values.mean(0))
    np.testing.assert_allclose(merged.m2, values.var(0) * len(values), atol=1e-9)
    np.testing.assert_allclose(whole.m2, merged.m2, atol=1e-9)


def test_the_sample_of_many_prompts_is_spread_evenly_over_them() -> None:
    """1000 prompts, in batches: the 256 that are kept are a quarter apart, from the first to the last."""
    group = _Group(1, 2, 1000)
    for start in range(0, 1000, 40):
        means = np.arange(start, start + 40, dtype=np.float64)[:, None, None] * np.ones((1, 1, 2))
        names = ("mean_abs", "mean", "mean_square", "positive", "gate_open")
        group.add(dict.fromkeys(names, means), np.ones(40))
    kept = group.finish(gate=False).sample[:, 0, 0]
    assert len(kept) == 256 and len(set(kept.tolist())) == 256
    assert kept[0] < 4 and kept[-1] == 999 and (np.diff(kept) >= 3).all() and (np.diff(kept) <= 4).all()


def test_a_sample_of_few_prompts_is_all_of_them() -> None:
    group = _Group(1, 1, 5)
    means = np.arange(5, dtype=np.float64)[:, None, None]
    group.add(dict.fromkeys(("mean_abs", "mean", "mean_square", "positive", "gate_open"), means), np.ones(5))
    assert group.finish(gate=False).sample[:, 0, 0].tolist() == [0, 1, 2, 3, 4]
