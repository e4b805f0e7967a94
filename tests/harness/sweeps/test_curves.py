"""A sweep's points from sample files, against definitions written out here."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from harness.core.mask_statistics import accuracy_over_masks, masks_p_value
from harness.core.statistics import holm, paired_difference, wilson
from harness.core.types.evaluation import EvalResult
from harness.core.types.run import Variant
from harness.sweeps.curves import GridPoint, read_outcomes, sweep_points, thresholds
from harness.sweeps.evidence import RANDOM, Evidence
from harness.sweeps.specificity import with_specificity
from tests.support.claims import RATIOS, evidence
from tests.support.runs import make_variant

METRICS = {"math": "exact_match", "facts": "exact_match", "text": "bits_per_byte"}
RNG = np.random.default_rng(3)
HARD = RNG.random((2, 120))


def outcomes_of(level: float, task: int, seed: int) -> list[bool]:
    noise = np.random.default_rng(seed).normal(0, 0.15, 120)
    return [bool(value) for value in HARD[task] + noise < level]


def write(folder: Path, name: str, levels: tuple[float, float], nats: float, seed: int) -> Variant:
    found = {}
    for task, level in zip(("math", "facts"), levels, strict=True):
        right = outcomes_of(level, int(task == "facts"), seed)
        rows = [{"doc_id": i, "prompt": "", "correct": r} for i, r in enumerate(right)]
        kinds = {"truncated": 0.25 * seed, "wrong": 1 - float(np.mean(right))}
        found[task] = evaluated(folder, name, task, rows, float(np.mean(right)), kinds, 0.25 * seed)
    rows = [{"doc_id": i, "prompt": "", "correct": None, "nll": nats * (10 + i), "units": 10 + i} for i in range(20)]
    found["text"] = evaluated(folder, name, "text", rows, nats / np.log(2), {"truncated": None, "wrong": None}, None)
    return replace(make_variant(name, 0.0 if name == "dense" else float(name.split("-")[1])), eval=found)


def evaluated(
    folder: Path,
    name: str,
    task: str,
    rows: list[dict[str, Any]],
    value: float,
    kinds: dict[str, float | None],
    rate: float | None,
) -> EvalResult:
    file = folder / "samples" / name / f"{task}.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return EvalResult(
        n=len(rows),
        metric=METRICS[task],
        value=value,
        ci_low=None,
        ci_high=None,
        failures=kinds,
        failure_rate=rate,
        tokens_per_answer=None,
        seconds=1.0,
        samples=f"samples/{name}/{task}.jsonl",
    )


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("curves")
    dense = write(folder, "dense", (0.9, 0.95), 1.0, 0)
    seeds = [
        write(folder, f"random-{ratio}-{seed}", (0.9 - ratio, 0.9), 1 + seed * ratio, seed)
        for ratio in (0.1, 0.3)
        for seed in (1, 2)
    ]
    one = write(folder, "smd-0.3", (0.02, 0.9), 1.5, 1)
    places = [
        GridPoint("random", 0.1, tuple(seeds[:2])),
        GridPoint("random", 0.3, tuple(seeds[2:])),
        GridPoint("smd", 0.3, (one,)),
    ]
    return read_outcomes(folder, METRICS, dense, places)


def test_a_point_over_masks_is_the_mean_over_masks_and_items(found: Any) -> None:
    points = sweep_points(found, 0.0, 0.1, 0.05)
    assert [(p.arm, p.ratio_requested, p.task) for p in points] == [
        (arm, ratio, task) for arm, ratio in (("random", 0.1), ("random", 0.3), ("smd", 0.3)) for task in METRICS
    ]
    p = points[3]
    table = np.array([outcomes_of(0.6, 0, seed) for seed in (1, 2)], dtype=float)
    items = table.mean(axis=0)
    assert (p.value, p.sd) == pytest.approx((items.mean(), table.mean(axis=1).std(ddof=1)))
    assert (p.value, p.ci_low, p.ci_high) == pytest.approx(accuracy_over_masks((table > 0).tolist()))
    half = stats.t.ppf(0.975, 1) * table.mean(axis=1).std(ddof=1) / 2**0.5
    assert p.ci_high - p.ci_low > min(1.0, 2 * half), "two masks say little about all"
    change = items - np.array(outcomes_of(0.9, 0, 0))
    assert p.difference == pytest.approx(change.mean()) and p.difference_low < p.difference < p.difference_high
    assert (
        p.failures == {"truncated": pytest.approx(0.375), "wrong": pytest.approx(1 - items.mean())}
        and p.failure_rate == 0.375
    )


def test_a_point_of_one_seed_is_wilsons_and_newcombes(found: Any) -> None:
    p = sweep_points(found, 0.0, 0.1, 0.05)[6]
    right, dense = outcomes_of(0.02, 0, 1), outcomes_of(0.9, 0, 0)
    pair = paired_difference(dense, right)
    assert p.sd is None and (p.ci_low, p.ci_high) == pytest.approx(wilson(sum(right), 120))
    assert (p.difference, p.difference_low, p.difference_high) == (pair.difference, pair.ci_low, pair.ci_high)
    assert p.collapsed == (wilson(sum(right), 120)[1] < 0.1 * np.mean(dense))


def test_specificity_is_of_the_other_tasks(found: Any) -> None:
    evidence = Evidence(found, (), (), {}, chance=0.0, collapse_share=0.1, margin=0.05)
    target, facts, text = with_specificity(evidence, sweep_points(found, 0.0, 0.1, 0.05))[6:9]
    lost = paired_difference(outcomes_of(0.9, 0, 0), outcomes_of(0.02, 0, 1)).difference
    other = paired_difference(outcomes_of(0.95, 1, 0), outcomes_of(0.9, 1, 1)).difference
    assert facts.specificity is not None and facts.specificity[0] == pytest.approx(other - lost)
    assert facts.beyond_random is not None and facts.beyond_matched is None
    assert target.specificity is None and text.specificity is None


def test_everywhere_is_where_no_task_loses_more_than_its_margin(found: Any) -> None:
    random = thresholds(found, 0.9, (0.0, 0.1))[0]
    assert random.everywhere == min(random.non_inferior, random.everywhere) and random.off_target_margin == 0.9
    strict = thresholds(found, 0.9, (0.0, 0.1), elsewhere=0.001)[0]
    assert (strict.everywhere, strict.off_target_margin) == (0.0, 0.001)


def test_p_values_are_adjusted_over_every_task_with_right_answers(found: Any) -> None:
    points = sweep_points(found, 0.0, 0.1, 0.05)
    assert [p.holm_p is None for p in points] == [task == "text" for _ in range(3) for task in METRICS]
    one = [
        paired_difference(outcomes_of(d, t, 0), outcomes_of(level, t, 1)).p_value
        for d, level, t in ((0.9, 0.02, 0), (0.95, 0.9, 1))
    ]
    many = [
        masks_p_value(outcomes_of(d, t, 0), [outcomes_of(level, t, s) for s in (1, 2)])
        for level, d, t in ((0.8, 0.9, 0), (0.9, 0.95, 1), (0.6, 0.9, 0), (0.9, 0.95, 1))
    ]
    assert [p.holm_p for p in points if p.holm_p is not None] == pytest.approx(holm([*many, *one]))


def test_a_likelihood_is_pooled_over_seeds(found: Any) -> None:
    p = sweep_points(found, 0.0, 0.1, 0.05)[5]
    assert p.value == pytest.approx((1.3 + 1.6) / 2 / np.log(2)) and p.sd == pytest.approx(0.3 / np.log(2) / 2**0.5)
    over = stats.t.ppf(0.975, 1) * 0.3 / 2**0.5 / 2**0.5  # in nats; all texts are alike, so nothing is over items
    assert over > 1.45 and (p.ci_low, p.ci_high) == (0, pytest.approx((1.45 + over) / np.log(2)))
    less = sweep_points(found, 0.0, 0.1, 0.05)[2]
    assert less.ci_low == pytest.approx((1.15 - over / 3) / np.log(2)), "of 1.1 and 1.2 nats"
    change = (0.45 - over) / np.log(2), (0.45 + over) / np.log(2)
    assert (p.difference_low, p.difference_high) == pytest.approx(change)
    assert (
        p.difference == pytest.approx(0.45 / np.log(2))
        and p.collapsed is None
        and p.specificity is None
        and p.failure_rate is None
    )


def test_a_perplexity_is_widened_by_its_masks_in_nats(found: Any) -> None:
    in_nats = read_outcomes(found.run, {"text": "perplexity"}, found.dense.variants[0], found.places)
    p, _, one = sweep_points(in_nats, 0.0, 0.1, 0.05)
    over = stats.t.ppf(0.975, 1) * 0.1 / 2**0.5 / 2**0.5
    assert (p.value, p.ci_low, p.ci_high) == pytest.approx(tuple(np.exp([1.15, 1.15 - over, 1.15 + over])))
    assert (p.difference, p.difference_low, p.difference_high) == pytest.approx((0.15, 0.15 - over, 0.15 + over))
    assert (one.ci_low, one.ci_high) == pytest.approx((np.exp(1.5), np.exp(1.5))), "of one mask over items alone"


def test_a_target_without_right_answers_has_no_specificity_and_no_threshold(found: Any) -> None:
    metrics = {"text": "bits_per_byte", "math": "exact_match", "facts": "exact_match"}
    outcomes = read_outcomes(found.run, metrics, found.dense.variants[0], found.places)
    points = sweep_points(outcomes, 0.0, 0.1, 0.05)
    assert outcomes.others == ["math", "facts"] and len(points) == 9
    evidence = Evidence(outcomes, (), (), {}, chance=0.0, collapse_share=0.1, margin=0.05)
    assert with_specificity(evidence, points) == points and thresholds(outcomes, 0.05, (0.0, 0.1)) == ()


def test_thresholds_go_up_to_the_first_ratio_that_is_not_shown(found: Any) -> None:
    random, smd = thresholds(found, 0.9, (0.0, 0.1))
    assert random.non_inferior == 0.3 and random.support is None, "two ratios are too few for a knee"
    assert smd.non_inferior == 0.0, "nearly all is lost at 0.3"
    assert thresholds(found, 0.01, (0.0, 0.1))[0].non_inferior == 0.0


def test_a_random_threshold_passes_over_ratios_with_too_few_masks() -> None:
    def random(counts: dict[float, int], level: float = 0.9) -> float:
        made = evidence({RANDOM: {ratio: [level] * count for ratio, count in counts.items()}}).outcomes
        places = [replace(p, variants=tuple(replace(v, method="random") for v in p.variants)) for p in made.places]
        return thresholds(replace(made, places=tuple(places)), 0.05, (0.0, 0.1))[0].non_inferior

    assert random({0.1: 18, 0.2: 3}) == 0.0
    assert random({0.05: 3, 0.1: 19, 0.2: 20, 0.5: 3}) == pytest.approx(0.2)
    assert random({0.1: 19, 0.2: 19}, level=0.8) == 0.0


def test_what_the_dense_model_cannot_do_has_no_threshold() -> None:
    found = thresholds(evidence({"selective-S": dict.fromkeys(RATIOS, 0.0)}, dense=0.0).outcomes, 0.05, (0.0, 0.1))[0]
    assert (found.non_inferior, found.everywhere, found.shape) == (0.0, 0.0, None)
