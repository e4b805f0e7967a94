"""A layer's sums without a model: any split gives the same moments, and the sample is spread over all prompts."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from pruning.activations import LayerSums
from pruning.layer_walk import ScoredTokens, sample_slot
from pruning.token_means import TOKEN_STATISTICS


def added(sums: LayerSums, values: np.ndarray, seen: int, expected: int, lengths: np.ndarray | None = None) -> None:
    """Prompts' means of |h| [prompts, neurons]; the other statistics are twice, three times, four times as large."""
    means = torch.from_numpy(np.stack([values * factor for factor in range(1, len(TOKEN_STATISTICS) + 1)])).float()
    kept = [(row, slot) for row in range(len(values)) if (slot := sample_slot(seen + row, expected)) is not None]
    rows, slots = torch.tensor(kept, dtype=torch.long).reshape(-1, 2).T
    scored = torch.ones(len(values), dtype=torch.float64) if lengths is None else torch.from_numpy(lengths)
    sums.add(True, means, ScoredTokens(None, scored, None, rows, slots))


@given(st.lists(st.integers(1, 6), min_size=1, max_size=6), st.integers(0, 2**31))
def test_any_split_gives_the_same_moments(sizes: list[int], seed: int) -> None:
    rng, count = np.random.default_rng(seed), sum(sizes)
    values, lengths = rng.normal(3, 2, (count, 5)).astype(np.float32), rng.integers(1, 9, count).astype(np.float64)
    sums = LayerSums(5, {True: count, False: 0}, False, "cpu")
    for start, size in zip(np.cumsum([0, *sizes[:-1]]), sizes, strict=True):
        here = slice(start, start + size)
        added(sums, values[here], int(start), count, lengths[here])
    target, exact = sums.sums[0].numpy(), values.astype(np.float64)
    np.testing.assert_allclose(target[0], exact.mean(0))
    np.testing.assert_allclose(target[1], exact.var(0) * count, atol=1e-9)
    np.testing.assert_allclose(target[2], lengths @ exact)
    np.testing.assert_allclose(target[4], 3 * (lengths @ exact), rtol=1e-6)
    assert not sums.sums[1].any()


def test_the_sample_of_many_prompts_is_spread_evenly_over_them() -> None:
    """1000 prompts, in batches: the 256 that are kept are a quarter apart, from the first to the last."""
    sums = LayerSums(2, {True: 1000, False: 0}, False, "cpu")
    for start in range(0, 1000, 40):
        added(sums, np.arange(start, start + 40, dtype=np.float64)[:, None] * np.ones((1, 2)), start, 1000)
    kept = sums.sample[:, 0].numpy()
    assert len(kept) == 256 and len(set(kept.tolist())) == 256
    assert kept[0] < 4 and kept[-1] == 999 and (np.diff(kept) >= 3).all() and (np.diff(kept) <= 4).all()


def test_a_sample_of_few_prompts_is_all_of_them() -> None:
    sums = LayerSums(1, {True: 5, False: 3}, False, "cpu")
    added(sums, np.arange(5, dtype=np.float64)[:, None], 0, 5)
    assert sums.sample[:, 0].tolist() == [0, 1, 2, 3, 4, 0, 0, 0]
