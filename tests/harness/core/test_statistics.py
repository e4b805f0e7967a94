"""Every formula against a second definition of it."""

from __future__ import annotations

from math import comb, log, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from harness.core.statistics import (
    collapsed,
    holm,
    items_needed,
    likelihood_metric,
    mcnemar_exact,
    paired_difference,
    paired_mean_difference,
    paired_ratio,
    percentiles,
    ratio_mean,
    wilson,
)

simulated = pytest.mark.slow  # hundreds of runs, for how often an interval holds the truth
outcomes = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=80)


@given(st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_is_the_root_of_the_score_equation(pair: tuple[int, int]) -> None:
    """Wilson's limits p solve |k/n - p| = z sqrt(p (1 - p) / n), with z written out here."""
    k, n = pair
    z = 1.959963984540054
    centre, half = (k + z * z / 2) / (n + z * z), z * sqrt(k * (n - k) / n + z * z / 4) / (n + z * z)
    assert wilson(k, n) == pytest.approx((centre - half, centre + half), abs=1e-9)


@pytest.mark.parametrize(("k", "n"), [(1, 0), (3, 2), (-1, 4)])
def test_wilson_refuses_the_impossible(k: int, n: int) -> None:
    with pytest.raises(ValueError, match="wilson"):
        wilson(k, n)


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_the_binomial_tail(lost: int, gained: int) -> None:
    n, k = lost + gained, min(lost, gained)
    tail = sum(comb(n, i) for i in range(k + 1)) / 2**n
    assert mcnemar_exact(lost, gained) == pytest.approx(min(1.0, 2 * tail))
    from statsmodels.stats.contingency_tables import mcnemar

    table = [[5, lost], [gained, 5]]
    assert mcnemar_exact(lost, gained) == pytest.approx(min(1.0, float(mcnemar(table, exact=True).pvalue)))


def test_no_p_value_is_zero() -> None:
    assert mcnemar_exact(5000, 0) == 1e-300


@given(outcomes)
def test_paired_difference_counts_flips_and_is_antisymmetric(pairs: list[tuple[bool, bool]]) -> None:
    a, b = [x for x, _ in pairs], [y for _, y in pairs]
    there, back = paired_difference(a, b), paired_difference(b, a)
    assert there.difference == pytest.approx(np.mean(b) - np.mean(a))
    assert (there.lost, there.gained) == (back.gained, back.lost)
    assert (there.ci_low, there.ci_high) == pytest.approx((-back.ci_high, -back.ci_low))
    assert -1 - 1e-9 <= there.ci_low <= there.difference <= there.ci_high <= 1 + 1e-9


def test_paired_interval_gives_the_published_example() -> None:
    """Newcombe 1998, Statistics in Medicine 17:2635, method 10 on the table 36, 12, 2, 0: 0.0569 to 0.3404."""
    a = [True] * 36 + [False] * 12 + [True] * 2
    b = [True] * 36 + [True] * 12 + [False] * 2
    found = paired_difference(a, b)
    assert (found.ci_low, found.ci_high) == pytest.approx((0.0569, 0.3404), abs=5e-5)


@pytest.mark.slow
@simulated
def test_paired_interval_covers_the_truth() -> None:
    """2000 simulated pairs of runs with a true difference of -6 points: at least 93 % of the intervals hold it."""
    rng = np.random.default_rng(0)
    outcomes = rng.choice(4, size=(2000, 200), p=[0.80, 0.02, 0.08, 0.10])
    found = [paired_difference(np.isin(row, [0, 2]).tolist(), np.isin(row, [0, 1]).tolist()) for row in outcomes]
    assert np.mean([f.ci_low <= -0.06 <= f.ci_high for f in found]) >= 0.93


def test_paired_mean_difference_is_students_t_with_half_an_item_in_each_cell() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.random(50) < 0.8, rng.random((3, 50)) < 0.5
    items = [a[i] - sum(b[s][i] for s in range(3)) / 3 for i in range(50)]
    mean = sum(items) / 50
    squares = sum((x - mean) ** 2 for x in items) + 0.5 * (1 - mean) ** 2 + 0.5 * (1 + mean) ** 2 + mean**2
    half = stats.t.ppf(0.975, 49) * sqrt(squares / (51 * 52))
    found = paired_mean_difference(a.tolist(), b.tolist())
    assert found == pytest.approx((mean, mean - half, mean + half))
    assert paired_mean_difference([1.0] * 40, [[1.0] * 40])[1:] == (
        pytest.approx(-0.0487, abs=5e-4),
        pytest.approx(0.0487, abs=5e-4),
    )
    assert paired_mean_difference([1.0] * 40, [[0.0] * 40])[2] == 1.0, "no more than all items can change"


def test_percentiles_interpolate() -> None:
    assert percentiles([1.0, 2.0, 3.0, 4.0]) == {"p50": 2.5, "p90": pytest.approx(3.7), "p99": pytest.approx(3.97)}


def test_with_equal_units_the_ratio_is_a_mean_with_students_interval() -> None:
    values = np.random.default_rng(0).gamma(2.0, 3.0, 30)
    value, low, high = ratio_mean(values, np.full(30, 7.0))
    expected = stats.t.interval(0.95, 29, values.mean() / 7, stats.sem(values) / 7)
    assert (value, low, high) == pytest.approx((values.mean() / 7, *expected))


@simulated
def test_the_ratios_interval_covers_at_its_rate() -> None:
    """Texts of unequal length whose loss per token varies by text: the true ratio is 2 by construction."""
    rng, hits = np.random.default_rng(1), 0
    for _ in range(800):
        units = rng.integers(20, 200, 60)
        _, low, high = ratio_mean(units * (2 + 0.5 * rng.standard_normal(60)), units)
        hits += low <= 2 <= high
    assert 0.92 < hits / 800 < 0.98


def test_perplexity_and_bits_are_the_textbook_ones() -> None:
    nll, tokens = [10.0, 30.0], [5, 10]
    assert likelihood_metric("perplexity", nll, tokens)[0] == pytest.approx(float(np.exp(40 / 15)))
    assert likelihood_metric("bits_per_byte", nll, tokens)[0] == pytest.approx(40 / 15 / np.log(2))
    value, low, high = likelihood_metric("perplexity", [10.0, 22.0, 31.0], [5, 10, 16])
    assert low < value < high


@pytest.mark.parametrize(("values", "units"), [([1.0], [2.0]), ([1.0, 2.0], [0.0, 0.0]), ([1.0, 2.0], [1.0])])
def test_a_ratio_without_clusters_or_units_is_refused(values: list[float], units: list[float]) -> None:
    with pytest.raises(ValueError, match="ratio_mean"):
        ratio_mean(values, units)


@given(st.lists(st.tuples(st.floats(0.1, 100), st.floats(0.1, 100)), min_size=2, max_size=20))
def test_paired_ratio_is_a_t_interval_of_the_logarithms(pairs: list[tuple[float, float]]) -> None:
    a, b = zip(*pairs, strict=True)
    logs = [log(y) - log(x) for x, y in pairs]
    if np.std(logs) < 1e-9:
        return
    expected = stats.ttest_1samp(logs, 0).confidence_interval(0.95)
    ratio, low, high = paired_ratio(a, b)
    assert low is not None and high is not None
    assert log(ratio) == pytest.approx(float(np.mean(logs)), abs=1e-9)
    assert (log(low), log(high)) == pytest.approx((expected.low, expected.high), abs=1e-6)


@simulated
def test_paired_ratio_covers_the_true_ratio_as_often_as_it_says() -> None:
    rng, hits = np.random.default_rng(0), 0
    for _ in range(2000):
        drift = rng.lognormal(0, 0.3, 5)  # of the machine: alike for the two of a pair
        a, b = drift * rng.lognormal(0, 0.03, 5), 1.3 * drift * rng.lognormal(0, 0.03, 5)
        _, low, high = paired_ratio(a, b)
        assert low is not None and high is not None
        hits += low <= 1.3 <= high
    assert 0.935 <= hits / 2000 <= 0.965


def test_of_one_pair_nothing_is_known_but_the_ratio() -> None:
    assert paired_ratio([2.0], [3.0]) == (pytest.approx(1.5), None, None)
    assert paired_ratio([100.0] * 5, [120.0] * 5) == (pytest.approx(1.2), None, None), "no interval without width"


@pytest.mark.parametrize(("a", "b"), [([], []), ([1.0], [1.0, 2.0]), ([0.0], [1.0]), ([1.0], [-1.0])])
def test_paired_ratio_refuses_what_has_no_logarithm(a: list[float], b: list[float]) -> None:
    with pytest.raises(ValueError, match="paired_ratio needs"):
        paired_ratio(a, b)


@settings(max_examples=30)
@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_is_its_step_down_definition(p_values: list[float]) -> None:
    expected, so_far = [0.0] * len(p_values), 0.0
    for step, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        so_far = max(so_far, min(1.0, (len(p_values) - step) * p_values[i]))
        expected[i] = so_far
    assert holm(p_values) == pytest.approx(expected)


def test_items_needed_is_the_normal_approximation() -> None:
    z = 1.959963984540054 + 0.8416212335729143
    assert items_needed(0.05, 0.1) == int(np.ceil(0.1 * (z / 0.05) ** 2))


@given(
    st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.floats(0, 1), st.floats(0, 0.5)
)
def test_collapse_is_the_rule_of_the_method(pair: tuple[int, int], dense: float, chance: float) -> None:
    right, n = pair
    assert collapsed(right, n, dense, chance) == (wilson(right, n)[1] < max(chance, dense / 10))


def test_pairs_of_nothing_or_of_different_lengths_are_refused() -> None:
    for a, b in (([], []), ([True], [True, False])):
        with pytest.raises(ValueError, match="two equally long, non-empty sequences"):
            paired_difference(a, b)
    for first, seeds in (([1.0, 0.0], [[1.0]]), ([1.0], [[1.0]])):
        with pytest.raises(ValueError, match=r"\[rows, items\] with two items or more"):
            paired_mean_difference(first, seeds)


def newcombe(a: list[bool], b: list[bool]) -> tuple[float, float]:
    """Method 10 of Newcombe 1998, from the correlation of the two outcomes and Wilson's roots by bisection."""
    n, x, y = len(a), np.array(a, float), np.array(b, float)
    phi = 0.0 if 0 in (x.std(), y.std()) else float(np.corrcoef(x, y)[0, 1])
    spread = n**2 * sqrt(x.mean() * (1 - x.mean()) * y.mean() * (1 - y.mean()))  # sqrt of the margins' product
    if phi > 0:
        phi = max(0.0, phi - n / 2 / spread)  # the continuity correction, never below 0
    ends = [wilson_by_bisection(int(v.sum()), n) for v in (y, x)]
    (down_b, up_b), (down_a, up_a) = (
        (v.mean() - low, high - v.mean()) for v, (low, high) in zip((y, x), ends, strict=True)
    )
    difference = y.mean() - x.mean()
    low = difference - sqrt(max(0.0, down_b**2 - 2 * phi * down_b * up_a + up_a**2))
    return low, difference + sqrt(max(0.0, down_a**2 - 2 * phi * down_a * up_b + up_b**2))


def wilson_by_bisection(k: int, n: int) -> tuple[float, float]:
    """Where |k/n - p| = z sqrt(p (1 - p) / n), below and above k/n."""
    z, share = 1.959963984540054, k / n

    def outside(p: float) -> bool:
        return abs(share - p) >= z * sqrt(p * (1 - p) / n)

    ends = []
    for far, near in ((0.0, share), (1.0, share)):
        for _ in range(60):
            middle = (far + near) / 2
            far, near = (middle, near) if outside(middle) else (far, middle)
        ends.append(near)
    return ends[0], ends[1]


@given(outcomes)
def test_paired_interval_is_method_10_with_its_continuity_correction(pairs: list[tuple[bool, bool]]) -> None:
    a, b = [x for x, _ in pairs], [y for _, y in pairs]
    found = paired_difference(a, b)
    assert (found.ci_low, found.ci_high) == pytest.approx(newcombe(a, b), abs=1e-6)


def test_the_continuity_correction_widens_the_interval() -> None:
    """40 right and 40 wrong both times, 10 changed each way: phi is 0.6, corrected (1500 - 50) / 2500 = 0.58."""
    a = [True] * 40 + [False] * 40 + [True] * 10 + [False] * 10
    b = [True] * 40 + [False] * 40 + [False] * 10 + [True] * 10
    half = 1.959963984540054 * sqrt(25 / 100 / (100 + 1.959963984540054**2))  # Wilson's, at one half
    assert paired_difference(a, b).ci_high == pytest.approx(half * sqrt(2 - 2 * 0.58), abs=1e-9)
