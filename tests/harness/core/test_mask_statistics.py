"""Statistics over random masks and items, against formulas written out here and by simulation."""

from __future__ import annotations

from math import exp, log, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from harness.core.curve_statistics import non_inferiority_threshold
from harness.core.mask_statistics import (
    FEWEST_MASKS,
    accuracy_over_masks,
    difference_over_masks,
    masks_p_value,
    mean_over_masks,
    rank_p_value,
    widened,
)
from harness.core.statistics import paired_difference, ratio_mean, wilson

simulated = pytest.mark.slow  # hundreds of runs, for how often an interval holds the truth
RUNS = 400
MEASURED = ((0.756, 0.197), (0.38, 0.229), (0.859, 0.088))  # mean and sd of the accuracies of tiny-math's random masks


def answers(rng: np.random.Generator, levels: np.ndarray, n: int, alike: float = 0.5) -> np.ndarray:
    """[levels, items]: hard items are hard for all, a share `alike` of the latent variance."""
    latent = np.sqrt(alike) * rng.standard_normal(n) + np.sqrt(1 - alike) * rng.standard_normal((len(levels), n))
    return np.asarray(stats.norm.ppf(levels)[:, None] + latent > 0)


def accuracies(rng: np.random.Generator, mean: float, sd: float, masks: int) -> np.ndarray:
    total = mean * (1 - mean) / sd**2 - 1
    return np.clip(rng.beta(mean * total, (1 - mean) * total, masks), 1e-9, 1 - 1e-9)


def test_the_rank_counts_ties_against_the_arm_and_is_never_zero() -> None:
    assert rank_p_value(0.9, [0.1] * 19) == 1 / 20
    assert rank_p_value(0.9, [0.9] + [0.1] * 18) == 2 / 20
    assert rank_p_value(0.0, [0.0] * 19) == 1.0
    assert rank_p_value(float("nan"), [0.1] * 19) == 1.0


@simulated
def test_the_rank_test_keeps_its_level() -> None:
    """One more mask in the place of the arm: at most 5 %, ties or not."""
    rng, false = np.random.default_rng(0), 0
    for _ in range(4000):
        *masks, arm = answers(rng, accuracies(rng, 0.756, 0.197, 20), 100).mean(axis=1)
        false += rank_p_value(arm, masks) <= 0.05
    assert 0.03 <= false / 4000 <= 0.06


def written_out(table: np.ndarray, before: np.ndarray) -> tuple[float, float, float]:
    """The interval of `difference_over_masks`, in loops."""
    masks, n = table.shape
    d = table.astype(float) - before.astype(float)
    mean = float(d.mean())
    columns = [float(d[:, i].mean()) for i in range(n)]
    residual = sum((d[m, i] - d[m].mean() - columns[i] + mean) ** 2 for m in range(masks) for i in range(n))
    net = sum((c - mean) ** 2 for c in columns) / (n - 1) - residual / ((masks - 1) * (n - 1)) / masks
    share = min(1.0, max(1 / masks, net / np.mean([np.var(row, ddof=1) for row in d])))
    pairs = [paired_difference(before.tolist(), row.tolist()) for row in table]
    below = sqrt(share) * float(np.mean([pair.difference - pair.ci_low for pair in pairs]))
    above = sqrt(share) * float(np.mean([pair.ci_high - pair.difference for pair in pairs]))
    p = [float(row.mean()) for row in table]
    centre, sd = sum(p) / masks, float(np.std(p, ddof=1))
    half = stats.t.ppf(0.975, masks - 1) * sd / sqrt(masks)
    q = (centre * n + 0.5) / (n + 1)
    logit = [1 / (1 + exp(-(log(q / (1 - q)) + sign * half / (q * (1 - q))))) for sign in (-1, 1)]
    down = centre - min(centre, max(0.0, min(centre - half, logit[0])))
    up = max(centre, min(1.0, max(centre + half, logit[1]))) - centre
    return mean, max(-1.0, mean - sqrt(below**2 + down**2)), min(1.0, mean + sqrt(above**2 + up**2))


@pytest.mark.parametrize(("level", "masks"), [(0.8, 3), (0.1, 7), (0.5, 20)])
def test_the_interval_is_its_formula(level: float, masks: int) -> None:
    rng = np.random.default_rng(masks)
    *table, before = answers(rng, np.array([*accuracies(rng, level, 0.1, masks), 0.9]), 60)
    found = difference_over_masks(before.tolist(), np.array(table).tolist())
    assert found == pytest.approx(written_out(np.array(table), before), abs=1e-9)


@simulated
@pytest.mark.parametrize("masks", [3, 10, 20])
@pytest.mark.parametrize(("mean", "sd"), MEASURED)
def test_the_interval_covers_the_mean_of_all_masks(mean: float, sd: float, masks: int) -> None:
    """93 to 97 % within two standard errors of the simulation, with skewed accuracies like those of tiny-math."""
    rng, arm, hits, own = np.random.default_rng(7), 0.95, 0, 0
    for _ in range(RUNS):
        *table, first = answers(rng, np.array([*accuracies(rng, mean, sd, masks), arm]), 400)
        _, low, high = difference_over_masks(first.tolist(), np.array(table).tolist())
        hits += low <= mean - arm <= high
        _, low, high = accuracy_over_masks(np.array(table).tolist())
        own += low <= mean <= high
    slack = 2 * sqrt(0.05 * 0.95 / RUNS)
    assert 0.93 - slack <= hits / RUNS <= 0.97 + slack
    assert 0.93 - slack <= own / RUNS <= 0.97 + slack


