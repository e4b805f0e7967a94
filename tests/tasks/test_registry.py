"""One contract for every row: what is added to the registry is tested here."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from harness.core.errors import UsageError
from tasks.registry import TASKS, TASKS_PATH, calibration, distractors, find_task
from tests.support.data import OURS, needs_data

LOCAL = [name for name in TASKS if name != "wikitext"]  # whose training split is not among the local files
ROWS = [pytest.param(name, marks=() if name in OURS else needs_data) for name in LOCAL]
ANSWERED = [name for name in LOCAL if TASKS[name].generates and name != "similarity"]  # which has no right answers
GENERATING = [row for row in ROWS if row.values[0] in ANSWERED]


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
    text = next(first[key] for key in ("solution", "answer", "body", "code") if first.get(key))
    assert TASKS[name].module.extract(name, first, text) is not None
    assert TASKS[name].module.extract(name, first, "  ") is None
    assert TASKS[name].module.grade(name, first, text).correct
    assert not TASKS[name].module.grade(name, first, "I do not know").correct


def test_gsm8k_means_boxed_for_a_chat_model_and_cot_for_a_base_model() -> None:
    assert find_task("gsm8k", chat=True).name == "gsm8k_boxed"
    assert find_task("gsm8k", chat=False).name == "gsm8k_cot"


def test_an_unknown_task_gets_a_suggestion() -> None:
    with pytest.raises(UsageError, match="did you mean mini_math"):
        find_task("mini_maths")


@needs_data
@pytest.mark.parametrize("name", ["gsm8k_boxed", "gsm8k_cot"])
def test_gsm8k_references_grade_as_right_and_raised_ones_as_wrong(name: str) -> None:
    module = find_task(name).module
    documents = [*module.load()["test"], *module.load()["train"]]
    assert len(documents) == 1319 + 7473
    assert all(module.grade(name, d, d["solution"]).correct for d in documents)
    for d in documents:
        raised = d["solution"].rpartition("####")[0] + f"#### {int(d['answer'].replace(',', '')) + 1}"
        assert not module.grade(name, d, raised).correct


def test_humaneval_means_instruct_for_a_chat_model() -> None:
    assert [find_task("humaneval", chat).name for chat in (True, False)] == ["humaneval_instruct", "humaneval_complete"]


def test_a_missing_data_file_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HARNESS_DATA_DIR", str(tmp_path))
    with pytest.raises(UsageError, match=r"gsm8k_train\.jsonl is missing"):
        find_task("gsm8k").module.load()
