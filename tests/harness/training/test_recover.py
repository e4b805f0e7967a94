"""`harness recover` and `harness run --recover` on the embedded model: real TRL, real vLLM, once whole and once
killed.
"""

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
import pytest

import harness as package
from pruning.checkpoint import open_model
from tests.support.cli import PATIENCE, invoke

pytestmark = [pytest.mark.slow, pytest.mark.long]
TASKS = ["--task", "mini_math", "--task", "mini_facts"]
SHORT = ["--limit", "24", "--calibration-samples", "24", "--steps", "24", "--curve", "1"]
SETTINGS = [*TASKS, *SHORT, "--metric", "smd", "--align", "1", "--json"]
RECOVER = ["recover", "tiny-math", "--arms", "selective,dense", "--ratio", "0.5", *SETTINGS]


def start(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "harness", *arguments]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )


def finish(process: subprocess.Popen[str]) -> tuple[dict[str, Any], str]:
    stdout, stderr = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, stderr[-3000:]
    return json.loads(stdout), stderr


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("recover") / "whole"
    return folder, invoke(*RECOVER, "--out", str(folder))[0]


def by_name(run: dict[str, Any]) -> dict[str, Any]:
    return {variant["name"]: variant for variant in run["variants"]}


def test_every_arm_is_pruned_fine_tuned_and_evaluated(whole: tuple[Path, dict[str, Any]]) -> None:
    folder, run = whole
    jsonschema.validate(run, json.loads((Path(package.__path__[0]) / "run.schema.json").read_text()))
    variants = by_name(run)
    assert list(variants) == ["dense", "selective-S-0.5", "selective-S-0.5-recovered", "dense-recovered"]
    assert [v["recovered"] for v in variants.values()] == [False, False, True, True]
    before, after = variants["selective-S-0.5"], variants["selective-S-0.5-recovered"]
    assert after["method"] == "selective" and after["intermediate_sizes"] == before["intermediate_sizes"] == [320] * 4
    assert (after["parameters"], after["weight_bytes"]) == (before["parameters"], before["weight_bytes"])
    assert set(after["eval"]) == {"mini_math", "mini_facts"}
    for name in ("selective-S-0.5-recovered", "dense-recovered"):
        assert open_model(folder / variants[name]["checkpoint"]).parameters == variants[name]["parameters"]
    assert not list(folder.rglob("checkpoint-*"))  # the trainer's own states are gone


def test_the_training_is_told(whole: tuple[Path, dict[str, Any]]) -> None:
    _, run = whole
    training = by_name(run)["selective-S-0.5-recovered"]["training"]
    assert training["source"] == "mini_math (train)" and training["steps"] == 24 and training["examples"] == 24 * 16
    assert [point["step"] for point in training["loss"]] == list(range(1, 25))
    assert training["loss"][-1]["loss"] < 0.5 * training["loss"][0]["loss"]
    start, point, end = training["curve"]
    assert 0 == start["tokens"] < point["tokens"] < training["tokens"] == end["tokens"]
    assert all(p["n"] == 24 and 0 <= p["ci_low"] <= p["value"] <= p["ci_high"] for p in training["curve"])
    values = {name: variant["eval"]["mini_math"]["value"] for name, variant in by_name(run).items()}
    assert (start["value"], end["value"]) == (values["selective-S-0.5"], values["selective-S-0.5-recovered"])
    assert (
        training["recipe"]["seed"] == 0
        and training["expected"]["optimiser_bytes"] == 8 * by_name(run)["selective-S-0.5"]["parameters"]
    )
    assert by_name(run)["dense"]["training"] is None


def test_it_is_compared_with_before_with_the_control_and_with_dense(whole: tuple[Path, dict[str, Any]]) -> None:
    folder, run = whole
    pairs = [(c["baseline"], c["variant"]) for c in run["comparisons"] if c["task"] == "mini_math"]
    assert pairs == [
        ("dense", "selective-S-0.5"),
        ("selective-S-0.5", "selective-S-0.5-recovered"),
        ("dense", "dense-recovered"),
        ("dense-recovered", "selective-S-0.5-recovered"),
        ("dense", "selective-S-0.5-recovered"),
    ]
    recovery = next(r for r in run["recoveries"] if r["task"] == "mini_math")
    values = {name: variant["eval"]["mini_math"]["value"] for name, variant in by_name(run).items()}
    before, after, control = (
        values["selective-S-0.5"],
        values["selective-S-0.5-recovered"],
        values["dense-recovered"],
    )
    assert recovery["share"] == pytest.approx((after - before) / (control - before))
    assert recovery["margin_over_half"] == pytest.approx(after - (before + control) / 2)
    assert recovery["ci_low"] < recovery["margin_over_half"] < recovery["ci_high"]
    text = (folder / "report.md").read_text()
    assert (
        f"Fine-tuning selective-S-0.5 on {by_name(run)['selective-S-0.5-recovered']['training']['tokens']:,} tokens"
        in text
    )
    for title in ("Gap recovered by fine-tuning", "Fine-tuning", "Accuracy during training"):
        assert f"## {title}" in text
    assert "Training loss" in (folder / "report.html").read_text()


