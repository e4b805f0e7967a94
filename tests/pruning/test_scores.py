"""Scores against the definition computed naively, hand arithmetic, and their invariances."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from harness.errors import UsageError
from harness.types import ActivationStats
from pruning.activations import moments_of
from pruning.scores import METRICS, score

GOLDEN = Path(__file__).parent.parent / "golden" / "scores.json"
values = st.floats(0, 10, width=32)


def stats_of(target: np.ndarray, distractor: np.ndarray, second: np.ndarray, norm: np.ndarray) -> ActivationStats:
    return ActivationStats(moments_of(target), moments_of(distractor), second, norm, "hash")


def random_stats(seed: int = 0, width: int = 7) -> ActivationStats:
    rng = np.random.default_rng(seed)
    return stats_of(rng.random((5, 2, width)), rng.random((9, 2, width)), rng.random((2, width)), rng.random((2, width)))


@given(arrays(np.float32, (4, 1, 3), elements=values), arrays(np.float32, (6, 1, 3), elements=values))
def test_smd_is_the_papers_formula_over_all_prompts(target: np.ndarray, distractor: np.ndarray) -> None:
    stats = stats_of(target, distractor, np.ones((1, 3)), np.ones((1, 3)))
    everything = np.concatenate([target, distractor]).astype(float)
    expected = (target.astype(float).mean(0) - distractor.astype(float).mean(0)) / (everything.std(0, ddof=0) + 1e-6)
    np.testing.assert_allclose(score(stats, ("smd",))["smd"], expected, rtol=1e-4, atol=1e-5)


def test_smd_by_hand() -> None:
    """Target 3 and 5, distractors 1, 1, 2: means 4 and 4/3; all: mean 12/5, variance (0.36 + 6.76 + 1.96 * 2 + 0.16) / 5 = 2.24."""
    column = np.array([3.0, 5.0]).reshape(2, 1, 1), np.array([1.0, 1.0, 2.0]).reshape(3, 1, 1)
    stats = stats_of(*column, np.ones((1, 1)), np.ones((1, 1)))
    assert score(stats)["smd"][0, 0] == pytest.approx((4 - 4 / 3) / (2.24**0.5 + 1e-6))


def test_smd_is_the_point_biserial_correlation_scaled() -> None:
    """smd = r / sqrt(p (1 - p)), with r the correlation of m with being a target prompt (notes of the method)."""
    rng = np.random.default_rng(3)
    target, distractor = rng.random((20, 1, 1)), rng.random((40, 1, 1))
    everything, label = np.concatenate([target, distractor]).ravel(), np.r_[np.ones(20), np.zeros(40)]
    expected = np.corrcoef(everything, label)[0, 1] / np.sqrt(20 / 60 * 40 / 60)
    assert score(stats_of(target, distractor, np.ones((1, 1)), np.ones((1, 1))))["smd"][0, 0] == pytest.approx(expected, rel=1e-4)


def test_rms_is_the_size_of_what_a_neuron_writes() -> None:
    """Root mean square over tokens of the vector h_j * W_down[:, j]."""
    rng = np.random.default_rng(4)
    h, down = rng.standard_normal((50, 3)), rng.standard_normal((8, 3))
    written = h[:, None, :] * down[None]  # [tokens, hidden, neurons]
    expected = np.sqrt((np.linalg.norm(written, axis=1) ** 2).mean(axis=0))
    stats = replace(random_stats(width=3), second_moment=(h**2).mean(0)[None], down_norm=np.linalg.norm(down, axis=0)[None])
    np.testing.assert_allclose(score(stats)["rms"][0], expected, rtol=1e-5)


@pytest.mark.parametrize("name", sorted(METRICS))
@given(permutation=st.permutations(range(7)))
def test_permuting_neurons_permutes_every_score(name: str, permutation: list[int]) -> None:
    stats = random_stats()
    turned = stats_of_permuted(stats, permutation)
    np.testing.assert_array_equal(score(turned, (name,))[name], score(stats, (name,))[name][:, permutation])


def stats_of_permuted(stats: ActivationStats, order: list[int]) -> ActivationStats:
    def turn(moments):  # type: ignore[no-untyped-def]
        return replace(moments, mean=moments.mean[:, order], m2=moments.m2[:, order])

    return ActivationStats(
        turn(stats.target), turn(stats.distractor), stats.second_moment[:, order], stats.down_norm[:, order], stats.calibration_hash
    )


@pytest.mark.parametrize("name", sorted(METRICS))
def test_every_metric_has_the_contract(name: str) -> None:
    table = score(random_stats(), (name,))[name]
    assert table.shape == (2, 7)
    assert table.dtype == np.float32
    assert np.isfinite(table).all()
    assert "arXiv" in str(METRICS[name].__doc__), "a metric names its source"


def test_a_dead_neuron_scores_zero_and_not_nan() -> None:
    dead = stats_of(np.zeros((3, 1, 1)), np.zeros((4, 1, 1)), np.zeros((1, 1)), np.zeros((1, 1)))
    assert all(table[0, 0] == 0 for table in score(dead).values())


def test_an_unknown_metric_lists_the_known() -> None:
    with pytest.raises(UsageError, match="rms, smd"):
        score(random_stats(), ("smdd",))


def test_scores_of_the_embedded_model_are_the_golden_ones(embedded_scores) -> None:  # type: ignore[no-untyped-def]
    """Values and script: tests/golden/scores.json and make_scores.py, which runs gate and up itself, prompt by prompt."""
    golden = json.loads(GOLDEN.read_text())
    for name, layers in golden["scores"].items():
        for layer, expected in layers.items():
            np.testing.assert_allclose(embedded_scores[name][int(layer)][golden["neurons"]], expected, rtol=2e-3, atol=2e-4)
