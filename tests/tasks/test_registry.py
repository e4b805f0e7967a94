"""One contract for every row: what is added to the registry is tested here."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from harness.errors import UsageError
from tasks.registry import TASKS, TASKS_PATH, calibration, distractors, find_task

needs_data = pytest.mark.skipif("HARNESS_DATA_DIR" not in os.environ, reason="HARNESS_DATA_DIR is not set, GSM8K is not at hand")
LOCAL = [name for name in TASKS if name != "wikitext"]  # whose training split is not among the local files
ROWS = [pytest.param(name, marks=needs_data if name.startswith("gsm8k") else ()) for name in LOCAL]
GENERATING = [pytest.param(*row.values, marks=row.marks) for row in ROWS if TASKS[str(row.values[0])].generates]


class Loader(yaml.SafeLoader):
    """Reads lm-eval's YAML without its functions."""


Loader.add_constructor("!function", lambda loader, node: loader.construct_scalar(node))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", TASKS)
def test_the_yaml_fits_the_row(name: str) -> None:
    task = TASKS[name]
    config = yaml.load((TASKS_PATH / task.folder / f"{name}.yaml").read_text(), Loader)
    assert config["task"] == name
    assert (config["output_type"] == "generate_until") is task.generates
    if task.generates:
        assert config["generation_kwargs"]["max_gen_toks"] == task.max_new_tokens
    else:
        assert [row["metric"] for row in config["metric_list"]] == [task.metric]
    assert config["test_split"] == "test"
    assert (TASKS_PATH / task.folder / "README.md").exists()
    assert set(task.off_target) <= set(TASKS) - {name}


@pytest.mark.parametrize("name", ROWS)
def test_calibration_and_distractors(name: str) -> None:
    task = TASKS[name]
    source, examples = calibration(task, 10, seed=1)
    sources, general = distractors(task, 20, seed=1)
    assert source and sources
    assert len(examples) == 10 and len(general) == 20
    assert all(e.prompt and e.answer for e in examples)
    assert not {e.prompt for e in examples} & {e.prompt for e in general if e.prompt}
    assert calibration(task, 10, seed=1)[1] == examples
    assert calibration(task, 10, seed=2)[1] != examples


@pytest.mark.parametrize("name", GENERATING)
def test_the_test_split_loads_and_its_references_are_graded(name: str) -> None:
    documents = TASKS[name].module.load()["test"]
    assert len(documents) == TASKS[name].items
    first = documents[0]
    reference = first.get("solution") or first.get("answer") or first["body"]
    text = f"\\boxed{{{first['answer']}}}" if name == "gsm8k_boxed" else reference
    assert TASKS[name].module.extract(name, first, text) is not None
    assert TASKS[name].module.extract(name, first, "  ") is None


def test_gsm8k_means_boxed_for_a_chat_model_and_cot_for_a_base_model() -> None:
    assert find_task("gsm8k", chat=True).name == "gsm8k_boxed"
    assert find_task("gsm8k", chat=False).name == "gsm8k_cot"


def test_an_unknown_task_gets_a_suggestion() -> None:
    with pytest.raises(UsageError, match="did you mean mini_math"):
        find_task("mini_maths")


@needs_data
def test_gsm8k_references_grade_as_right_in_both_forms() -> None:
    from tasks.gsm8k.task import grade

    documents = find_task("gsm8k").module.load()["test"]
    assert len(documents) == 1319
    assert all(grade("gsm8k_cot", d, d["solution"]).correct for d in documents)
    assert all(grade("gsm8k_boxed", d, f"so \\boxed{{{d['answer']}}}").correct for d in documents)
    assert not any(grade("gsm8k_cot", d, "I do not know").correct for d in documents)


def test_a_missing_data_file_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HARNESS_DATA_DIR", str(tmp_path))
    with pytest.raises(UsageError, match=r"gsm8k_train\.jsonl is missing"):
        find_task("gsm8k").module.load()