@pytest.mark.thorough
def test_a_killed_recovery_goes_on_to_the_same_figures(whole: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    process = start(*RECOVER, "--out", str(tmp_path / "killed"))
    limit = time.monotonic() + PATIENCE
    while (
        not list((tmp_path / "killed").glob("recovery/*/trainer/checkpoint-*/trainer_state.json"))
        and process.poll() is None
        and time.monotonic() < limit
    ):
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    states = sorted((tmp_path / "killed").glob("recovery/*/trainer/checkpoint-*"))
    assert states  # killed in a training, after its first state
    found, stderr = finish(start(*RECOVER, "--out", str(tmp_path / "killed")))
    assert "score: done before, skipped" in stderr
    assert figures(found) == figures(whole[1])


def figures(run: dict[str, Any]) -> Any:
    """Accuracies, losses and comparisons; no clock."""
    rows = [
        [v["name"], {t: e["value"] for t, e in v["eval"].items()}, (v["training"] or {}).get("loss")]
        for v in run["variants"]
    ]
    return [rows, run["comparisons"], run["recoveries"]]


@pytest.mark.thorough
def test_a_pruned_checkpoint_is_fine_tuned_as_it_is(whole: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    folder, run = whole
    checkpoint = folder / by_name(run)["selective-S-0.5"]["checkpoint"]
    arguments = [
        "--task",
        "mini_math",
        "--task",
        "mini_facts",
        "--limit",
        "16",
        "--steps",
        "6",
        "--curve",
        "0",
        "--json",
    ]
    found, _ = invoke(
        "recover", str(checkpoint), *arguments, "--data", "generated", "--tuning", "lora", "--out", str(tmp_path / "r")
    )
    assert list(by_name(found)) == ["pruned", "pruned-recovered"]
    recovered = by_name(found)["pruned-recovered"]
    assert (
        recovered["method"] == "selective"
        and recovered["recovered"]
        and recovered["training"]["recipe"]["tuning"] == "lora"
    )
    assert (
        "answered right by the dense model itself" in recovered["training"]["source"]
        and recovered["training"]["examples"] > 80
    )
    assert found["recoveries"] == [] and [c["baseline"] for c in found["comparisons"]] == ["pruned", "pruned"]


@pytest.mark.thorough
def test_run_recovers_the_pruned_model_and_its_control(tmp_path: Path) -> None:
    """Widths of their own per layer, LoRA, and the dense model's distribution in the loss."""
    arguments = [
        "--allocation",
        "global",
        "--tuning",
        "lora",
        "--distill",
        "0.5",
        "--repeats",
        "1",
        "--output-tokens",
        "8",
        "--concurrency",
        "1",
    ]
    found, _ = invoke(
        "run", "--recover", *SETTINGS, *arguments, "--steps", "4", "--curve", "0", "--out", str(tmp_path / "run")
    )
    variants = by_name(found)
    assert list(variants) == [
        "dense",
        "selective-S-global-0.2",
        "dense-recovered",
        "selective-S-global-0.2-recovered",
    ]
    pruned = variants["selective-S-global-0.2-recovered"]
    assert len(set(pruned["intermediate_sizes"])) > 1 and pruned["eval"]["mini_math"]["n"] == 24
    assert pruned["training"]["recipe"]["distill"] == 0.5 and not variants["dense-recovered"]["serving"]
    timed = [name for name, variant in variants.items() if variant["serving"]]
    assert timed == ["dense", "selective-S-global-0.2", "selective-S-global-0.2-recovered"]
    assert {ratio["baseline"] for ratio in found["speed_ratios"]} == {"dense"}
