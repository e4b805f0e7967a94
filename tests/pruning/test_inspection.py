"""Whereabouts, agreement and stability against counts made by hand, scipy, and cases whose answer is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import rankdata, spearmanr

from harness.core.types.pruning import ActivationStats
from pruning.inspection import FROM_PROMPTS, agreement, overlap, ranks_of, removed_by, share_per_layer, stability
from tests.support.activations import stats_of


def test_whereabouts_are_parts_of_layers() -> None:
    scores = np.array([[9.0, 8, 7, 6, 0], [5, 4, 3, 2, 1]])
    found = share_per_layer(scores, share=0.4)
    assert found == {"highest": [0.8, 0.0], "lowest": [0.2, 0.6]}


@given(st.integers(1, 5), st.integers(10, 40), st.integers(0, 99))
def test_all_parts_sum_to_the_share(layers: int, width: int, seed: int) -> None:
    scores = np.random.default_rng(seed).normal(size=(layers, width))
    for part in share_per_layer(scores, 0.2).values():
        assert sum(part) * width == pytest.approx(max(1, round(0.2 * scores.size)))


@given(st.integers(0, 200), st.sampled_from([0.1, 0.25, 0.5]))
def test_agreement_is_spearmans_and_the_common_part(seed: int, ratio: float) -> None:
    rng = np.random.default_rng(seed)
    a = rng.integers(0, 8, size=(3, 20)).astype(float)  # with ties
    b = a + rng.normal(size=a.shape)
    found = agreement({"b": b, "a": a}, ratio)
    assert found["metrics"] == ["a", "b"]
    expected = np.mean([spearmanr(a[i], b[i]).statistic for i in range(3)])
    assert found["rank_correlation"][0][1] == pytest.approx(expected)
    assert found["rank_correlation"][1][1] == pytest.approx(1.0) and found["overlap"][0][0] == 1.0
    count = round(ratio * 20)
    common = np.mean(
        [len({*np.argsort(a[i], kind="stable")[:count]} & {*np.argsort(b[i], kind="stable")[:count]}) for i in range(3)]
    )
    assert found["overlap"][0][1] == pytest.approx(common / count)


def test_a_layer_without_any_difference_counts_as_no_agreement() -> None:
    flat, other = np.zeros((1, 10)), np.arange(10.0)[None]
    assert agreement({"a": flat, "b": other}, 0.3)["rank_correlation"][0][1] == 0.0
    assert overlap(removed_by(other, 0.0), removed_by(flat, 0.0)) == 1.0


def test_prompts_that_are_all_alike_give_one_ranking_and_noise_many() -> None:
    """The same prompt over and over: contrib cannot change. Pure noise: what S removes is another set every time."""
    rng = np.random.default_rng(0)
    noise = rng.random((24, 2, 30)).astype(np.float32)
    alike = np.repeat(noise[:1], 12, axis=0)
    calm = stability(with_samples(alike, noise), resamples=5)
    assert calm["contrib"]["rank_correlation"][1] == pytest.approx(1.0) and calm["contrib"]["overlap"]["0.3"] == [
        1.0,
        1.0,
    ]
    wild = stability(with_samples(noise, rng.random((24, 2, 30)).astype(np.float32)), resamples=5)
    assert set(wild) == set(FROM_PROMPTS)
    assert wild["smd"]["rank_correlation"][0] < 0.95 and wild["smd"]["overlap"]["0.1"][0] < 0.9


def with_samples(target: np.ndarray, distractor: np.ndarray) -> ActivationStats:
    stats = stats_of(target, distractor)
    return replace(
        stats, target=replace(stats.target, sample=target), distractor=replace(stats.distractor, sample=distractor)
    )


@given(st.integers(0, 2**31), st.integers(1, 4), st.integers(1, 30), st.integers(1, 8))
def test_equal_scores_share_the_mean_of_their_ranks(seed: int, layers: int, width: int, values: int) -> None:
    scores = np.random.default_rng(seed).integers(0, values, (layers, width)).astype(np.float32)
    np.testing.assert_array_equal(ranks_of(scores), rankdata(scores, axis=1))
