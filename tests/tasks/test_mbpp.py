"""An answer to MBPP ends where the task's YAML ends it, also where no engine stopped there."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

import tasks.mbpp.task
from tasks.generation import Generation
from tasks.grading import extract_code
from tasks.mbpp.task import TASK, document
from tasks.registry import TASKS

ROW = {
    "task_id": 11,
    "text": "Write a function to double.",
    "code": "def double(x):\r\n  return 2 * x",
    "test_list": ["assert double(2) == 4"],
    "test_setup_code": "",
}
RIGHT = "def double(x):\n    return 2 * x"
SPLIT = {11: "Double a number.", 601: "double a Number", 602: "Halve a number.", 603: "Write: double a number, twice."}
NEXT = "\n\nYour code should pass these tests:\n[BEGIN]\ndef double(x):\n    return x\n[DONE]\n"


def test_the_stop_is_the_one_of_the_yaml() -> None:
    written = Path(tasks.mbpp.task.__file__).with_name(f"{TASK.name}.yaml").read_text(encoding="utf-8")
    settings = yaml.safe_load(written.replace("!function", ""))
    assert settings["generation_kwargs"]["until"] == [document(ROW)["stop"]]


@pytest.mark.parametrize("before", [RIGHT, f"[BEGIN]\n{RIGHT}", f"```python\n{RIGHT}\n```"])
def test_what_follows_the_stop_is_another_item(before: str) -> None:
    assert str(extract_code(document(ROW), f"{before}\n[DONE]{NEXT}")).strip() == RIGHT


def test_a_stop_with_nothing_before_it_ends_nothing() -> None:
    assert str(extract_code(document(ROW), f"[DONE]\n{RIGHT}\n")).strip() == RIGHT


def test_a_definition_before_the_stop_is_not_cut_by_the_token_limit() -> None:
    twice = f"def double(x):\n    return x\n\n{RIGHT}\n"
    for text, kept in ((f"{twice}[DONE]\n", True), (twice, False)):
        found = str(extract_code(document(ROW), Generation(text, {"finish_reason": "length"})))
        assert ("2 * x" in found) is kept


def test_no_description_of_a_test_problem_is_calibrated_or_trained_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        tasks.mbpp.task, "rows", lambda: [{**ROW, "task_id": number, "text": text} for number, text in SPLIT.items()]
    )
    drawn = {name: TASKS[name].calibration(9, 0)[1] for name in ("mbpp", "humaneval_instruct")}
    found = {name: sorted(e.document["task_id"] for e in examples if e.document) for name, examples in drawn.items()}
    assert found == {"mbpp": [602], "humaneval_instruct": [601, 602, 603]}  # HumanEval tests none of them
    assert TASK.training is not None
    assert [row["task_id"] for row in TASK.training.documents(9, 0)[1]] == [602]
