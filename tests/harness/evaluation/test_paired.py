"""Differences and recovered fractions from sample files, against sums written out here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from harness.core.statistics import paired_difference
from harness.evaluation.paired import compare, compare_samples, read_correct, read_samples, recovered_fraction

RNG = np.random.default_rng(0)
HARD = RNG.random(200)


def right(level: float) -> list[bool]:
    """The easiest items right, about a fraction `level` of all."""
    return [bool(hardness < level) for hardness in HARD]


def write(folder: Path, name: str, rows: list[dict[str, Any]], task: str = "t") -> None:
    file = folder / "samples" / name / f"{task}.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def answered(correct: list[bool], first: int = 0) -> list[dict[str, Any]]:
    return [{"doc_id": first + i, "correct": value} for i, value in enumerate(correct)]


def recovered(folder: Path, before: float, after: float, control: float) -> Any:
    for name, level in (("before", before), ("after", after), ("control", control)):
        write(folder, name, answered(right(level)))
    return recovered_fraction(folder, "before", ["after"], ["control"], "t")


def test_the_share_is_of_the_gap_to_the_control(tmp_path: Path) -> None:
    found = recovered(tmp_path, 0.3, 0.7, 0.9)
    then, now, aim = (np.array(right(level), float) for level in (0.3, 0.7, 0.9))
    assert found.share == pytest.approx((now.mean() - then.mean()) / (aim.mean() - then.mean()))
    items = now - (then + aim) / 2
    added = 0.5 * (1 - items.mean()) ** 2 + 0.5 * (1 + items.mean()) ** 2 + items.mean() ** 2  # half an item in a cell
    half = stats.t.ppf(0.975, 199) * ((((items - items.mean()) ** 2).sum() + added) / (201 * 202)) ** 0.5
    assert (found.n, found.margin_over_half) == (200, pytest.approx(items.mean()))
    assert (found.ci_low, found.ci_high) == pytest.approx((items.mean() - half, items.mean() + half))


@pytest.mark.parametrize("control", [0.3, 0.2, 0.305])
def test_where_the_control_is_not_shown_to_be_better_there_is_no_share(control: float, tmp_path: Path) -> None:
    """Equal, worse, and better by an item or two: nothing to bring back, and a division that would say anything."""
    found = recovered(tmp_path, 0.3, 0.6, control)
    assert found.share is None and found.margin_over_half > 0


def test_a_variant_that_loses_more_recovers_a_negative_share(tmp_path: Path) -> None:
    assert recovered(tmp_path, 0.5, 0.3, 0.9).share < 0


def test_only_items_of_all_three_count(tmp_path: Path) -> None:
    write(tmp_path, "before", answered([False] * 10))
    write(tmp_path, "after", answered([True] * 10, first=2))
    write(tmp_path, "control", answered([True] * 10, first=4))
    found = recovered_fraction(tmp_path, "before", ["after"], ["control"], "t")
    assert (found.n, found.share, found.seeds) == (6, 1.0, 1)


def test_seeds_of_fine_tuning_widen_the_interval(tmp_path: Path) -> None:
    """Of three seeds: means, and Student's t on theirs beside the interval over items."""
    write(tmp_path, "before", answered(right(0.3)))
    for seed, (after, control) in enumerate([(0.7, 0.9), (0.6, 0.95), (0.8, 0.9)]):
        write(tmp_path, f"after{seed}", answered(right(after)))
        write(tmp_path, f"control{seed}", answered(right(control)))
    names = [[f"{what}{seed}" for seed in range(3)] for what in ("after", "control")]
    found = recovered_fraction(tmp_path, "before", *names, "t")
    then, after, aim = (
        np.array([right(x) for x in levels], float) for levels in ([0.3], [0.7, 0.6, 0.8], [0.9, 0.95, 0.9])
    )
    items = after - (then + aim) / 2
    seeds = stats.t.interval(0.95, 2, items.mean(), stats.sem(items.mean(axis=1)))
    assert (found.seeds, found.variant, found.control) == (3, "after0", "control0")
    assert found.margin_over_half == pytest.approx(items.mean())
    assert found.gain[0] == pytest.approx((after - then).mean()) and found.gap[0] == pytest.approx((aim - then).mean())
    assert found.share == pytest.approx((after - then).mean() / (aim - then).mean())
    assert found.ci_low < seeds[0] and found.ci_high > seeds[1]
    alone = recovered_fraction(tmp_path, "before", names[0][:1], names[1][:1], "t")
    assert found.ci_high - found.ci_low > 2 * (alone.ci_high - alone.ci_low)


def test_the_difference_is_the_variants_minus_the_baselines(tmp_path: Path) -> None:
    write(tmp_path, "dense", answered(right(0.8)))
    write(tmp_path, "pruned", answered(right(0.5)[:150]))
    found = compare(tmp_path, "dense", "pruned", "t", "exact_match")
    expected = paired_difference(right(0.8)[:150], right(0.5)[:150])
    assert (found.variant, found.baseline, found.task, found.n) == ("pruned", "dense", "t", 150)
    assert found.difference == expected.difference < 0
    assert (found.lost, found.gained, found.mcnemar_p) == (expected.lost, 0, expected.p_value)


def test_similarities_differ_by_their_mean() -> None:
    then = {i: {"score": 1.0} for i in range(4)}
    now = {i: {"score": value} for i, value in enumerate((1.0, 0.5, 0.75, 0.25))}
    found = compare_samples(then, now, "dense", "pruned", "similarity", "similarity")
    assert found.difference == pytest.approx(-0.375) and found.lost is None and found.mcnemar_p is None


def test_a_line_separator_within_a_text_is_no_end_of_a_row(tmp_path: Path) -> None:
    write(tmp_path, "dense", [{"doc_id": 7, "correct": True, "text": "one\u2028two\u0085three"}])
    file = tmp_path / "samples" / "dense" / "t.jsonl"
    assert read_samples(file)[7]["text"] == "one\u2028two\u0085three" and read_correct(file) == {7: True}
