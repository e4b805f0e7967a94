"""The main job on the embedded model, real vLLM and real lm-eval: once whole, once killed and resumed."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import harness as package
from harness.core.run_schema import SCHEMA_VERSION
from harness.pipeline.run_list import list_runs
from tests.support.cli import PATIENCE, harness, invoke

pytestmark = pytest.mark.slow
ARGUMENTS = ["run", "--limit", "24", "--repeats", "1", "--output-tokens", "8", "--calibration-samples", "24", "--json"]
ARM = "selective-best-0.2"
CALIBRATED = "calibrate"  # what it writes is checked with the scores, so that nothing is said of it once they are there
STAGES = {CALIBRATED, "score", f"plan {ARM}", f"export {ARM}", "eval dense", f"eval {ARM}", "serving"}


def start(folder: Path, *extra: str) -> subprocess.Popen[str]:
    return command_line(*ARGUMENTS, "--out", str(folder), *extra)


def command_line(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "harness", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=environment, preexec_fn=_hear_of_a_closed_terminal, **pipes)


def _hear_of_a_closed_terminal() -> None:
    """Also where the tests themselves were started with nohup, which children inherit."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def finish(process: subprocess.Popen[str]) -> tuple[dict[str, Any], str]:
    stdout, stderr = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, stderr[-3000:]
    return json.loads(stdout), stderr


def timeless(run: dict[str, Any]) -> dict[str, Any]:
    """run.json without what a clock decides."""
    copy = json.loads(json.dumps(run))
    copy.pop("created"), copy.pop("command")
    for variant in copy["variants"]:
        for value in variant["eval"].values():
            value.pop("seconds")
        variant["serving"]["concurrency"] = [
            [row["concurrency"], row["repeats"]] for row in variant["serving"]["concurrency"]
        ]
    for ratio in copy["speed_ratios"]:
        for name in ("ratio", "ci_low", "ci_high", "baseline_passes", "variant_passes"):
            ratio.pop(name)
    return copy


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("run") / "whole"
    run = invoke(*ARGUMENTS, "--out", str(folder))[0]
    assert run == json.loads((folder / "run.json").read_text())  # before a test runs in it again
    return folder, run


def test_run_json_keeps_its_contract(whole: tuple[Path, dict[str, Any]]) -> None:
    folder, run = whole
    schema = json.loads((Path(package.__path__[0]) / "run.schema.json").read_text())
    jsonschema.validate(run, schema)
    assert run["task"] == "mini_math" and run["schema_version"] == SCHEMA_VERSION
    dense, pruned = run["variants"]
    assert (dense["method"], pruned["method"], pruned["metric"]) == ("dense", "selective", "obs")
    assert pruned["intermediate_sizes"] == [512] * 4 and dense["checkpoint"] is None
    assert dense["parameters"] - pruned["parameters"] == 4 * 3 * 128 * 128
    for variant in run["variants"]:
        assert set(variant["eval"]) == {"mini_math", "mini_facts", "mini_code"}
        for value in variant["eval"].values():
            rows = [json.loads(line) for line in (folder / value["samples"]).read_text().splitlines()]
            assert len(rows) == value["n"] == 24
            assert sum(row["correct"] for row in rows) / 24 == value["value"]
            assert all(row["finish_reason"] in ("stop", "length") and row["n_tokens"] > 0 for row in rows)
            assert value["failures"]["truncated"] == sum("truncated" in row["failures"] for row in rows) / 24
            assert value["ci_low"] <= value["value"] <= value["ci_high"]
        assert [row["concurrency"] for row in variant["serving"]["concurrency"]] == [1, 32]
        # 2 (key and value) * 4 layers * 2 KV heads * head_dim 32 * 4 bytes
        assert variant["serving"]["kv_bytes_per_token"] == 2048
    assert (folder / pruned["checkpoint"] / "config.json").exists()
    same, far = (variant["eval"]["mini_math"]["kl_to_dense"] for variant in run["variants"])
    assert (same["nats_per_token"], same["agreement"], same["n"]) == (0, 1, 24)
    assert far["nats_per_token"] > 0 and far["tokens"] == same["tokens"]
    assert pruned["eval"]["mini_facts"]["kl_to_dense"] is None, "on the target's prompts alone"