@simulated
@pytest.mark.parametrize("sd", [0.02, 0.04, 0.088, 0.15, 0.197])
@pytest.mark.parametrize("n", [400, 1319])
def test_a_threshold_over_19_masks_claims_too_much_in_at_most_six_percent(n: int, sd: float) -> None:
    """The true mean loss is just the margin. The spreads go up to that of tiny-math's masks at 10 %."""
    rng, false = np.random.default_rng(3), 0
    for _ in range(RUNS):
        levels = np.array([*accuracies(rng, 0.85, sd, FEWEST_MASKS), 0.9])
        *table, dense = answers(rng, levels, n)
        false += non_inferiority_threshold([(0.1, np.array(table).tolist())], dense.tolist(), 0.05) > 0
    assert false / RUNS <= 0.06


@given(st.integers(2, 6), st.integers(2, 12), st.randoms(use_true_random=False))
def test_no_interval_is_impossible_or_without_width(masks: int, n: int, chance: object) -> None:
    level = chance.random()  # type: ignore[attr-defined]
    draw = [[chance.random() < level for _ in range(n)] for _ in range(masks + 1)]  # type: ignore[attr-defined]
    for first, table in ((draw[0], draw[1:]), ([True] * n, [[False] * n] * masks), ([True] * n, [[True] * n] * masks)):
        value, low, high = difference_over_masks(first, table)
        assert -1 <= low <= value <= high <= 1 and high > low
        value, low, high = accuracy_over_masks(table)
        assert 0 <= low <= value <= high <= 1 and high > low
        assert 0 < masks_p_value(first, table) <= 1
        value, low, high = mean_over_masks(np.array(table, float) - np.array(first, float))
        assert -1 <= low <= value <= high <= 1 and high > low


def test_one_mask_is_judged_over_items_alone() -> None:
    before, after = [True] * 30 + [False] * 10, [True] * 20 + [False] * 20
    pair = paired_difference(before, after)
    assert difference_over_masks(before, [after]) == (pair.difference, pair.ci_low, pair.ci_high)
    assert masks_p_value(before, [after]) == pair.p_value
    assert accuracy_over_masks([after]) == (0.5, *wilson(20, 40))


def test_the_p_value_is_where_the_interval_ends_at_zero() -> None:
    rng = np.random.default_rng(5)
    *table, before = (row.tolist() for row in answers(rng, np.array([0.7, 0.8, 0.75, 0.78, 0.9]), 200))
    p = masks_p_value(before, table)
    _, _, high = difference_over_masks(before, table, 1 - p)
    assert 0 < p < 0.05 and high == pytest.approx(0, abs=1e-6)


def test_seeds_that_differ_count_in_what_fine_tuning_gained() -> None:
    gained = np.array([[1.0] * 30 + [0.0] * 70, [1.0] * 10 + [0.0] * 90, [1.0] * 50 + [0.0] * 50])
    value, low, high = mean_over_masks(gained)
    means = [0.3, 0.1, 0.5]
    over = stats.t.ppf(0.975, 2) * np.std(means, ddof=1) / sqrt(3)
    assert value == pytest.approx(0.3) and low < 0.3 - over and 0.3 + over < high
    same = gained[:1].repeat(3, axis=0)
    wide, narrow = mean_over_masks(same, 0.99), mean_over_masks(same, 0.5)
    assert wide[1] < narrow[1] < narrow[2] < wide[2], "over items alone, at the confidence asked for"


@simulated
@pytest.mark.parametrize("sd", [0.005, 0.03, 0.1])
def test_half_of_a_gap_over_three_seeds_is_claimed_falsely_in_at_most_six_percent(sd: float) -> None:
    """Pruned 60 %, dense fine-tuned 90 %, and fine-tuned just between them, with seeds that differ."""
    rng, false = np.random.default_rng(5), 0
    for _ in range(RUNS):
        levels = [0.6, *accuracies(rng, 0.75, sd, 3), *accuracies(rng, 0.9, sd, 3)]
        then, *rest = answers(rng, np.array(levels), 400).astype(float)
        false += mean_over_masks(np.array(rest[:3]) - (then + np.array(rest[3:])) / 2)[1] >= 0
    assert false / RUNS <= 0.06


def test_an_interval_over_items_is_widened_by_the_masks() -> None:
    value, low, high = widened((5.0, 4.0, 7.0), [4.0, 5.0, 6.0])
    over = stats.t.ppf(0.975, 2) / sqrt(3)  # of a standard deviation of 1
    assert (value, low, high) == pytest.approx((5.0, 5 - sqrt(1 + over**2), 5 + sqrt(4 + over**2)))
    assert widened((5.0, 4.0, 7.0), [5.0]) == (5.0, 4.0, 7.0), "of one mask: that mask alone"


@simulated
@pytest.mark.parametrize("masks", [3, 10, 20])
@pytest.mark.parametrize("spread", [0.02, 0.1, 0.5])
def test_the_widened_interval_covers_the_mean_of_all_masks(masks: int, spread: float) -> None:
    """Losses in nats of 60 texts, of which some are hard for all masks. Over texts alone, three masks with a spread of
    0.5 would cover in 59 % of cases.
    """
    rng, hits = np.random.default_rng(11), 0
    for _ in range(RUNS):
        table = 2 + spread * rng.standard_normal((masks, 1)) + rng.standard_normal(60)
        table = table + 0.3 * rng.standard_normal((masks, 60))
        over_items = ratio_mean(table.mean(axis=0).tolist(), [1] * 60)
        _, low, high = widened(over_items, table.mean(axis=1).tolist())
        hits += low <= 2 <= high
    slack = 2 * sqrt(0.05 * 0.95 / RUNS)
    assert 0.95 - slack <= hits / RUNS <= 0.98 + slack
