"""Searches on the embedded model with a real engine: one that finds, resumed, and one that does not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

import harness as package
from harness.evaluation.paired import read_correct
from pruning.checkpoint import open_model
from pruning.plan_file import load_plan
from tests.recompute.sweep import most_lost
from tests.support.cli import harness, invoke

pytestmark = [pytest.mark.slow, pytest.mark.long]
SHORT = ["--limit", "120", "--align", "128", "--calibration-samples", "24", "--concurrency", "4", "--repeats", "2"]
SEARCH = ["run", "-m", "tiny-math", "--task", "mini_math,mini_facts", *SHORT, "--output-tokens", "8", "--json"]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("goal") / "found"
    return folder, invoke(*SEARCH, "--max-loss", "6", "--out", str(folder))[0]


def test_the_model_that_is_found_keeps_the_limit_and_the_next_narrower_does_not(
    found: tuple[Path, dict[str, Any]],
) -> None:
    folder, run = found
    goal, level = run["goal"], run["goal"]["level"]
    assert level == pytest.approx(0.05 / 3) and goal["widths"] == [128, 512, 4] and goal["looks"] == 3
    dense = read_correct(folder / "samples" / "dense" / "mini_math.jsonl")
    passing, failing = [], []
    for candidate in goal["candidates"]:
        now = read_correct(folder / "samples" / candidate["variant"] / "mini_math.jsonl")
        assert now.keys() == dense.keys() and len(now) == 120
        bits = (np.array([float(of[i]) for i in dense]) for of in (dense, now))
        most = most_lost(*bits, level)
        assert [c["value"] for c in candidate["conditions"]] == [pytest.approx(most)]
        assert candidate["intermediate_size"] == set(load_plan(_plan(folder, candidate)).widths).pop()
        (passing if most <= 0.06 else failing).append(candidate["intermediate_size"])
    chosen = next(c for c in goal["candidates"] if c["variant"] == goal["found"])
    assert chosen["intermediate_size"] == min(passing) and chosen["intermediate_size"] - 128 in (0, *failing)


def _plan(folder: Path, candidate: dict[str, Any]) -> Path:
    return folder / "arms" / candidate["variant"] / "plan.safetensors"


def test_its_checkpoint_is_there_and_the_report_names_it(found: tuple[Path, dict[str, Any]]) -> None:
    folder, run = found
    jsonschema.validate(run, json.loads((Path(package.__path__[0]) / "run.schema.json").read_text()))
    name = run["goal"]["found"]
    assert [v["name"] for v in run["variants"]][:2] == ["dense", name]
    made = open_model(folder / str(run["variants"][1]["checkpoint"]))
    assert made.parameters == run["variants"][1]["parameters"] < run["variants"][0]["parameters"]
    text = (folder / "report.md").read_text()
    assert f"Smallest model found that meets --max-loss 6: {name}" in text and f"{name} (recommended)" in text
    assert {r["variant"] for r in run["speed_ratios"]} == {"dense-again", name}
    written = invoke("prune", str(folder), "--best", "--json")[0]
    assert written["variant"] == name and Path(written["checkpoint"]) == made.path


def test_a_search_resumes_and_another_goal_is_refused_in_its_directory(found: tuple[Path, dict[str, Any]]) -> None:
    folder, run = found
    again, said = invoke(*SEARCH, "--max-loss", "6", "--out", str(folder))
    assert again["goal"] == run["goal"] and "Starting" not in said and said.count("done before, skipped") >= 8
    other = harness(*SEARCH, "--max-loss", "7", "--out", str(folder))
    assert other.returncode == 2 and "holds a run with other settings (goal:" in other.stderr


def test_where_none_meets_the_goal_the_nearest_is_named_and_the_command_fails(tmp_path: Path) -> None:
    ended = harness(*SEARCH, "--max-loss", "5", "--params", "600K", "--no-compensate", "--out", str(tmp_path / "none"))
    assert ended.stdout, ended.stderr[-2000:]
    run = json.loads(ended.stdout)
    goal = run["goal"]
    assert ended.returncode == 1 and goal["found"] is None and run["variants"][1]["name"] == goal["nearest"]
    assert f"harness prune {tmp_path / 'none'} --variant {goal['nearest']}" in ended.stderr
    misses = {c["variant"]: max(x["miss"] for x in c["conditions"]) for c in goal["candidates"]}
    assert misses[goal["nearest"]] == min(misses.values()) > 0
    assert "No model was found that meets" in (tmp_path / "none" / "report.md").read_text()
    refused = harness("prune", str(tmp_path / "none"), "--best")
    assert refused.returncode == 2 and "found no model that meets its goal" in refused.stderr
    assert not list((tmp_path / "none").rglob("model.safetensors"))
