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

from harness.core.errors import UsageError
from harness.core.types.pruning import ActivationStats, GroupStats
from pruning.scores import METRICS, score
from tests.support.activations import group_of, moments_of, random_stats, stats_of

GOLDEN = Path(__file__).parent.parent / "golden" / "scores.json"
values = st.floats(0, 10, width=32)


Groups = tuple[np.ndarray, np.ndarray]


@st.composite
def _groups(draw: st.DrawFn) -> Groups:
    """Positive prompt means [prompts, 1, 3] of two groups of different size, no neuron constant."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    scale, shift = draw(st.floats(0.1, 10)), draw(st.floats(0, 5))
    sizes = draw(st.tuples(st.integers(2, 30), st.integers(2, 60)))
    return scale * rng.gamma(2, 1, (sizes[0], 1, 3)) + shift, scale * rng.gamma(2, 1, (sizes[1], 1, 3))


unequal_groups = _groups()


@given(arrays(np.float32, (4, 1, 3), elements=values), arrays(np.float32, (6, 1, 3), elements=values))
def test_smd_is_the_papers_formula_over_all_prompts(target: np.ndarray, distractor: np.ndarray) -> None:
    stats = stats_of(target, distractor)
    everything = np.concatenate([target, distractor]).astype(float)
    expected = (target.astype(float).mean(0) - distractor.astype(float).mean(0)) / (everything.std(0, ddof=0) + 1e-6)
    np.testing.assert_allclose(score(stats, ("smd",))["smd"], expected, rtol=1e-4, atol=1e-5)


def test_smd_by_hand() -> None:
    """Target 3 and 5, distractors 1, 1, 2: means 4 and 4/3; all: mean 12/5, variance (0.36 + 6.76 + 1.96 * 2 + 0.16) /
    5 = 2.24.
    """
    column = np.array([3.0, 5.0]).reshape(2, 1, 1), np.array([1.0, 1.0, 2.0]).reshape(3, 1, 1)
    stats = stats_of(*column)
    assert score(stats)["smd"][0, 0] == pytest.approx((4 - 4 / 3) / (2.24**0.5 + 1e-6))


@given(unequal_groups)
def test_smd_is_the_point_biserial_correlation_scaled(groups: Groups) -> None:
    """smd = r / sqrt(p (1 - p)), with r the correlation of m with being a target prompt (notes of the method)."""
    target, distractor = groups
    n, m = len(target), len(distractor)
    everything, label = np.concatenate([target, distractor])[:, 0], np.r_[np.ones(n), np.zeros(m)]
    p = n / (n + m)
    found = score(stats_of(target, distractor), ("smd",))["smd"][0]
    for neuron in range(everything.shape[1]):
        expected = np.corrcoef(everything[:, neuron], label)[0, 1] / np.sqrt(p * (1 - p))
        assert found[neuron] == pytest.approx(expected, rel=1e-3, abs=1e-4)


def test_rms_is_the_size_of_what_a_neuron_writes() -> None:
    """Root mean square over tokens of the vector h_j * W_down[:, j]."""
    rng = np.random.default_rng(4)
    h, down = rng.standard_normal((50, 3)), rng.standard_normal((8, 3))
    written = h[:, None, :] * down[None]  # [tokens, hidden, neurons]
    expected = np.sqrt((np.linalg.norm(written, axis=1) ** 2).mean(axis=0))
    stats = random_stats(width=3)
    stats = replace(
        stats, target=group_of(np.abs(h)[:5, None], h[:, None]), down_norm=np.linalg.norm(down, axis=0)[None]
    )
    np.testing.assert_allclose(score(stats, ("rms",))["rms"][0], expected, rtol=1e-5)


@pytest.mark.parametrize("name", sorted(METRICS))
@given(permutation=st.permutations(range(7)))
def test_permuting_neurons_permutes_every_score(name: str, permutation: list[int]) -> None:
    stats = random_stats()
    turned = stats_of_permuted(stats, permutation)
    np.testing.assert_array_equal(score(turned, (name,))[name], score(stats, (name,))[name][:, permutation])


def stats_of_permuted(stats: ActivationStats, order: list[int]) -> ActivationStats:
    def turn(group: GroupStats) -> GroupStats:
        arrays = {key: value[..., order] for key, value in vars(group).items() if isinstance(value, np.ndarray)}
        prompts = replace(group.prompts, mean=group.prompts.mean[:, order], m2=group.prompts.m2[:, order])
        return replace(group, **arrays, prompts=prompts)

    assert stats.saliency is not None
    return replace(
        stats,
        target=turn(stats.target),
        distractor=turn(stats.distractor),
        down_norm=stats.down_norm[:, order],
        saliency=stats.saliency[:, order],
    )


@pytest.mark.parametrize("name", sorted(METRICS))
def test_every_metric_has_the_contract(name: str) -> None:
    table = score(random_stats(), (name,))[name]
    assert table.shape == (2, 7)
    assert table.dtype == np.float32
    assert np.isfinite(table).all()
    assert "arXiv" in str(METRICS[name].__doc__), "a metric names its source"


def test_a_dead_neuron_scores_zero_and_not_nan() -> None:
    silent = GroupStats(moments_of(np.zeros((3, 1, 1))), 4, *[np.zeros((1, 1))] * 5, np.zeros((3, 1, 1), np.float32))
    dead = ActivationStats(
        target=silent, distractor=silent, down_norm=np.zeros((1, 1)), saliency=np.zeros((1, 1)), calibration_hash="hash"
    )
    for name, table in score(dead).items():
        assert table[0, 0] == (pytest.approx(0)), name


def two_groups(seed: int = 5) -> tuple[np.ndarray, np.ndarray, ActivationStats]:
    rng = np.random.default_rng(seed)
    target, distractor = rng.gamma(2, 1, (20, 1, 6)), rng.gamma(2, 1.3, (40, 1, 6))
    return target[:, 0], distractor[:, 0], stats_of(target, distractor)


@given(unequal_groups)
def test_smd_is_cohens_d_bent_and_bounded(groups: Groups) -> None:
    """smd = d / sqrt(1 + p (1 - p) d^2) with d of the n-weighted pooled variance: the same ranking, at most 1 / sqrt(p
    (1 - p)).
    """
    target, distractor = groups[0][:, 0], groups[1][:, 0]
    p = len(target) / (len(target) + len(distractor))
    pooled = np.sqrt(p * target.var(0) + (1 - p) * distractor.var(0))
    d = (target.mean(0) - distractor.mean(0)) / pooled
    found = score(stats_of(*groups), ("smd",))["smd"][0]
    np.testing.assert_allclose(found, d / np.sqrt(1 + p * (1 - p) * d**2), rtol=1e-3, atol=1e-4)
    assert (np.abs(found) <= 1 / np.sqrt(p * (1 - p))).all()
    order = np.argsort(d)
    assert (np.diff(found[order]) >= -1e-4).all()


def test_dprime_by_definition() -> None:
    target, distractor, stats = two_groups()
    expected = (target.mean(0) - distractor.mean(0)) / np.sqrt((target.var(0) + distractor.var(0)) / 2)
    np.testing.assert_allclose(score(stats, ("dprime",))["dprime"][0], expected, rtol=1e-4)


@given(
    arrays(np.float64, (4, 5, 3), elements=st.floats(0.1, 10)),
    arrays(np.float64, (6, 5, 3), elements=st.floats(0.1, 10)),
)
def test_contrast_ranks_exactly_as_ratio_abs_on_prompts_of_one_length(
    target: np.ndarray, distractor: np.ndarray
) -> None:
    """[prompts, tokens, neurons]: with one length the mean over prompts is the mean over tokens; contrast = (r - 1) /
    (r + 1).
    """
    groups = [group_of(h.mean(1)[:, None], h.reshape(-1, 1, 3)) for h in (target, distractor)]
    found = score(
        ActivationStats(
            target=groups[0], distractor=groups[1], down_norm=np.ones((1, 3)), saliency=None, calibration_hash="hash"
        ),
        ("contrast", "ratio-abs"),
    )
    ratio = found["ratio-abs"][0].astype(np.float64)
    np.testing.assert_allclose(found["contrast"][0], (ratio - 1) / (ratio + 1), rtol=1e-4, atol=1e-5)


def test_auroc_counts_pairs() -> None:
    target, distractor, stats = two_groups()
    pairs = np.sign(target.astype(np.float32)[:, None] - distractor.astype(np.float32)[None])
    np.testing.assert_allclose(score(stats, ("auroc",))["auroc"][0], pairs.mean(axis=(0, 1)), rtol=1e-5)


@pytest.mark.parametrize(
    "name", ["smd", "dprime", "contrast", "auroc", "ratio-abs", "ratio-rms", "ratio-std", "ratio-freq", "lape"]
)
@given(norm=arrays(np.float64, (2, 7), elements=st.floats(0.01, 100)), seed=st.integers(0, 99))
def test_the_norm_of_the_column_cancels_in_selectivity(name: str, norm: np.ndarray, seed: int) -> None:
    stats = random_stats(seed)
    np.testing.assert_array_equal(score(stats, (name,))[name], score(replace(stats, down_norm=norm), (name,))[name])


def test_token_ratios_and_contributions_by_definition() -> None:
    rng = np.random.default_rng(6)
    h = {side: rng.standard_normal((50, 1, 4)) * rng.random((1, 1, 4)) for side in "td"}
    m = rng.random((5, 1, 4))
    norm = rng.random((1, 4))
    stats = ActivationStats(
        target=group_of(m, h["t"]),
        distractor=group_of(m, h["d"]),
        down_norm=norm,
        saliency=None,
        calibration_hash="hash",
    )
    expected = {
        "ratio-abs": np.abs(h["t"]).mean(0) / np.abs(h["d"]).mean(0),
        "ratio-rms": np.sqrt((h["t"] ** 2).mean(0) / (h["d"] ** 2).mean(0)),
        "ratio-std": h["t"].std(0) / h["d"].std(0),
        "ratio-freq": (h["t"] > 0).mean(0) / ((h["d"] > 0).mean(0) + 1e-3),
        "contrib": np.abs(h["t"]).mean(0) * norm,
        "wifv": h["t"].var(0) * norm**2,
        "weight": norm,
    }
    for name, values in expected.items():
        np.testing.assert_allclose(score(stats, (name,))[name], values, rtol=1e-4, err_msg=name)
    assert "taylor" not in score(stats), "no gradients were taken"


def test_lape_is_signed_and_falls_with_evenness() -> None:
    gates = {
        side: np.array(values).reshape(-1, 1, 1) for side, values in {"t": [1, 1, 1, 1], "d": [1, -1, -1, -1]}.items()
    }
    tokens, m = np.ones((4, 1, 1)), np.ones((2, 1, 1))
    groups = {side: group_of(m, tokens, gates[side]) for side in "td"}
    forward = score(
        ActivationStats(
            target=groups["t"], distractor=groups["d"], down_norm=np.ones((1, 1)), saliency=None, calibration_hash="h"
        ),
        ("lape",),
    )["lape"][0, 0]
    p = np.array([1, 0.25]) / 1.25
    assert forward == pytest.approx(np.log(2) + (p * np.log(p)).sum())
    assert score(
        ActivationStats(
            target=groups["d"], distractor=groups["t"], down_norm=np.ones((1, 1)), saliency=None, calibration_hash="h"
        ),
        ("lape",),
    )["lape"][0, 0] == pytest.approx(-forward)


@pytest.mark.parametrize(("name", "said"), [("smdd", r"did you mean S\?"), ("zzz", "known are best, auroc")])
def test_an_unknown_metric_names_the_near_or_the_known(name: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        score(random_stats(), (name,))


def test_scores_of_the_embedded_model_are_the_golden_ones(embedded_scores) -> None:  # type: ignore[no-untyped-def]
    """Values and script: tests/golden/scores.json and make_scores.py, which runs gate and up itself, prompt by
    prompt.
    """
    golden = json.loads(GOLDEN.read_text())
    for name, layers in golden["scores"].items():
        for layer, expected in layers.items():
            np.testing.assert_allclose(
                embedded_scores[name][int(layer)][golden["neurons"]], expected, rtol=2e-3, atol=2e-4
            )
