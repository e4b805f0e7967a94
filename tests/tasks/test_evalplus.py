"""HumanEval+ and MBPP+ from EvalPlus's files: here problems of our own in that form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.config.settings import load_config
from harness.core.errors import MeasurementError, UsageError
from harness.pipeline.resolve import resolve
from tasks.data import trusting
from tasks.evalplus.inputs import Example, example_in, packed_inputs
from tasks.evalplus.judge import judge, same
from tasks.grading import grade_code
from tasks.jail.values import loads
from tasks.registry import TASKS_PATH, find_task
from tests.support.data import write_evalplus_files


@pytest.fixture()
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_evalplus_files(tmp_path)
    monkeypatch.setenv("HARNESS_DATA_DIR", str(tmp_path))
    return tmp_path


def problems(task: str) -> dict[str, dict[str, Any]]:
    with trusting(True):
        return {doc["task_id"]: dict(doc) for doc in find_task(task).documents()["test"]}


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("task", ["humaneval_plus", "mbpp_plus"])
def test_the_files_need_trust(task: str) -> None:
    with pytest.raises(UsageError, match=r"published contents are not known here; read it and give --trust-data"):
        find_task(task).documents()
    settings = {"model": "qwen-7b", "task": (task, "mini_facts")}
    with pytest.raises(UsageError, match="--trust-data"):
        resolve(load_config(None, settings))
    assert resolve(load_config(None, {**settings, "trust_data": True})).settings["trust_data"] is True


def test_a_missing_file_and_a_second_one_are_refused_early(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"model": "qwen-7b", "task": ("mbpp_plus", "mini_facts"), "trust_data": True}
    (folder / "MbppPlus-v0.1.0.jsonl").write_text("")
    with pytest.raises(UsageError, match="2 of them are in HARNESS_DATA_DIR"):
        resolve(load_config(None, settings))
    for file in folder.glob("MbppPlus*"):
        file.unlink()
    with pytest.raises(UsageError, match=r"MbppPlus\*\.jsonl, and none is in"):
        resolve(load_config(None, settings))
    monkeypatch.delenv("HARNESS_DATA_DIR")
    with pytest.raises(UsageError, match="which is not set"), trusting(True):
        find_task("mbpp_plus").documents()


ANSWERS = [
    ("Mbpp/2", "def share(a, b):\n    return [x for x in b if x in a] * 2\n", True),  # compared as sets
    ("Mbpp/2", "def share(a, b):\n    return {4}\n", False),  # right for the base input only
    ("Mbpp/12", "Here:\n```python\ndef half(x):\n    return x / 2\n```", True),  # but for rounding
    ("Mbpp/12", "def half(x):\n    return x // 2\n", False),
    ("Mbpp/12", "reference_cases = []\ndef _judge(*given): pass\ndef half(x):\n    return 1.5\n", False),
    ("Mbpp/12", "class E(float):\n    def __eq__(self, other): return True\ndef half(x):\n    return E(7)\n", False),
    ("HumanEval/0", "    return x + y\n", True),
    ("HumanEval/0", "    return int(x) + y\n", False),
]


@pytest.mark.slow
@pytest.mark.usefixtures("folder")
def test_answers_are_held_against_the_canonical_solution() -> None:
    found = {**problems("mbpp_plus"), **problems("humaneval_plus")}
    verdicts = [grade_code(found[name], text).correct for name, text, _ in ANSWERS]
    assert verdicts == [right for _, _, right in ANSWERS]
    assert all(grade_code(doc, doc["reference"]).correct for doc in found.values())
    raising = grade_code(found["Mbpp/12"], "def half(x):\n    return int(x, 7)\n")
    assert (raising.correct, raising.outcome) == (False, "runtime_error")


@pytest.mark.slow
@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("solution", ["def half(x):\n    return 1 / 0\n", "def half(x):\n    exit()\n", "def"])
def test_a_canonical_solution_that_gives_nothing_judges_nobody(solution: str) -> None:
    doc = {**problems("mbpp_plus")["Mbpp/12"], "reference": solution}
    with pytest.raises(MeasurementError, match="canonical solution of half"):
        grade_code(doc, "def half(x):\n    return x / 2\n")


@pytest.mark.slow
@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("name", ["humaneval_plus", "mbpp_plus"])
def test_lm_eval_asks_and_grades(name: str) -> None:
    from lm_eval.tasks import TaskManager

    with trusting(True):
        task = TaskManager(include_path=str(TASKS_PATH), include_defaults=False).load([name])["tasks"][name]
        documents = list(task.test_docs())
    assert all(doc["question"].strip() in task.doc_to_text(doc) for doc in documents)
    assert [task.process_results(doc, [doc["reference"]])["pass@1"] for doc in documents] == [1.0] * len(documents)


@pytest.mark.parametrize(
    "change",
    [
        {"entry_point": "half) or print(1"},
        {"task_id": "Mbpp/x"},
        {"atol": "0"},
        {"atol": float("nan")},
        {"base_input": {"a": 1}},
        {"plus_input": [3]},
        {"canonical_solution": None},
    ],
)
def test_a_row_in_another_form_is_refused(change: dict[str, Any], folder: Path) -> None:
    file = folder / "MbppPlus-v0.2.0.jsonl"
    first, second = map(json.loads, file.read_text().splitlines())
    file.write_text(json.dumps(first) + "\n" + json.dumps({**second, **change}) + "\n")
    with pytest.raises(UsageError, match="line 2 is not in EvalPlus's form"):
        problems("mbpp_plus")


@pytest.mark.parametrize(
    ("assertion", "inputs", "restored"),
    [
        ("f((1, 2), [3])", [[1], [2]], [(1,), [2]]),
        ("f([(1, 2)], 3)", [[[1, 2], [3, 4], [5]], 3], [[(1, 2), (3, 4), (5,)], 3]),
        ("f((4, (5, (6,))))", [[1, [2, [3, [4]]]]], [(1, (2, (3, (4,))))]),
        ("f(0, 1j)", ["1.5", "(1+2j)"], [1.5, 1 + 2j]),
        ("f({'a': (1, 2)}, 'x')", [{"b": [3]}, "y"], [{"b": (3,)}, "y"]),
        ("f(x)", [[1]], [[1]]),
        ("g((1, 2))", [[1]], [[1]]),
    ],
)
def test_tuples_are_restored_as_in_the_assertion(assertion: str, inputs: list[Any], restored: list[Any]) -> None:
    example = example_in(f'"""\nDo it.\nassert {assertion} == 1\n"""\n', "f")
    (packed,) = packed_inputs([inputs], example)
    assert loads(packed, int) == restored


def test_an_assertion_on_sets_is_seen() -> None:
    assert example_in('"""\nassert set(f((1,))) == set([1])\n"""', "f") == Example(((1,),), True)
    assert not example_in('"""\nassert f(set([1])) == 1\n"""', "f").as_sets
    assert example_in('def f(x):\n    """assert nothing"""\n', "f") == Example()


def test_inputs_that_no_program_can_be_handed_are_left_out() -> None:
    assert len(packed_inputs([[1], ["x" * (2 << 20)]], Example())) == 1


def test_floats_have_a_tolerance_and_nothing_else_has() -> None:
    assert same([1.0, (2.0000001, "a")], [1.0, (2.0, "a")], 1e-6) and same(3, 3.0, 1e-6)
    assert same(float("nan"), float("nan"), 1e-6) and same(float("inf"), float("inf"), 1e-6)
    assert not same(2.1, 2.0, 1e-6) and not same((1, 2), [1, 2], 1e-6) and not same(None, 0.0, 1e-6)
    assert not same([1.0], [1.0, 2.0], 1e-6) and not same({"a": 1.0}, {"b": 1.0}, 1e-6)


def test_any_zero_of_a_polynomial_is_right() -> None:
    cases: list[tuple[list[Any], Any]] = [([[-6.0, 5.0, -1.0]], 2.0)]
    judge(lambda _: 3.0, "find_zero", cases, 0, False)
    with pytest.raises(AssertionError):
        judge(lambda _: 4.0, "find_zero", cases, 0, False)
