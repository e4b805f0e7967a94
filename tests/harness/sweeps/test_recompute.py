"""The intervals of a sweep or a dissociation, computed again by tests/recompute, without the code of the product."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.core.statistics import paired_ratio, wilson
from harness.core.types.evaluation import EvalResult
from harness.core.types.run import Variant
from harness.core.types.serving import SpeedRatio
from harness.core.types.sweep import SweepSummary
from harness.evaluation.paired import compare, recovered_fraction
from harness.pipeline.run_json import build_run
from harness.sweeps.claims import RULES, judge
from harness.sweeps.curves import GridPoint, item_outcomes, read_outcomes, sweep_points, thresholds
from harness.sweeps.evidence import Evidence
from harness.sweeps.specificity import with_specificity
from tests import recompute
from tests.support.runs import make_variant

EXAMPLES = sorted((Path(__file__).parents[3] / "reports" / "example").glob("*/run.json"))
METRICS = {"math": "exact_match", "facts": "exact_match", "code": "exact_match"}
RATIOS = (0.1, 0.15, 0.2, 0.25, 0.3, 0.35)
HARD = np.random.default_rng(3).random((3, 60))


def answered(folder: Path, name: str, ratio: float, levels: Sequence[float], method: str = "selective") -> Variant:
    """A variant with its answers to the first tasks, one for each level."""
    evals = {}
    for (task, metric), level, hard in zip(METRICS.items(), levels, HARD, strict=False):
        right = hard + np.random.default_rng(len(name) + ord(name[-1])).normal(0, 0.1, 60) < level
        file = folder / "samples" / name / f"{task}.jsonl"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(json.dumps({"doc_id": i, "correct": bool(r)}) + "\n" for i, r in enumerate(right)))
        evals[task] = EvalResult(
            n=60,
            metric=metric,
            value=float(right.mean()),
            ci_low=wilson(int(right.sum()), 60)[0],
            ci_high=wilson(int(right.sum()), 60)[1],
            failures={},
            failure_rate=0.0,
            tokens_per_answer=None,
            seconds=1.0,
            samples=str(file.relative_to(folder)),
        )
    return replace(make_variant(name, ratio), eval=evals, method=method)


def places_in(folder: Path) -> list[GridPoint]:
    """S bends down at 20 %; random is evaluated on every task for two masks of four."""
    found = []
    for r in RATIOS:
        fall = max(0.0, r - 0.2)
        found.append(GridPoint("selective-S", r, (answered(folder, f"S-{r}", r, (1.0 - 4 * fall, 0.9 - fall, 0.9)),)))
        found.append(GridPoint("selective-best", r, (answered(folder, f"best-{r}", r, (0.95, 0.9, 0.85)),)))
        found.append(GridPoint("reverse-S", r, (answered(folder, f"rev-{r}", r, (0.1, 0.85, 0.8), "reverse"),)))
        found.append(
            GridPoint("matched", r, (answered(folder, f"m-{r}", r, (0.9 - 2.3 * r, 0.9, 0.9 - r), "matched"),))
        )
        masks = [
            answered(
                folder, f"random-{r}-{s}", r, (0.9 - 2 * r - s / 20, 0.9 - r, 0.8 - r)[: 3 if s < 2 else 1], "random"
            )
            for s in range(4)
        ]
        found.append(GridPoint("random", r, tuple(masks[:2]), tuple(masks[2:])))
    return found


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("recompute")
    dense, places = answered(folder, "dense", 0.0, (0.98, 0.95, 0.9)), places_in(folder)
    after, control = ([f"{name}-after{end}" for end in ("", "-2", "-3")] for name in ("S", "dense"))
    levels = zip((*after, *control), (0.9, 0.8, 0.85, 0.9, 0.95, 0.9), strict=True)
    fine_tuned = [answered(folder, name, 0.3, (level, 0.9, 0.9)) for name, level in levels]
    variants = [dense, *(v for p in places for v in p.variants), *fine_tuned]
    e = Evidence(
        outcomes=read_outcomes(folder, METRICS, dense, places),
        speed_ratios=[timed("S-0.3", (1.0, 1.1, 1.05), (1.3, 1.5, 1.2)), timed("S-0.1", (1.0,), (1.1,))],
        recoveries=[recovered_fraction(folder, "S-0.3", after, control, "math")],
        sizes={"S-0.3": ((10, 20), (10, 20))},
        chance=0.0,
        collapse_share=0.1,
        margin=0.05,
        distractors=frozenset({"facts"}),
    )
    items, outcomes = item_outcomes(folder, METRICS, [*variants, *(v for p in places for v in p.masks)])
    summary = SweepSummary(
        points=with_specificity(e, sweep_points(e.outcomes, 0.0, 0.1, 0.05)),
        thresholds=thresholds(e.outcomes, 0.05, (0.0, 0.1), 0.2),
        failed=(),
        collapse_below=0.1,
        seconds=1.0,
        rules=RULES,
        items=items,
        outcomes=outcomes,
    )
    compared = tuple(compare(folder, "dense", p.variants[0].name, t, METRICS[t]) for p in places[:4] for t in METRICS)
    result = replace(
        build_run("m", "math", variants, None),
        comparisons=compared,
        recoveries=tuple(e.recoveries),
        speed_ratios=tuple(e.speed_ratios),
        claims=judge(e),
        sweep=summary,
    )
    found: dict[str, Any] = json.loads(json.dumps(asdict(result), default=str))
    return found


def timed(variant: str, before: tuple[float, ...], after: tuple[float, ...]) -> SpeedRatio:
    ratio, low, high = paired_ratio(before, after)
    return SpeedRatio(variant, "dense", 8, "output_tok_s", len(before), ratio, low, high, 1.2, 1.2, before, after)


@pytest.mark.slow
def test_a_run_of_todays_code_has_no_mismatch_and_a_changed_figure_is_one(run: dict[str, Any]) -> None:
    count, wrong = recompute.mismatches(run)
    assert wrong == [] and count > 700
    assert all(claim["value"] is not None for claim in run["claims"])
    changed = copy.deepcopy(run)
    changed["sweep"]["points"][4]["ci_low"] += 0.001
    for claim in changed["claims"]:
        claim["ci_high"] -= 0.001
    assert len(recompute.mismatches(changed)[1]) == 1 + 7


@pytest.mark.long  # of committed figures alone: no change of the product can fail it
@pytest.mark.slow
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.parent.name)
def test_a_committed_example_has_no_mismatch(example: Path) -> None:
    found = json.loads(example.read_text(encoding="utf-8"))
    if not (found.get("dissociation") or (found.get("sweep") or {}).get("outcomes")):
        pytest.skip("neither a sweep nor a dissociation, or one of before run.json held the answers")
    assert recompute.mismatches(found)[1] == []
