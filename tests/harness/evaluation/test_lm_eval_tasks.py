"""Tasks that are none of ours, through `harness eval`: a user's own YAML beside ours, with the real engine and
lm-eval.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.config.settings import load_config
from harness.core.errors import MeasurementError, UsageError
from harness.core.statistics import wilson
from harness.core.types.evaluation import MetricValue
from harness.evaluation.lm_eval_tasks import _interval, _main_metric, find_builtin
from harness.pipeline.single_stage import evaluate_checkpoint
from tasks.lm_eval_task import metric_choices
from tasks.mini_math.task import items

YAML = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: {kind}
doc_to_text: "{{{{question}}}}"
doc_to_target: {target}
{more}
metadata: {{version: 3}}
"""
CHOICE = (
    "doc_to_choice: ['#### 1', '#### 2', '#### 3']\nmetric_list: "
    "[{metric: acc, aggregation: mean, higher_is_better: true}]"
)
ANSWER = (
    "generation_kwargs: {until: ['<|im_end|>'], max_gen_toks: 8}\n"
    "metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]"
)


@pytest.fixture()
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "own"
    made.mkdir()
    rows = [
        {"question": p.question, "solution": p.solution, "choice": i % 3} for i, p in enumerate(items("validation", 12))
    ]
    (made / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, kind, target, more in [
        ("own_choice", "multiple_choice", "choice", CHOICE),
        ("own_answer", "generate_until", '"{{solution}}"', ANSWER),
    ]:
        (made / f"{name}.yaml").write_text(
            YAML.format(name=name, data=made / "data.jsonl", kind=kind, target=target, more=more)
        )
    (made / "both.yaml").write_text("group: own_group\ntask: [own_choice, own_answer]\n")
    return made


def config(*tasks: str, **more: Any) -> Any:
    return load_config(None, {"model": "tiny-math", "task": tasks, "threads": 2, **more})


@pytest.mark.long
@pytest.mark.slow
def test_a_group_of_foreign_tasks_beside_ours(folder: Path, tmp_path: Path) -> None:
    result = evaluate_checkpoint(
        config("own_group", "mini_facts", limit=9, include_path=folder), tmp_path / "run", False
    )
    found = result.variants[0].eval
    assert list(found) == ["own_choice", "own_answer", "mini_facts"] and result.task == "own_choice"
    choice, answer = found["own_choice"], found["own_answer"]
    assert (choice.metric, choice.n, answer.metric) == ("acc", 9, "exact_match")
    assert (choice.ci_low, choice.ci_high) == pytest.approx(wilson(round(choice.value * 9), 9))
    assert choice.failures["truncated"] is None, "nothing was generated"
    assert answer.failures["truncated"] == 1.0 and answer.failures["no_answer"] == 0.0, (
        "its filter takes the whole text"
    )
    assert answer.value == 0.0 and answer.failure_rate == 1.0 and answer.tokens_per_answer == 8.0
    rows = [json.loads(line) for line in (tmp_path / "run" / answer.samples).read_text().split("\n") if line]
    assert len(rows) == 9 and rows[0]["finish_reason"] == "length" and rows[0]["correct"] is False
    files = list((tmp_path / "run" / "samples" / "tiny-math" / "lm_eval").rglob("samples_*.jsonl"))
    assert {file.name.split("_20")[0] for file in files} == {
        "samples_mini_facts",
        "samples_own_choice",
        "samples_own_answer",
    }
    assert "unknown" in (tmp_path / "run" / "report.md").read_text()


@pytest.mark.long
@pytest.mark.slow
def test_a_task_whose_data_cannot_be_had_is_one_line(folder: Path, tmp_path: Path) -> None:
    (folder / "data.jsonl").unlink()
    with pytest.raises(MeasurementError, match="lm-eval stopped on own_choice"):
        evaluate_checkpoint(config("own_choice", include_path=folder), tmp_path / "run", False)


@pytest.mark.thorough
@pytest.mark.slow
def test_the_leaderboard_is_known_and_an_unknown_name_refused() -> None:
    assert "leaderboard" in find_builtin(["leaderboard", "arc_easy"], None).manager.all_tasks
    with pytest.raises(UsageError, match="neither harness nor lm-eval has a task 'leaderbord'"):
        find_builtin(["leaderbord"], None)


@pytest.mark.parametrize("text", ["gsm8k", "=exact_match", "gsm8k=", "gsm8k=,strict-match"])
def test_a_choice_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=f"--metric-of {text} is not TASK=METRIC"):
        metric_choices([text])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ("own_answer=acc", "own_answer has the metrics exact_match and the filters none"),
        ("own_answer=exact_match,strict", "own_answer has the metrics exact_match and the filters none"),
        ("other=acc", "other is not among the tasks"),
    ],
)
def test_a_metric_that_a_task_has_not_is_refused_before_the_engine_starts(
    choice: str, message: str, folder: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        find_builtin(["own_answer"], folder, metric_choices([choice]))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("names", "read"),
    [
        (["own_answer", "own_choice"], False),
        pytest.param(["own_group"], True, marks=pytest.mark.thorough),  # a group may hold any of them
    ],
)
def test_lm_evals_own_list_is_read_only_where_it_is_needed(names: list[str], read: bool, folder: Path) -> None:
    assert ("arc_easy" in find_builtin(names, folder).manager.all_tasks) is read


def test_the_first_metric_and_filter_of_the_yaml_file_count() -> None:
    found = [MetricValue(m, f, 0.0, None) for f in ("strict", "flexible") for m in ("acc", "f1")]
    config = {"metric_list": [{"metric": "f1"}, {"metric": "acc"}], "filter_list": [{"name": "flexible"}]}
    assert _main_metric(found, config, None) == found[3]
    assert _main_metric(found, config, ("acc", None)) == found[2]
    assert _main_metric(found, config, ("acc", "strict")) == found[0]
    assert _main_metric(found, {}, None) == found[0]


def test_intervals() -> None:
    assert _interval([1.0, 0.0, 1.0, 1.0], 0.75, 0.1) == wilson(3, 4)
    low, high = _interval([1.0, 2.0, 3.0], 2.0, 9.0)
    assert (low, high) == pytest.approx((2 - 1.959964 / 3**0.5, 2 + 1.959964 / 3**0.5))
    assert _interval([None, None], 5.0, 0.5) == pytest.approx((5 - 0.979982, 5 + 0.979982))
    assert _interval([None], 5.0, float("nan")) == (None, None)
