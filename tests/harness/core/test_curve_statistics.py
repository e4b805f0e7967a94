"""Statistics over ratios: non-inferiority, knees, specificity."""

from __future__ import annotations

from math import log

import numpy as np
import pytest

from harness.core.curve_statistics import knee, non_inferiority_threshold
from harness.core.mask_statistics import difference_over_masks
from harness.core.statistics import specificity

simulated = pytest.mark.slow  # hundreds of runs, for how often an interval holds the truth


def answers_with(rng: np.random.Generator, base: np.ndarray, loss: float, gain: float) -> list[bool]:
    return np.where(base, rng.random(base.size) >= loss, rng.random(base.size) < gain).tolist()


def test_non_inferiority_stops_at_the_first_ratio_that_fails() -> None:
    dense = [True] * 100
    arms = [(0.3, [[True] * 100]), (0.1, [[True] * 100] * 3), (0.2, [[True] * 90 + [False] * 10])]
    assert non_inferiority_threshold(arms, dense, margin=0.05) == 0.1
    assert non_inferiority_threshold(arms, dense, margin=0.2) == 0.3
    assert non_inferiority_threshold(arms[2:], dense, margin=0.05) == 0.0


@pytest.mark.slow
@simulated
def test_non_inferiority_claims_too_much_in_at_most_one_run_of_twenty() -> None:
    """The true loss at 0.2 and above is just the margin: a threshold there is a false claim; at 0.1 nothing is lost."""
    rng, false, reached = np.random.default_rng(5), 0, 0
    for _ in range(1000):
        base = rng.random(300) < 0.9
        loss, gain = 0.05 / 0.9 + 0.02 / 0.9, 0.02 / 0.1
        arms = [
            (0.1, [answers_with(rng, base, 0.01, 0.09)]),
            *((r, [answers_with(rng, base, loss, gain)]) for r in (0.2, 0.3)),
        ]
        threshold = non_inferiority_threshold(arms, base.tolist(), margin=0.05)
        false += threshold >= 0.2
        reached += threshold >= 0.1
    assert false / 1000 <= 0.05 + 0.014  # two standard errors of the simulation
    assert reached / 1000 > 0.9


@simulated
@pytest.mark.parametrize("n", [40, 200])
def test_several_seeds_that_agree_do_not_make_up_for_few_items(n: int) -> None:
    """Nothing is wrong before, the true loss is just the margin, and three seeds lose the same items."""
    rng, false = np.random.default_rng(12), 0
    for _ in range(400):
        after = (rng.random(n) >= 0.05).tolist()
        false += non_inferiority_threshold([(0.1, [after] * 3)], [True] * n, margin=0.05) > 0
    assert false / 400 <= 0.05 + 0.022


RATIOS = [0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4]


def curve(rng: np.random.Generator, accuracy: list[float], n: int) -> list[list[float]]:
    """Items with a hardness of their own, so that the arms share them as real ones do."""
    hardness = rng.random(n)
    return [(hardness + 0.05 * rng.standard_normal(n) < level).astype(float).tolist() for level in accuracy]


@simulated
def test_a_knee_is_found_where_it_is() -> None:
    rng, covered, found = np.random.default_rng(6), 0, []
    for _ in range(30):
        result = knee(RATIOS, curve(rng, [0.9 - 0.2 * r - 2.5 * max(0.0, r - 0.2) for r in RATIOS], 1000), samples=300)
        assert result.ratio is not None and result.ci_low is not None and result.ci_high is not None
        found.append(result.ratio)
        covered += result.ci_low <= 0.2 <= result.ci_high
    assert np.mean(found) == pytest.approx(0.2, abs=0.01)
    assert covered >= 27


@simulated
def test_a_straight_line_seldom_has_a_knee() -> None:
    rng = np.random.default_rng(7)
    results = [knee(RATIOS, curve(rng, [0.9 - 1.2 * r for r in RATIOS], 1000), samples=200) for _ in range(40)]
    assert sum(result.ratio is not None for result in results) <= 4