def test_the_embedded_model_does_its_tasks(whole: tuple[Path, dict[str, Any]]) -> None:
    dense = whole[1]["variants"][0]["eval"]
    assert (
        dense["mini_math"]["value"] >= 0.8
        and dense["mini_facts"]["value"] >= 0.85
        and dense["mini_code"]["value"] >= 0.8
    )


def test_report_figures_are_those_of_run_json(whole: tuple[Path, dict[str, Any]]) -> None:
    folder, run = whole
    for name in ("report.html", "report.md"):
        text = (folder / name).read_text().replace("\u00a0", " ")  # between a number and its unit
        for variant in run["variants"]:
            assert f"{variant['parameters']:,}" in text
            for value in variant["eval"].values():
                assert f"{100 * value['value']:.1f} %" in text
            for row in variant["serving"]["concurrency"]:
                assert f"{row['output_tok_s']:.0f}" in text
        for change in run["comparisons"]:
            assert f"{100 * change['difference']:+.1f}" in text
    assert "default-src 'none'" in (folder / "report.html").read_text()


@pytest.mark.thorough
def test_a_run_whose_terminal_is_closed_goes_on_where_it_stopped(
    whole: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    """Ended by SIGHUP once the checkpoint is written; then, by what `harness runs` says, the same plan, answers and
    figures.
    """
    folder, process = tmp_path / "killed", start(tmp_path / "killed")
    manifest, deadline = folder / "manifest.json", time.monotonic() + PATIENCE
    while not (manifest.exists() and f"export {ARM}" in json.loads(manifest.read_text())["stages"]):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    assert [info.state for info in list_runs(tmp_path)] == ["running"]
    process.send_signal(signal.SIGHUP)
    process.communicate()
    done = set(json.loads(manifest.read_text())["stages"])
    assert f"export {ARM}" in done and done < STAGES and not (folder / "run.json").exists()
    (info,) = list_runs(tmp_path)
    assert (info.state, info.stages) == ("killed", len(done)) and "stages done" in info.note
    assert info.resume_command == shlex.join(["harness", *ARGUMENTS, "--out", str(folder)])
    resumed, messages = finish(command_line(*shlex.split(info.resume_command)[1:]))
    assert [info.state for info in list_runs(tmp_path)] == ["finished"]
    assert timeless(resumed) == timeless(whole[1])
    assert (folder / "plan.safetensors").read_bytes() == (whole[0] / "plan.safetensors").read_bytes()
    assert all(f"{name}: done before, skipped" in messages for name in done - {CALIBRATED})
    assert not any(f"{name}: done before" in messages for name in STAGES - done)
    assert not list(folder.glob(".*.*")), "no scratch file of the killed run is left"


def test_the_config_that_a_run_keeps_repeats_it(whole: tuple[Path, dict[str, Any]]) -> None:
    """All stages are known as done: to a run directory, the settings are the same ones."""
    _, said = invoke("run", "--config", str(whole[0] / "config.yaml"), "--out", str(whole[0]), "--json")
    assert said.count("done before, skipped") == len(STAGES - {CALIBRATED})


def test_other_settings_in_the_same_directory_are_refused(whole: tuple[Path, dict[str, Any]]) -> None:
    found = harness(*ARGUMENTS, "--out", str(whole[0]), "--ratio", "0.3")
    assert found.returncode == 2
    assert "ratio: 0.2 there, 0.3 now" in found.stderr and "--fresh" in found.stderr and "Traceback" not in found.stderr
    assert (whole[0] / "run.json").exists()
