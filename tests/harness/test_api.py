"""The Python API gives what the pipeline gives, names what is wrong at once, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import harness as h
from harness.config.goal_settings import GoalConfig
from harness.config.settings import RunConfig
from harness.core.errors import UsageError
from harness.core.types.pruning import NeuronScores
from harness.core.types.run import RunResult
from harness.pipeline.python_arguments import model_name, out_path, settings_from
from pruning.checkpoint import open_model
from tests.support.models import TINY_MATH, build_model
from tests.support.pruned import plan_keeping

ROOT = Path(__file__).resolve().parents[2]
LAPTOP = ROOT / "tests" / "golden" / "laptop"  # of an older version
HEAVY = ("numpy", "torch", "transformers", "vllm", "lm_eval", "pydantic", "yaml", "click", "rich")


def document(run: RunResult) -> Any:
    """As JSON has it, where a tuple is a list and a key is text."""
    return json.loads(json.dumps(asdict(run), default=str))


def test_every_name_is_there_and_no_other() -> None:
    assert all(callable(getattr(h, name)) for name in h.__all__) and {*h.__all__} <= {*dir(h)}
    with pytest.raises(AttributeError, match="no attribute 'scores'"):
        h.scores  # noqa: B018


@pytest.mark.slow
def test_importing_the_package_imports_nothing_heavy() -> None:
    code = f"import harness, sys; dir(harness); print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: h.run(metric="smdd"), r"argument metric: .*smd"),
        (lambda: h.run(task="mini_maths"), r"argument task: .*mini_math"),
        (lambda: h.score("tiny-maths"), r"argument model: .*tiny-math"),
        (lambda: h.score(metrics=("best", "taylr")), r"taylor"),
        (lambda: h.sweep(methods=["S", "randm"]), r"argument methods: .*randm.*did you mean random"),
        (lambda: h.run(ratio=1.5), r"argument ratio: "),
        (lambda: h.run(metrik="smd"), r"argument metrik: .*did you mean metric"),
        (lambda: h.recover(stepps=5), r"argument stepps: .*no such setting"),
        (lambda: h.run(preset="papr"), r"argument preset: .*paper"),
        (lambda: h.run(config=RunConfig(metric="smdd")), r"metric: .*smd"),
        (lambda: h.bench([]), r"no model to time"),
        (lambda: h.prune("tiny-math", "p", threads=2), r"argument threads is a setting of verify=True"),
        (lambda: h.load_run("/nowhere"), r"no run.json"),
        (lambda: h.plan("/nowhere.safetensors"), r"/nowhere.safetensors"),
        (lambda: h.export("/nowhere.safetensors"), r"/nowhere.safetensors"),
        (lambda: h.export(plan_keeping(TINY_MATH, [np.arange(600)] * 4, 640)), r"the plan is in no file"),
        (lambda: h.elastic("tiny-math", "/nowhere.safetensors"), r"/nowhere.safetensors"),
        (lambda: h.slice_width(TINY_MATH, 320), r"no elastic folder"),
        (lambda: h.vocabulary("tiny-math", size=3), r"3"),
    ],
)
def test_what_is_wrong_is_named_at_once(call: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        call()


def test_prune_takes_no_setting_that_would_have_no_effect() -> None:
    with pytest.raises(TypeError, match="ratio"):
        h.prune("tiny-math", "plan.safetensors", ratio=0.5)  # type: ignore[call-arg]


def test_a_timing_trusts_data_files_only_if_it_is_told_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"code": "def f(): pass", "test_list": ["assert f() is None"], "test_setup_code": ""}
    rows = [{**row, "task_id": number, "text": f"Write program {number:03}."} for number in range(1, 975)]
    (tmp_path / "mbpp.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setenv("HARNESS_DATA_DIR", str(tmp_path))
    with pytest.raises(UsageError, match=r"mbpp\.jsonl is not the published file"):
        h.bench("tiny-math", "mbpp", output_tokens=600)
    with pytest.raises(UsageError, match="give a smaller --output-tokens"):
        h.bench("tiny-math", "mbpp", output_tokens=600, trust_data=True)


def test_a_folder_with_the_name_of_an_alias_is_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = build_model("llama", tmp_path / "tiny-math")
    assert model_name(Path("tiny-math")) == model_name(open_model(Path("tiny-math"))) == str(made)
    assert model_name("tiny-math") == "tiny-math" and model_name(Path("smollm2-135m")) == "smollm2-135m"
    with pytest.raises(UsageError, match="tiny-math is no elastic folder"):
        h.slice_width(Path("tiny-math"), 32)


def test_a_goal_in_the_config_searches_its_own_ratio() -> None:
    asked = RunConfig(goal=GoalConfig(max_loss=5))
    assert settings_from(asked, {"limit": 200}).goal.max_loss == 5
    assert "ratio" not in settings_from(asked, {"limit": 200}).model_fields_set


def test_keywords_win_over_the_config_and_that_over_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_LIMIT", "7")
    monkeypatch.setenv("HARNESS_RATIO", "0.7")
    file = tmp_path / "run.yaml"
    file.write_text("seed: 3\nrecovery: {steps: 9}\n")
    config = RunConfig(ratio=0.3, task=("mini_math",), align=32)
    assert settings_from(config, {}) == config
    mixed = settings_from(config, {"align": 64, "steps": 5, "model": Path("tiny-math"), "metric": None})
    assert (mixed.ratio, mixed.align, mixed.recovery.steps, mixed.model) == (0.3, 64, 5, "tiny-math")
    read = settings_from(str(file), {"ratio": 0.1})
    assert (read.ratio, read.limit, read.seed, read.recovery.steps) == (0.1, 7, 3, 9)
    assert settings_from(None, {"preset": "laptop"}).preset == "laptop"


def test_without_out_every_call_has_a_folder_of_its_own() -> None:
    first, second = out_path(None, "run"), out_path(None, "run")
    assert first != second and first.parent.is_dir() and out_path("there", "run") == Path("there")


def test_a_run_is_read_as_it_was_written() -> None:
    found, raw = h.load_run(LAPTOP / "run.json"), json.loads((LAPTOP / "run.json").read_text())
    assert found.folder == LAPTOP and found == h.load_run(str(LAPTOP))
    values = document(found)
    point = {"masks": [], "detectable": None, "beyond_random": None, "beyond_matched": None, "distractor": False}
    threshold = {"masks": 0, "shape": None, "everywhere": None, "off_target_margin": None}
    sweep = {"rules": 1, "items": {}, "outcomes": {}, **raw["sweep"]}
    sweep["points"] = [{**point, **row} for row in raw["sweep"]["points"]]
    sweep["thresholds"] = [{**threshold, **row} for row in raw["sweep"]["thresholds"]]
    assert found.sweep is not None and values["sweep"] == sweep
    new = {"groups": {}, "structure": None}  # fields that came after this run
    newer = {"filter": None, "metrics": [], "kl_to_dense": None}
    for found_row, row in zip(values["variants"], raw["variants"], strict=True):
        serving = {**row["serving"], "engine": None} if row["serving"] else None
        evals = {task: {**newer, **value} for task, value in row["eval"].items()}
        training = {"parts": [], **row["training"]} if row.get("training") else None
        assert found_row == {**new, **row, "eval": evals, "serving": serving, "training": training}
    assert values["comparisons"] == raw["comparisons"] and values["claims"] == raw["claims"]


def test_a_run_of_the_first_version_is_read_by_todays_names(tmp_path: Path) -> None:
    text = (LAPTOP / "run.json").read_text().replace("selective-best", "selective-obs-refit")
    old = {**json.loads(text), "schema_version": 1}
    old["calibration"]["retain"] = old["calibration"].pop("general_weight")
    (tmp_path / "run.json").write_text(json.dumps(old))
    found = h.load_run(tmp_path)
    assert found.variants == h.load_run(LAPTOP).variants and found.calibration["general_weight"] == 0.0


def test_a_damaged_run_is_refused_with_the_place(tmp_path: Path) -> None:
    raw = json.loads((LAPTOP / "run.json").read_text())
    raw["variants"][1]["parameters"] = "many"
    (tmp_path / "run.json").write_text(json.dumps(raw))
    with pytest.raises(UsageError, match=r"damaged at variants\.1\.parameters"):
        h.load_run(tmp_path)


def test_rows_hold_every_figure() -> None:
    found, raw = h.load_run(LAPTOP).to_rows(), json.loads((LAPTOP / "run.json").read_text())
    table = {(row["variant"], row["task"], row["quantity"]): row for row in found}
    for variant in raw["variants"]:
        for task, result in variant["eval"].items():
            row = table[variant["name"], task, result["metric"]]
            assert [row[key] for key in ("value", "ci_low", "ci_high", "n")] == [
                result[key] for key in ("value", "ci_low", "ci_high", "n")
            ]
            assert row["method"] == variant["method"] and row["ratio_neurons"] == variant["ratio_neurons"]
    assert {len(row) for row in found} == {10}


def test_scores_that_are_in_no_file_can_be_planned_with_but_not_refitted(tmp_path: Path) -> None:
    table = np.random.default_rng(0).random((2, 64)).astype(np.float32)
    scores = NeuronScores({"rms": table, "obs": table}, "m", "0" * 16, "all", "0" * 16)
    plan = h.plan(scores, ratio=0.5, metric="rms", align=1, out=tmp_path / "plan.safetensors")
    assert [list(keep) for keep in plan.keep] == [sorted(np.argsort(-row)[:32]) for row in table]
    assert h.plan(scores, ratio=0.5, metric="rms", align=1).path != plan.path == tmp_path / "plan.safetensors"
    with pytest.raises(UsageError, match="in no file"):
        h.plan(scores, metric="best", align=1)


@pytest.mark.slow
def test_the_forms_of_a_checkpoint_are_those_of_its_plan(tmp_path: Path) -> None:
    scores = h.score("tiny-math", task="mini_math", metrics=("rms",), calibration_samples=4, threads=1)
    plan = h.plan(scores, ratio=0.5, metric="rms")
    checkpoint = h.prune("tiny-math", plan, out=tmp_path / "checkpoint")
    exported = h.export(plan, to="vllm", out=tmp_path / "exported")
    narrow = h.slice_width(h.elastic("tiny-math", scores, metric="rms"), plan.widths[0], out=tmp_path / "narrow")
    trimmed = h.vocabulary("tiny-math", "mini_math", size=320, plan=plan, out=tmp_path / "trimmed")
    files = [path / "model.safetensors" for path in (checkpoint.path, exported.path)]
    assert files[0].read_bytes() == files[1].read_bytes() and exported.serve == f"vllm serve {exported.path}"
    assert narrow.weight_bytes == checkpoint.weight_bytes and narrow.widths == checkpoint.widths == trimmed.made.widths
    assert trimmed.parameters[1] == trimmed.made.parameters < checkpoint.parameters


@pytest.mark.long
@pytest.mark.slow
def test_stage_by_stage_gives_what_a_run_gives(tmp_path: Path) -> None:
    small: dict[str, Any] = {"calibration_samples": 8, "threads": 1}
    timing: dict[str, Any] = {"concurrency": (2,), "repeats": 1, "output_tokens": 4}
    run = h.run("tiny-math", task=["mini_math"], ratio=0.3, limit=12, **small, **timing)
    scores = h.score("tiny-math", task="mini_math", **small)
    plan = h.plan(scores, ratio=0.3, metric="best")
    checkpoint = h.prune(Path("tiny-math"), plan, out=tmp_path / "checkpoint")
    result = h.evaluate(checkpoint, tasks=["mini_math"], limit=12, threads=1)["mini_math"]
    assert run.command is None and run.variants[1].name == "selective-best-0.3"
    made = run.folder / str(run.variants[1].checkpoint)
    for file in ("model.safetensors", "config.json"):
        assert (made / file).read_bytes() == (checkpoint.path / file).read_bytes()
    assert checkpoint.parameters == run.variants[1].parameters
    same: dict[str, Any] = {
        "seconds": 0.0,
        "samples": "",
        "kl_to_dense": None,
    }
    assert replace(result, **same) == replace(run.variants[1].eval["mini_math"], **same)
    assert document(h.load_run(run.folder)) == document(run)


@pytest.mark.long
@pytest.mark.slow
def test_the_readmes_example_leaves_nothing_behind(tmp_path: Path) -> None:
    script = ROOT / "tests" / "support" / "process_state.py"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, str(script), str(ROOT / "README.md")],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found.pop("accuracy") > 0.9
    assert found == {"the example": [], "an exception": [], "another engine": []}
    assert (tmp_path / "ckpt" / "model.safetensors").exists()
