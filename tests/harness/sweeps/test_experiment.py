"""A small sweep of the embedded model with two real engines: whole, grown, failing and killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jsonschema
import psutil
import pytest

import harness as package
from harness.core.chat import ChatFormat
from harness.core.text import markdown
from harness.engine.memory_budget import EngineSettings
from harness.engine.vllm_engine import engine
from harness.evaluation.evaluate import evaluate
from harness.evaluation.lm_eval_requests import EvalSpec, VariantEval
from harness.evaluation.paired import read_samples
from pruning.checkpoint import open_model
from tasks.registry import find_task
from tests.recompute import mismatches
from tests.support.cli import PATIENCE, harness, invoke

pytestmark = [pytest.mark.slow, pytest.mark.long]  # test_ray_workers.py has a small one
TASKS = ["--task", "mini_math", "--task", "mini_facts"]
SHORT = [
    "--limit",
    "24",
    "--calibration-samples",
    "24",
    "--align",
    "1",
    "--repeats",
    "2",
    "--output-tokens",
    "8",
    "--concurrency",
    "4",
]
GRID = ["--methods", "smd,rms+refit,random,reverse,matched", "--seeds", "33,42", "--masks", "3"]
COMMON = ["sweep", "-m", "tiny-math", *TASKS, *SHORT, "--workers", "2", "--threads", "1", "--json"]
SWEEP = [*COMMON, *GRID]


def start(folder: Path, *extra: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "harness", *SWEEP, "--ratios", "0.3", "--out", str(folder), *extra]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


SEEDS = ("--recovery-seeds", "2")


def finish(process: subprocess.Popen[str], code: int = 0) -> tuple[dict[str, Any], str]:
    stdout, stderr = process.communicate(timeout=PATIENCE)
    assert process.returncode == code, stderr[-3000:]
    return json.loads(stdout), stderr


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("sweep") / "whole"
    return folder, invoke(
        *SWEEP,
        "--ratios",
        "0.3",
        "--recovered",
        "smd,dense",
        *SEEDS,
        "--steps",
        "4",
        "--curve",
        "0",
        "--out",
        str(folder),
    )[0]


def test_run_json_keeps_its_contract(whole: tuple[Path, dict[str, Any]]) -> None:
    folder, run = whole
    jsonschema.validate(run, json.loads((Path(package.__path__[0]) / "run.schema.json").read_text()))
    assert run == json.loads((folder / "run.json").read_text())
    arms = ["selective-S-0.3", "selective-rms-refit-0.3", "random-0.3-seed33", "random-0.3-seed42", "reverse-S-0.3"]
    arms.append("matched-0.3")
    fine_tuned = ["selective-S-0.3-recovered", "dense-recovered"]
    assert [v["name"] for v in run["variants"]] == ["dense", *arms, *fine_tuned, *(f"{name}-2" for name in fine_tuned)]
    seeds = [v["training"]["recipe"]["seed"] for v in run["variants"][-4:]]
    assert seeds == [0, 0, 1, 1] and {r["seeds"] for r in run["recoveries"]} == {2}
    page = (folder / "report.md").read_text()
    assert page.count("Over 2 seeds of fine-tuning it gains") == 1
    assert [v["compensated"] for v in run["variants"][1:4]] == [False, True, False]
    assert len(run["claims"]) == 7 and run["sweep"]["failed"] == [] and run["sweep"]["seconds"] > 1
    assert {(p["arm"], len(p["variants"])) for p in run["sweep"]["points"]} == {
        ("selective-S", 1),
        ("selective-rms-refit", 1),
        ("random", 2),
        ("reverse-S", 1),
        ("matched", 1),
    }
    masks = {p["task"]: p["masks"] for p in run["sweep"]["points"] if p["arm"] == "random"}
    assert masks["mini_math"] == [*masks["mini_facts"], "random-0.3-seed0"] and len(masks["mini_facts"]) == 2
    assert set(run["sweep"]["outcomes"]["random-0.3-seed0"]) == {"mini_math"}, "on the target alone"
    assert mismatches(run)[1] == []
    distance = {v["name"]: v["eval"]["mini_math"]["kl_to_dense"] for v in run["variants"]}
    assert (distance["dense"]["nats_per_token"], distance["dense"]["agreement"]) == (0, 1)
    refitted, reverse = (distance[name]["nats_per_token"] for name in ("selective-rms-refit-0.3", "reverse-S-0.3"))
    assert 0 < refitted < reverse and distance["dense-recovered"]["nats_per_token"] > 0
    smd = run["variants"][1]
    assert smd["checkpoint"] == "arms/selective-S-0.3/checkpoint" and run["variants"][2]["checkpoint"] is None
    size = (folder / smd["checkpoint"] / "model.safetensors").stat().st_size
    assert {v["weight_bytes"] for v in run["variants"][1:7]} == {size}, "bytes by formula are those that are written"
    again, timed = [r for r in run["speed_ratios"] if r["quantity"] == "output_tok_s"]
    assert (again["variant"], timed["variant"]) == ("dense-again", "selective-S-0.3")
    assert len(timed["baseline_passes"]) == len(timed["variant_passes"]) == 2
    assert run["claims"][3]["value"] == timed["ratio"]
    assert any("parameters and" in line for line in run["claims"][3]["details"])
    assert {r["before"] for r in run["recoveries"]} == {"selective-S-0.3"} and run["claims"][5]["value"] is not None


@pytest.mark.parametrize(
    "arm", ["selective-rms-refit-0.3", pytest.param("random-0.3-seed42", marks=pytest.mark.thorough)]
)
def test_a_cell_is_what_its_exported_checkpoint_answers(
    arm: str, whole: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    folder, _ = whole
    invoke("prune", str(folder), "--variant", arm, "--out", str(tmp_path / "checkpoint"), "--json")
    with engine(
        open_model(tmp_path / "checkpoint"), EngineSettings(max_model_len=512, kv_cache_bytes=1 << 26, threads=1)
    ) as llm:
        eval_spec = EvalSpec(
            "m", tuple(find_task(task) for task in ("mini_math", "mini_facts")), 512, chat=ChatFormat(), limit=24
        )
        evaluate(llm, eval_spec, VariantEval(tmp_path, "it"))
    for task in ("mini_math", "mini_facts"):
        alone, swapped = (
            read_samples(run / "samples" / name / f"{task}.jsonl") for run, name in ((tmp_path, "it"), (folder, arm))
        )
        assert alone == swapped


@pytest.mark.thorough
def test_a_ratio_that_is_added_runs_alone(whole: tuple[Path, dict[str, Any]]) -> None:
    """And what was there before keeps its figures."""
    folder, before = whole
    written = (folder / "samples" / "dense" / "mini_math.jsonl").stat().st_mtime_ns
    run, stderr = invoke(*COMMON, "--ratios", "0.3,0.5", "--methods", "smd", "--out", str(folder))
    assert "2 of 3 variants: evaluated before, skipped" in stderr and "Evaluating 1 variant on" in stderr
    assert "time selective-S-0.3: done before" in stderr
    assert (folder / "samples" / "dense" / "mini_math.jsonl").stat().st_mtime_ns == written
    assert [v["name"] for v in run["variants"]] == ["dense", "selective-S-0.3", "selective-S-0.5"]
    assert [v["eval"] for v in run["variants"][:2]] == [v["eval"] for v in before["variants"][:2]]


@pytest.mark.thorough
def test_a_failed_cell_is_recorded_and_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from harness.config.settings import load_config
    from harness.pipeline import stages
    from harness.pipeline.run_context import RunContext, VariantState
    from harness.sweeps.experiment import sweep

    options = {
        "model": "tiny-math",
        "task": ("mini_facts",),
        "limit": 8,
        "calibration_samples": 8,
        "align": 1,
        "threads": 1,
    }
    grid = {
        "methods": "smd,random",
        "ratios": "0.3",
        "seeds": "1",
        "off_target": (),
        "concurrency": (2,),
        "repeats": 1,
        "output_tokens": 4,
    }
    config = load_config(None, {**options, **grid})
    real = stages.plan

    def broken(run: RunContext, arm: Any) -> VariantState:
        if arm.kind == "random":
            raise ValueError("the dog ate it\nall of it")
        return real(run, arm)

    monkeypatch.setattr(stages, "plan", broken)
    run, folder = sweep(config, tmp_path / "run", False)
    assert run.sweep and [(f.cell, f.reason) for f in run.sweep.failed] == [
        ("plan random-0.3-seed1", "ValueError: the dog ate it")
    ]
    assert [v.name for v in run.variants] == ["dense", "selective-S-0.3"]
    assert "missing" in run.claims[0].details[0] and "the dog ate it" in (folder / "report.html").read_text()
    monkeypatch.undo()
    again, _ = sweep(config, tmp_path / "run", False)
    assert again.sweep and not again.sweep.failed and len(again.variants) == 3 and again.claims[0].value is not None


@pytest.mark.thorough
def test_a_killed_sweep_goes_on_to_the_same_figures(whole: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    """Killed when so many variants were evaluated; those are not evaluated again, and the workers end with their
    parent.
    """
    folder, done = tmp_path / "killed", 3
    process, deadline = start(folder), time.monotonic() + PATIENCE
    while len(list(folder.glob("eval/*.json"))) < done:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    children = psutil.Process(process.pid).children(recursive=True)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    kept = {name for name in json.loads((folder / "manifest.json").read_text())["stages"] if name.startswith("eval")}
    assert len(kept) >= done - 1
    written = {name: (folder / "samples" / name[5:] / "mini_math.jsonl").stat().st_mtime_ns for name in kept}
    orphans = [child for child in children if not gone(child)]
    assert not orphans, "workers end with their parent"
    run, stderr = finish(start(folder))
    assert not kept or f"{len(kept)} of 8 variants: evaluated before, skipped" in stderr
    assert {name: (folder / "samples" / name[5:] / "mini_math.jsonl").stat().st_mtime_ns for name in kept} == written
    expected = {v["name"]: v["eval"]["mini_math"]["value"] for v in whole[1]["variants"]}
    assert all(expected[v["name"]] == v["eval"]["mini_math"]["value"] for v in run["variants"])
    assert run["sweep"]["points"] == whole[1]["sweep"]["points"]


def gone(process: psutil.Process) -> bool:
    try:
        process.wait(120)
    except psutil.TimeoutExpired:
        return False
    return True


def test_other_items_need_another_directory(whole: tuple[Path, dict[str, Any]]) -> None:
    found = harness(*SWEEP, "--ratios", "0.3", "--out", str(whole[0]), "--limit", "12")
    assert found.returncode == 2 and "limit: 24 there, 12 now" in found.stderr


def test_the_report_shows_the_figures_of_run_json(whole: tuple[Path, dict[str, Any]]) -> None:
    text = (whole[0] / "report.md").read_text()
    run = json.loads((whole[0] / "run.json").read_text())
    for claim in run["claims"]:
        assert claim["verdict"] in text and markdown(claim["claim"]) in text
    for point in run["sweep"]["points"]:
        assert f"{100 * point['value']:.1f} %" in text and f"{100 * point['difference']:+.1f}" in text
    assert "default-src 'none'" in (whole[0] / "report.html").read_text()
