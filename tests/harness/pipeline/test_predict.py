"""`harness plan --predict`: what it refuses, and against a run that exports and evaluates the same variant."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.config.settings import load_config
from harness.core.errors import UsageError
from harness.pipeline.predict import _resolve, predict
from tests.support.cli import harness, invoke
from tests.support.data import make_data_folder

HOW = [
    "--method",
    "reverse",
    "--ratio",
    "0.2",
    "--limit",
    "24",
    "--calibration-samples",
    "24",
    "--threads",
    "1",
    "--json",
]


@pytest.mark.slow
@pytest.mark.long
def test_the_distance_is_that_of_the_exported_checkpoint(tmp_path: Path) -> None:
    found = json.loads(harness("plan", "tiny-math", "--predict", *HOW, cwd=tmp_path).stdout)
    assert list(tmp_path.iterdir()) == [], "nothing is written"
    measure = ["--task", "mini_math", "--task", "mini_facts", "--repeats", "1", "--output-tokens", "8"]
    run, _ = invoke("run", "--model", "tiny-math", *HOW, *measure, "--out", str(tmp_path / "run"))
    dense, pruned = (v["eval"]["mini_math"] for v in run["variants"])
    (row,) = found["rows"]
    assert (found["n"], found["dense"]) == (24, dense["value"])
    assert row["ratio_neurons"] == run["variants"][1]["ratio_neurons"]
    assert row["kl"]["nats_per_token"] == pytest.approx(pruned["kl_to_dense"]["nats_per_token"], rel=1e-3)
    assert row["kl"]["agreement"] == pytest.approx(pruned["kl_to_dense"]["agreement"], abs=0.01)
    assert row["forecast"]["low"] <= pruned["value"] <= row["forecast"]["high"] < dense["value"]


def test_one_task_is_forecast() -> None:
    config = load_config(None, {"model": "tiny-math", "task": ("mini_math", "mini_facts")})
    with pytest.raises(UsageError, match="forecasts one task, and mini_math, mini_facts are named; give one --task"):
        predict(config, 0.2)


@pytest.mark.slow
def test_choices_among_given_answers_are_not_forecast(tmp_path: Path) -> None:
    rows = [{"q": f"{i} + {i} =", "options": ["1", str(2 * i)]} for i in range(9)]
    for split, part in (("train", rows[:5]), ("test", rows[5:])):
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    files = {split: str(tmp_path / f"{split}.jsonl") for split in ("train", "test")}
    (tmp_path / "exam.yaml").write_text(
        f"task: exam\ndataset_path: json\ndataset_kwargs: {{data_files: {json.dumps(files)}}}\ntraining_split: train\n"
        "test_split: test\noutput_type: multiple_choice\ndoc_to_text: q\ndoc_to_choice: options\ndoc_to_target: 1\n"
        "metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]\n"
    )
    config = load_config(None, {"model": "tiny-math", "task": "exam", "include_path": tmp_path})
    with pytest.raises(UsageError, match="answers that are generated, and exam chooses among given ones; give another"):
        predict(config, 0.2)


@pytest.mark.slow
def test_data_of_tasks_that_are_not_forecast_are_not_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """arc_easy, which a run evaluates beside, is on the Hub, which tests cannot reach."""
    monkeypatch.setenv("HARNESS_DATA_DIR", str(make_data_folder(tmp_path)))
    spec = _resolve(load_config(None, {"model": "qwen-7b", "task": "gsm8k"}), True, (0.1, 0.2))
    assert [task.name for task in spec.tasks] == ["gsm8k_boxed"] and len(spec.arms) == 2
