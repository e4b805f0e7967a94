"""The rules for the claims, on outcomes made for each verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.core.statistics import paired_mean_difference, ratio_mean
from harness.core.types.run import Variant
from harness.core.types.serving import SpeedRatio
from harness.core.types.training import Recovery
from harness.sweeps.claims import BEST, PAPER, RANDOM, REVERSE, Evidence, judge
from harness.sweeps.curves import GridPoint, Outcomes
from tests.support.runs import make_variant

N = 400
RATIOS = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35)
Levels = Mapping[str, Mapping[float, float | Sequence[float]]]  # arm -> ratio -> accuracy, of every seed


def right(level: float, seed: int = 0) -> list[float]:
    """A share `level` of N items right, always the first ones, but for a few that a seed shifts."""
    return [float((i + 7 * seed) % N < round(level * N)) for i in range(N)]


def variant(name: str, ratio: float) -> Variant:
    return make_variant(name, ratio)


def evidence(levels: Levels, others: Levels | None = None, **more: Any) -> Evidence:
    places, table = [], {("dense", 0.0): {"math": np.array([right(0.9)]), "facts": np.array([right(0.95)])}}
    for arm, along in levels.items():
        for ratio, level in along.items():
            seeds = [level] if isinstance(level, float) else level
            places.append(
                GridPoint(arm, ratio, tuple(variant(f"{arm}-{ratio:g}-{i}", ratio) for i in range(len(seeds))))
            )
            other = (others or {}).get(arm, {}).get(ratio, 0.95)
            table[arm, ratio] = {
                "math": np.array([right(value, i) for i, value in enumerate(seeds)]),
                "facts": np.array([right(other) for _ in seeds]),  # type: ignore[arg-type]
            }
    dense = GridPoint("dense", 0.0, (variant("dense", 0.0),))
    outcomes = Outcomes(
        run=Path(),
        metrics={"math": "exact_match", "facts": "exact_match"},
        dense=dense,
        places=tuple(places),
        right=table,
    )
    return replace(
        Evidence(
            outcomes=outcomes, speed_ratios=(), recoveries=(), sizes={}, chance=0.0, collapse_share=0.1, margin=0.05
        ),
        **more,
    )


def along(value: float | Sequence[float]) -> dict[float, float | Sequence[float]]:
    return dict.fromkeys(RATIOS, value)


def claim(number: int, found: Evidence) -> Any:
    return judge(found)[number - 1]


def test_selective_has_to_beat_random_at_every_ratio() -> None:
    good = claim(1, evidence({PAPER: along(0.8), RANDOM: along([0.5, 0.52, 0.48])}))
    expected = paired_mean_difference(right(0.8), [right(0.5), right(0.52, 1), right(0.48, 2)])
    assert (
        good.verdict == "supported"
        and (good.value, good.ci_low, good.ci_high) == pytest.approx(expected)
        and good.n == N
    )
    one_bad = {PAPER: {**along(0.8), 0.2: 0.3}, RANDOM: along([0.5])}
    found = claim(1, evidence(one_bad))
    assert found.verdict == "not supported" and found.value == pytest.approx(-0.2)
    close = claim(1, evidence({PAPER: {**along(0.8), 0.2: 0.51}, RANDOM: {**along([0.5]), 0.2: [0.49, 0.51, 0.5]}}))
    assert close.verdict == "cannot say" and close.n_needed > N
    outside = claim(1, evidence({PAPER: {**along(0.8), 0.05: 0.1}, RANDOM: along([0.5])}))
    assert outside.verdict == "supported", "5 % is not among the ratios of the rule"
    assert claim(1, evidence({PAPER: along(0.8)})).verdict == "cannot say"
    failed = evidence({PAPER: {**along(0.8)}, RANDOM: {r: v for r, v in along([0.5]).items() if r != 0.2}})
    failed = replace(failed, outcomes=replace(failed.outcomes, planned={PAPER: RATIOS, RANDOM: RATIOS}))
    assert claim(1, failed).verdict == "cannot say" and "missing: 20.0 %" in claim(1, failed).details[0]


def test_arms_are_known_by_what_they_are() -> None:
    found = evidence({f"{PAPER}-global": along(0.8), RANDOM: along([0.5])}, roles={PAPER: f"{PAPER}-global"})
    assert [claim(number, found).verdict for number in (1, 3)] == ["supported", "supported"]


def test_reverse_has_to_collapse_and_to_be_specific() -> None:
    reverse: Levels = {REVERSE: {0.1: 0.0}}
    found = claim(2, evidence(reverse, {REVERSE: {0.1: 0.93}}))
    assert found.verdict == "supported" and found.value == pytest.approx(0.9 - 0.02, abs=1e-9)
    salience = claim(2, evidence({REVERSE: {0.1: 0.05}}, {REVERSE: {0.1: 0.0}}))
    assert salience.verdict == "not supported", "everything falls: general salience"
    assert claim(2, evidence({REVERSE: {0.1: 0.3}}, {REVERSE: {0.1: 0.93}})).verdict == "not supported"
    unable = evidence({REVERSE: {0.1: 0.0}}, {REVERSE: {0.1: 0.0}})
    for table in unable.outcomes.right.values():
        table["facts"][:] = 0.0  # type: ignore[index]
    assert claim(2, unable).value is None, "a task that the dense model cannot do has nothing to lose"
    nearly = claim(2, evidence({REVERSE: {0.1: 0.08}}, {REVERSE: {0.1: 0.93}}))
    assert nearly.verdict == "cannot say" and nearly.n_needed > N and "gone below 9.0 %" in nearly.details[0]


def test_a_substantial_part_is_half_of_what_dense_has() -> None:
    found = claim(3, evidence({PAPER: {0.3: 0.6}}))
    value, low, high = ratio_mean(right(0.6), right(0.9))
    assert found.verdict == "supported" and found.value == pytest.approx(value)
    assert low - 0.05 < found.ci_low <= low and high <= found.ci_high < high + 0.05
    same = claim(3, evidence({PAPER: {0.3: 0.9}}))
    assert same.value == 1 and same.ci_low < 0.99 < 1.01 < same.ci_high, (
        "that no item changed does not mean that none would"
    )
    assert claim(3, evidence({PAPER: {0.3: 0.3}})).verdict == "not supported"
    assert claim(3, evidence({PAPER: {0.3: 0.47}})).verdict == "cannot say"
    assert "missing" in claim(3, evidence({PAPER: {0.1: 0.6}})).details[0]


def speed(low: float | None, high: float | None, level: int = 32) -> SpeedRatio:
    return SpeedRatio(
        variant=f"{PAPER}-0.3-0",
        baseline="dense",
        concurrency=level,
        quantity="output_tok_s",
        pairs=5,
        ratio=1.2,
        ci_low=low,
        ci_high=high,
        ideal_flops=1.4,
        ideal_bytes=1.4,
    )


def test_size_is_as_computed_and_speed_above_one() -> None:
    levels: Levels = {PAPER: {0.3: 0.6}}
    same = {f"{PAPER}-0.3-0": ((10, 20), (10, 20))}
    found = claim(4, evidence(levels, speed_ratios=[speed(0.9, 1.5, 1), speed(1.1, 1.3)], sizes=same))
    assert (found.verdict, found.value, found.ci_low) == ("supported", 1.2, 1.1), "the largest concurrency decides"
    assert claim(4, evidence(levels, speed_ratios=[speed(0.9, 1.5)], sizes=same)).verdict == "cannot say"
    assert claim(4, evidence(levels, speed_ratios=[speed(0.7, 0.9)], sizes=same)).verdict == "not supported"
    assert claim(4, evidence(levels, speed_ratios=[speed(None, None)], sizes=same)).verdict == "cannot say"
    larger = {f"{PAPER}-0.3-0": ((10, 20), (10, 24))}
    assert claim(4, evidence(levels, speed_ratios=[speed(None, None)], sizes=larger)).verdict == "not supported"
    assert claim(4, evidence(levels, speed_ratios=[speed(1.1, 1.3)], sizes=larger)).verdict == "not supported"
    assert claim(4, evidence(levels, speed_ratios=[speed(1.1, 1.3)])).value is None


def bent(at: float) -> dict[float, float]:
    return {ratio: 0.9 - 0.1 * ratio - 4.0 * max(0.0, ratio - at) for ratio in RATIOS}


def test_a_knee_is_where_the_paper_says_or_not() -> None:
    found = claim(5, evidence({PAPER: bent(0.175)}))
    assert found.verdict == "supported" and 0.15 <= found.ci_low <= found.value <= found.ci_high <= 0.20
    assert "loses less than 5 points up to" in found.details[0]
    elsewhere = claim(5, evidence({PAPER: bent(0.27)}))
    assert elsewhere.verdict == "not supported" and elsewhere.ci_low > 0.20
    straight = claim(5, evidence({PAPER: {ratio: 0.9 - ratio for ratio in RATIOS}}))
    assert straight.verdict == "not supported" and straight.value is None and "no knee" in straight.details[0]
    assert claim(5, evidence({PAPER: {0.1: 0.5, 0.2: 0.4}})).verdict == "cannot say"


def recovery(half: float, low: float, high: float) -> Recovery:
    return Recovery(
        variant=f"{PAPER}-0.3-0-recovered",
        before=f"{PAPER}-0.3-0",
        control="dense-recovered",
        task="math",
        n=N,
        share=0.8,
        margin_over_half=half,
        ci_low=low,
        ci_high=high,
    )


def test_recovery_is_judged_against_dense_fine_tuned_the_same_way() -> None:
    levels: Levels = {PAPER: {0.3: 0.4}}
    assert claim(6, evidence(levels, recoveries=[recovery(0.1, 0.0, 0.2)])).verdict == "supported"
    assert claim(6, evidence(levels, recoveries=[recovery(0.1, -0.01, 0.2)])).verdict == "cannot say"
    assert claim(6, evidence(levels, recoveries=[recovery(-0.1, -0.2, -0.01)])).verdict == "not supported"
    assert claim(6, evidence(levels)).value is None


def test_the_best_metric_has_its_own_line_of_both_rules() -> None:
    good: Levels = {BEST: along(0.85), RANDOM: along([0.5])}
    assert claim(7, evidence(good)).verdict == "supported" and claim(7, evidence(good)).value == pytest.approx(
        0.85 / 0.9
    )
    weak: Levels = {BEST: along(0.3), RANDOM: along([0.1])}
    assert claim(7, evidence(weak)).verdict == "not supported", "above random, and less than half is left"
    assert claim(7, evidence({PAPER: along(0.8), RANDOM: along([0.5])})).value is None


def test_more_items_than_named_would_decide() -> None:
    """The n of `cannot say` is meant for 80 % power: with so many items of the same kind the claim is decided."""
    levels: Levels = {PAPER: {0.3: 0.48}}
    found = claim(3, evidence(levels))
    value, low, high = ratio_mean(right(0.48), right(0.9))
    half = (high - low) / 2 * (N / found.n_needed) ** 0.5
    assert found.verdict == "cannot say" and value - half > 0.5
