"""Statistics that were put together against those of all prompts at once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.core.types.pruning import ActivationStats
from pruning.group_statistics import contribution, largest_contribution, merged, some_prompts, specificity_scores
from pruning.scores import score
from tests.support.activations import group_of


@given(st.integers(0, 2**32 - 1), st.lists(st.integers(1, 9), min_size=1, max_size=4))
def test_merged_groups_are_one_group(seed: int, sizes: list[int]) -> None:
    rng = np.random.default_rng(seed)
    prompts = [rng.gamma(2, 1, (n, 2, 5)) for n in sizes]
    tokens = [rng.standard_normal((3 * n, 2, 5)) for n in sizes]
    found = merged([group_of(p, t) for p, t in zip(prompts, tokens, strict=True)])
    whole = group_of(np.concatenate(prompts), np.concatenate(tokens))
    assert (found.tokens, found.prompts.count) == (whole.tokens, whole.prompts.count)
    for name in ("mean_abs", "mean", "mean_square", "positive", "sample"):
        np.testing.assert_allclose(getattr(found, name), getattr(whole, name), rtol=1e-10, atol=1e-12, err_msg=name)
    np.testing.assert_allclose(found.prompts.mean, whole.prompts.mean, rtol=1e-10)
    np.testing.assert_allclose(found.prompts.m2, whole.prompts.m2, rtol=1e-8, atol=1e-10)


def test_s_against_several_groups_is_s_against_all_of_their_prompts() -> None:
    rng = np.random.default_rng(3)
    target, *others = ([rng.gamma(2, 1, (n, 2, 6)), rng.standard_normal((2 * n, 2, 6))] for n in (7, 5, 9))
    norm = rng.random((2, 6))
    distractor = group_of(*(np.concatenate(both) for both in zip(*others, strict=True)))
    whole = ActivationStats(group_of(*target), distractor, norm, None, "")
    found = specificity_scores(group_of(*target), [group_of(*other) for other in others], norm)
    np.testing.assert_allclose(found, score(whole, ["smd"])["smd"], rtol=1e-5)


def test_some_prompts_are_drawn_from_all() -> None:
    rng = np.random.default_rng(5)
    prompts = rng.gamma(2, 1, (40, 1, 4))
    group = group_of(prompts, rng.standard_normal((50, 1, 4)))
    few = some_prompts(group, 6, seed=1).prompts
    kept = group.sample.astype(np.float64)
    assert few.count == 6
    assert not np.allclose(few.mean, kept[:6].mean(axis=0)), "not the first ones, which are the shortest"
    all_of_them = some_prompts(group, 40, seed=1).prompts
    np.testing.assert_allclose(all_of_them.mean, kept.mean(axis=0))
    np.testing.assert_allclose(all_of_them.m2, kept.var(axis=0) * 40)


def test_contributions_by_hand() -> None:
    group = group_of(np.array([[[1.0, 4.0]], [[3.0, 2.0]]]), np.array([[[1.0, -2.0]], [[-3.0, 4.0]]]))
    norm = np.array([[2.0, 0.5]])
    assert contribution(group, norm) == pytest.approx(np.array([[4.0, 1.5]]))
    assert largest_contribution(group, norm) == pytest.approx(np.array([[6.0, 2.0]]))
