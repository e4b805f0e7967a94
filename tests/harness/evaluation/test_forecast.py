"""Forecasts: coverage on the committed grid, and a curve that is known."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import binom

from benchmarks.kl_grid import held_out
from harness.core.types.evaluation import KLToDense
from harness.evaluation.forecast import Fit, GridCell, _loss, fit, forecast, nats_per_answer, read_grid


@pytest.mark.slow
@pytest.mark.parametrize("by", ["arm", "task"])
def test_intervals_hold_for_what_the_fit_has_not_seen(by: str) -> None:
    cells = read_grid()
    seen = [inside for inside, extrapolated in held_out(cells, by) if by == "arm" or not extrapolated]
    assert len(seen) >= 60 and np.mean(seen) >= 0.85
    middle = [cell for cell in cells if 0.1 < cell.right / cell.n < 0.9 * cell.dense]
    found = fit(cells)
    widths = [e.high - e.low for cell in middle for e in [forecast(found, cell.kl, cell.dense, cell.n)]]
    assert middle and max(widths) < 0.9, "an interval of everything would hold too"


def test_the_distance_of_an_answer_counts_what_was_cut_off() -> None:
    """64 answers, cut after 128 tokens each; the dense model's are 300 long in the mean."""
    distance = KLToDense(64, 64 * 128, 0.01, None, None, 1.0, None, None)
    assert nats_per_answer(distance, 300.0) == pytest.approx(3.0)
    assert nats_per_answer(distance, None) == pytest.approx(1.28)


def made_grid(a: float, b: float, s: float, n: int = 400) -> list[GridCell]:
    """Variants of six arms by a known curve; the noise has quantiles of the normal distribution."""
    rng = np.random.default_rng(0)
    kls = np.geomspace(0.001, 2, 20)
    return [
        GridCell(
            "task", f"arm {g}", kl, 0.9, int(rng.binomial(n, 0.9 * expit(a - b * np.log(kl) + s * rng.normal()))), n
        )
        for g in range(6)
        for kl in kls
    ]


@pytest.mark.parametrize(("a", "b", "s"), [(-3.0, 1.2, 0.5), (-1.0, 0.7, 0.1)])
def test_a_known_curve_is_found(a: float, b: float, s: float) -> None:
    found = fit(made_grid(a, b, s))
    assert (found.a, found.b) == (pytest.approx(a, abs=0.2), pytest.approx(b, abs=0.1))
    assert found.s == pytest.approx(s, abs=0.12) and (found.lowest, found.highest) == (0.001, 2)


def test_the_fit_is_the_most_likely_one_of_the_committed_grid() -> None:
    """No step away from it is better, in a and in b together with the noise."""
    cells = read_grid()
    found = fit(cells)
    logs = np.log([max(cell.kl, 1e-4) for cell in cells])

    def best(a: float, b: float) -> float:
        return min(_loss(cells, a - b * logs, s) for s in np.geomspace(0.05, 3, 200))

    own = best(found.a, found.b)
    assert all(best(found.a + da, found.b + db) > own - 1e-5 for da in (-0.05, 0, 0.05) for db in (-0.02, 0, 0.02))


def test_without_noise_the_interval_is_the_binomial_one() -> None:
    found = forecast(Fit(a=-2, b=1, s=1e-6, lowest=0.01, highest=1), kl=0.1, dense=0.8, n=150)
    share = 0.8 * expit(-2 - np.log(0.1))
    assert found.accuracy == pytest.approx(share)
    assert (found.low, found.high) == tuple(binom.ppf([0.05, 0.95], 150, share) / 150)


def test_it_says_where_it_extrapolates_and_that_accuracy_falls_with_distance() -> None:
    curve = Fit(a=-3, b=1.2, s=0.5, lowest=0.01, highest=1)
    found = [forecast(curve, kl, 0.9, 200) for kl in (0.0, 0.009, 0.01, 0.1, 1, 1.1)]
    assert [e.extrapolated for e in found] == [True, True, False, False, False, True]
    assert all(a.accuracy > b.accuracy for a, b in itertools.pairwise(found))
    assert found[0].accuracy == pytest.approx(0.9, abs=1e-3), "no distance, no loss"


def test_one_arm_says_nothing_about_another() -> None:
    with pytest.raises(ValueError, match="two ways"):
        fit([GridCell("task", "only", 0.1, 0.9, 50, 100)])
