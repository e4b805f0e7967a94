"""The checkpoint of a variant of a finished run, from the plan that lies in the run directory."""

from __future__ import annotations

import fcntl
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.core.errors import HarnessError, UsageError
from harness.core.types.pruning import PruningPlan
from harness.pipeline.prune import prune_variant
from pruning.checkpoint import open_model
from pruning.export import export
from pruning.plan_file import save_plan
from tests.support.cli import harness, invoke
from tests.support.models import TINY_MATH
from tests.support.runs import EXAMPLE

ARM, OTHER = "selective-best-0.5", "selective-S-0.3"


def plan_of(width: int, metric: str) -> PruningPlan:
    chance = np.random.default_rng(width)
    return PruningPlan(
        keep=tuple(np.sort(chance.permutation(640)[:width]).astype(np.int32) for _ in range(4)),
        intermediate_size=640,
        method="selective",
        metric=metric,
        ratio=1 - width / 640,
        seed=0,
        alignment=1,
        model="tiny-math",
        model_kind="alias",
        model_hash=open_model(TINY_MATH).fingerprint,
        scores_hash="hash",
        tokens="all",
    )


def record(folder: Path, **changes: Any) -> None:
    """run.json of the example, its recommended arm without re-fitted columns."""
    run = {**json.loads(EXAMPLE.read_text(encoding="utf-8")), **changes}
    run["model_hash"] = open_model(TINY_MATH).fingerprint
    for variant in run["variants"]:
        variant["compensated"] = False
    (folder / "run.json").write_text(json.dumps(run), encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = tmp_path / "sweep"
    for arm, width, metric in ((ARM, 320, "obs"), (OTHER, 448, "smd")):
        (found / "arms" / arm).mkdir(parents=True)
        save_plan(plan_of(width, metric), found / "arms" / arm / "plan.safetensors")
    record(found)
    return found


def weights(checkpoint: Path) -> bytes:
    return (checkpoint / "model.safetensors").read_bytes()


def test_the_recommended_one_is_written_beside_its_plan(folder: Path, tmp_path: Path) -> None:
    found, _ = invoke("prune", str(folder), "--best", "--json")
    out = folder / "arms" / ARM / "checkpoint"
    export(open_model(TINY_MATH), plan_of(320, "obs"), tmp_path / "direct")
    assert weights(out) == weights(tmp_path / "direct")
    assert (found["variant"], found["checkpoint"], found["serve"]) == (ARM, str(out), f"vllm serve {out}")


def test_any_variant_can_be_written_and_elsewhere(folder: Path, tmp_path: Path) -> None:
    found = prune_variant(folder, OTHER, tmp_path / "mine")
    assert found.made.widths == (448,) * 4 and not (folder / "arms" / OTHER / "checkpoint").exists()


def test_what_is_there_is_not_written_again_and_another_plans_is_not_kept(folder: Path) -> None:
    first = prune_variant(folder, None, None)
    before = (first.checkpoint / "model.safetensors").stat()
    again = prune_variant(folder, None, None)
    assert (again.checkpoint / "model.safetensors").stat() == before
    shutil.copytree(first.checkpoint, folder / "arms" / OTHER / "checkpoint")
    assert prune_variant(folder, OTHER, None).made.widths == (448,) * 4


@pytest.mark.parametrize(
    ("change", "variant", "message"),
    [
        ({"sweep": None}, "dense", "dense is the model that was given"),
        ({}, "selective-S-0.33", "no variant 'selective-S-0.33'; give one with --variant: selective-S-0.3"),
        ({}, "selective-S-0.2", "`harness sweep --preset laptop --out runs/laptop` makes it"),
        ({"command": None}, "selective-S-0.2", "the same run again makes it"),
        ({"dissociation": None, "variants": None}, None, "recommends no variant; nothing was pruned in it"),
    ],
)
def test_what_cannot_be_written_is_refused(
    folder: Path, change: dict[str, Any], variant: str | None, message: str
) -> None:
    run = json.loads((folder / "run.json").read_text())
    if "variants" in change:
        change = {**change, "sweep": None, "variants": run["variants"][:1], "comparisons": [], "speed_ratios": []}
    (folder / "run.json").write_text(json.dumps({**run, **change}))
    with pytest.raises(UsageError) as raised:
        prune_variant(folder, variant, None)
    assert message in str(raised.value)


def test_where_no_margin_is_shown_to_hold_nothing_is_recommended(folder: Path) -> None:
    run = json.loads((folder / "run.json").read_text())
    for threshold in run["sweep"]["thresholds"]:
        threshold["non_inferior"] = 0.0
    (folder / "run.json").write_text(json.dumps(run))
    with pytest.raises(UsageError, match=r"is shown to lose less than 5 points; give one with --variant: sel"):
        prune_variant(folder, None, None)


@pytest.mark.parametrize(
    "changes", [{"metric": "rms"}, {"model_hash": "other"}, {"keep": plan_of(321, "obs").keep}], ids=str
)
def test_a_plan_that_is_not_the_variants_is_refused(folder: Path, changes: dict[str, Any]) -> None:
    save_plan(replace(plan_of(320, "obs"), **changes), folder / "arms" / ARM / "plan.safetensors")
    with pytest.raises(UsageError, match=rf"not the plan of {ARM} by run\.json"):
        prune_variant(folder, None, None)


def test_a_model_with_other_weights_by_now_is_refused(folder: Path) -> None:
    run = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**run, "model_hash": "other"}))
    save_plan(replace(plan_of(320, "obs"), model_hash="other"), folder / "arms" / ARM / "plan.safetensors")
    with pytest.raises(HarnessError, match="other weights by now"):
        prune_variant(folder, None, None)
    assert not (folder / "arms" / ARM / "checkpoint").exists()


def test_columns_that_are_gone_are_missed_before_anything_is_written(folder: Path) -> None:
    run = json.loads((folder / "run.json").read_text())
    next(v for v in run["variants"] if v["name"] == ARM)["compensated"] = True
    (folder / "run.json").write_text(json.dumps(run))
    save_plan(replace(plan_of(320, "obs"), compensated=True), folder / "arms" / ARM / "plan.safetensors")
    with pytest.raises(UsageError, match=r"compensation\.safetensors is not there"):
        prune_variant(folder, None, None)


def test_a_run_at_work_is_left_alone(folder: Path) -> None:
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UsageError, match="is at work"):
            prune_variant(folder, None, None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give PLAN with a model, or --best"),
        (("p.safetensors", "--best", "--out", "x"), "one of them"),
        (("--best", "--variant", "x"), "one of them"),
        (("p.safetensors",), "--out is missing"),
    ],
)
def test_plan_best_and_variant_exclude_each_other(arguments: tuple[str, ...], message: str, tmp_path: Path) -> None:
    found = harness("prune", "tiny-math", *arguments, cwd=tmp_path)
    assert found.returncode == 2 and message in " ".join(found.stderr.split())
