"""One contract for every row: what is added to the registry is tested here."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.core.errors import UsageError
from harness.core.types.calibration import Example
from tasks.failures import GradedAnswer
from tasks.grading import graded
from tasks.lm_eval_files import own_files
from tasks.registry import TASKS, calibration, distractors, evaluated_questions, find_task, training_items
from tasks.task import GENERAL, Task
from tests.support.data import EVALPLUS, OURS, PLATINUM, needs_data

# wikitext's training split is not among the local files; EvalPlus's: test_evalplus.py; Platinum: test_gsm8k.py
LOCAL = [name for name in TASKS if name not in ("wikitext", *EVALPLUS, *PLATINUM)]
ROWS = [pytest.param(name, marks=() if name in OURS else needs_data) for name in LOCAL]
ANSWERED = [name for name in LOCAL if TASKS[name].generates and name != "similarity"]  # which has no right answers
GENERATING = [row for row in ROWS if row.values[0] in ANSWERED]


class Loader(yaml.SafeLoader):
    """Reads lm-eval's YAML without its functions."""


Loader.add_constructor("!function", lambda loader, node: loader.construct_scalar(node))  # type: ignore[arg-type]


def read_config(path: Path) -> dict[str, Any]:
    """With what it includes, as lm-eval does it."""
    config = yaml.load(path.read_text(), Loader)
    included = config.pop("include", None)
    return {**read_config(path.parent / included), **config} if included else config


@pytest.mark.parametrize("name", TASKS)
def test_the_yaml_fits_the_row(name: str) -> None:
    task = TASKS[name]
    assert task.name == name
    config = read_config(task.folder / f"{name}.yaml")
    assert config["task"] == name
    assert (config["output_type"] == "generate_until") is task.generates
    if task.generates:
        assert config["generation_kwargs"]["max_gen_toks"] == task.max_new_tokens
    else:
        assert [row["metric"] for row in config["metric_list"]] == [task.metric]
    assert config["test_split"] == "test"
    assert (task.folder / "README.md").exists()
    if name.startswith("mini_"):
        assert set(task.off_target) <= {other for other in TASKS if other.startswith("mini_")} - {name}
    else:
        assert task.off_target == GENERAL and set(GENERAL) <= {*TASKS, *own_files()}


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
    task = TASKS[name]
    documents = task.documents()["test"]
    assert len(documents) == task.items
    first = documents[0]
    text = next(first[key] for key in ("solution", "answer", "body", "code") if first.get(key))
    assert task.extract(first, text) is not None
    assert task.extract(first, "  ") is None
    assert task.grade(first, text).correct
    assert not task.grade(first, "I do not know").correct


@pytest.mark.parametrize("name", GENERATING)
def test_a_calibration_prompt_carries_what_its_answers_are_graded_by(name: str) -> None:
    task = TASKS[name]
    for example in calibration(task, 3, seed=1)[1]:
        assert example.document is not None
        assert task.grade(example.document, example.answer).correct
        assert not task.grade(example.document, "I do not know").correct


def test_gsm8k_means_boxed_for_a_chat_model_and_cot_for_a_base_model() -> None:
    assert find_task("gsm8k", chat=True).name == "gsm8k_boxed"
    assert find_task("gsm8k", chat=False).name == "gsm8k_cot"


def test_an_unknown_task_gets_a_suggestion() -> None:
    with pytest.raises(UsageError, match="did you mean mini_math"):
        find_task("mini_maths")


@pytest.mark.slow
@needs_data
@pytest.mark.parametrize("name", ["gsm8k_boxed", pytest.param("gsm8k_cot", marks=pytest.mark.long)])
def test_gsm8k_references_grade_as_right_and_raised_ones_as_wrong(name: str) -> None:
    task = find_task(name)
    documents = [document for split in task.documents().values() for document in split]
    assert len(documents) == 1319 + 7473
    assert all(task.grade(d, d["solution"]).correct for d in documents)
    for d in documents:
        raised = d["solution"].rpartition("####")[0] + f"#### {int(d['answer'].replace(',', '')) + 1}"
        assert not task.grade(d, raised).correct


def test_humaneval_means_instruct_for_a_chat_model() -> None:
    assert [find_task("humaneval", chat).name for chat in (True, False)] == ["humaneval_instruct", "humaneval_complete"]


def test_a_missing_data_file_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HARNESS_DATA_DIR", str(tmp_path))
    with pytest.raises(UsageError, match=r"gsm8k_train\.jsonl is missing"):
        find_task("gsm8k").documents()


@pytest.mark.parametrize("name", TASKS)
def test_a_task_survives_the_way_to_another_process(name: str) -> None:
    task, there = TASKS[name], pickle.loads(pickle.dumps(TASKS[name]))
    assert (there.name, there.metric, there.folder) == (task.name, task.metric, task.folder)
    assert there.generates is task.generates and there.documents is task.documents


def test_names_cost_no_import_and_tasks_no_library() -> None:
    """`harness --help` completes names, `harness tasks` shows every task."""
    code = (
        "import sys\nfrom tasks.registry import TASKS, is_task\nassert "
        "is_task('gsm8k') and len(list(TASKS)) == len(TASKS)\n"
    )
    code += "assert not [m for m in sys.modules if m.startswith('tasks.') and m != 'tasks.registry'], sys.modules\n"
    code += "assert [t.name for t in TASKS.values()] == list(TASKS)\n"
    code += "assert not {'datasets', 'lm_eval', 'torch', 'transformers', 'numpy'} & set(sys.modules)\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", OURS)
def test_lm_eval_gets_the_documents_as_data_sets(name: str) -> None:
    loaded = TASKS[name].load(metadata={})
    assert {split: rows.to_list() for split, rows in loaded.items()} == TASKS[name].documents()


def _two(_doc: Mapping[str, Any], text: str) -> GradedAnswer:
    return graded(text, text, text == "2")


def test_a_task_can_be_made_outside_of_this_package(tmp_path: Path) -> None:
    task = Task(
        name="ours",
        summary="one and one",
        kind="math",
        metric="exact_match",
        folder=tmp_path,
        max_new_tokens=8,
        items=1,
        documents=lambda: {"test": [{"question": "1+1?"}]},
        calibration=lambda n, _seed: ("ours", [Example("1+1?", "2")] * n),
        grade=_two,
    )
    assert task.generates and not replace(task, grade=None).generates
    assert calibration(task, 2, 0) == ("ours", [Example("1+1?", "2")] * 2)
    assert evaluated_questions(task) == {"1+1?"}
    assert [task.process_results({}, [text])["exact_match"] for text in ("2", "3")] == [1.0, 0.0]
    assert task.process_results({}, ["3"])["fail_wrong"] == 1.0
    with pytest.raises(UsageError, match="ours has no training split"):
        training_items(task)
    with pytest.raises(UsageError, match="no calibration items for ours"):
        calibration(task, 0, 0)
    with pytest.raises(TypeError, match="ours has no grade"):
        replace(task, grade=None).process_results({}, ["2"])