@simulated
def test_a_curve_that_flattens_out_bends_the_other_way() -> None:
    rng = np.random.default_rng(8)
    assert knee(RATIOS, curve(rng, [0.9 * 0.2 ** (10 * r) for r in RATIOS], 2000), samples=200).ratio is None


def test_the_best_hinge_is_that_of_a_plain_search() -> None:
    """Least squares at every k by numpy's own routine, one at a time, on the dense arms' means."""
    rng = np.random.default_rng(9)
    outcomes = curve(rng, [0.9 - 3 * max(0.0, r - 0.17) for r in RATIOS], 500)
    y, x, best = np.mean(outcomes, axis=1), np.array(RATIOS), (np.inf, 0.0)
    for k in np.linspace(x[1], x[-2], 61):
        design = np.column_stack([np.ones(9), x, np.clip(x - k, 0, None)])
        best = min(best, (float(np.linalg.lstsq(design, y, rcond=None)[1][0]), float(k)))
    line = float(np.polyfit(x, y, 1, full=True)[1][0])
    result = knee(RATIOS, outcomes, samples=100)
    assert result.ratio == pytest.approx(best[1])
    curved = float(np.polyfit(x, y, 2, full=True)[1][0])
    gains = [9 * log((other + 1e-9) / (best[0] + 1e-9)) - more * log(9) for other, more in ((line, 2), (curved, 1))]
    assert result.bic_gain == pytest.approx(min(gains), rel=1e-6)


@simulated
def test_a_smooth_curve_and_a_few_items_at_the_end_are_no_knee() -> None:
    rng = np.random.default_rng(11)
    smooth = [knee(RATIOS, curve(rng, [0.82 - 3 * r * r for r in RATIOS], 1000), samples=200) for _ in range(40)]
    assert sum(result.ratio is not None for result in smooth) <= 2
    assert {result.shape for result in smooth if result.ratio is None} <= {"curve", "line", "edge"}
    flat = [[1.0] * 400] * 8 + [[0.0] * 3 + [1.0] * 397]
    assert knee(RATIOS, flat, margin=0.05, samples=100).shape == "flat"


def test_a_knee_is_never_without_width_or_at_the_edge() -> None:
    ratios = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    exact = [[float(i < 1000 - 10000 * max(0.0, r - 0.3) // 10) for i in range(1000)] for r in ratios]
    found = knee(ratios, exact, samples=100)
    assert found.ratio is not None and found.ci_low is not None and found.ci_high is not None
    assert found.ci_low < found.ci_high
    late = [[1.0] * 1000] * 6 + [[0.0] * 500 + [1.0] * 500]
    assert (knee(ratios, late, samples=100).ratio, knee(ratios, late, samples=100).shape) == (None, "edge")


@pytest.mark.parametrize("ratios", [[0.0, 0.1, 0.2, 0.3], [0.0, 0.1, 0.1, 0.2, 0.3]])
def test_a_knee_of_too_few_or_unordered_ratios_is_refused(ratios: list[float]) -> None:
    with pytest.raises(ValueError, match="knee needs"):
        knee(ratios, [[1.0, 0.0]] * len(ratios))


@pytest.mark.slow
@simulated
def test_specificity_is_how_much_more_the_target_falls() -> None:
    """Coverage by simulation: the target loses 30 points, two others 10 and 6."""
    rng, hits = np.random.default_rng(10), 0
    for _ in range(600):
        base = [rng.random(n) < 0.9 for n in (300, 150, 200)]
        pruned = [answers_with(rng, b, loss / 0.9, 0.0) for b, loss in zip(base, (0.30, 0.10, 0.06), strict=True)]
        target, *others = (difference_over_masks(b.tolist(), [p]) for b, p in zip(base, pruned, strict=True))
        difference, low, high = specificity(target, others)
        assert difference == pytest.approx((others[0][0] + others[1][0]) / 2 - target[0])
        hits += low <= 0.22 <= high
    assert 0.93 <= hits / 600 <= 0.98
