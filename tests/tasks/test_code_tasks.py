"""HumanEval's and MBPP's references through extraction and sandbox; HumanEval comes with a package, MBPP where its file
is at hand.
"""

from __future__ import annotations

import os
from typing import Any

import pytest

from tasks.grading import grade_all, grade_code
from tasks.humaneval.task import documents
from tasks.mbpp.task import document
from tasks.mbpp.task import documents as mbpp_documents
from tasks.mbpp.task import rows as mbpp_rows

pytestmark = pytest.mark.slow

needs_mbpp = pytest.mark.skipif(
    "HARNESS_DATA_DIR" not in os.environ, reason="HARNESS_DATA_DIR is not set, MBPP is not at hand"
)
ROW = {
    "task_id": 11,
    "text": "Write a function to double.",
    "code": "def half(x):\r\n  return x / 2\r\ndef double(x):\r\n  return 2 * x",
    "test_list": ["assert double(2) == 4", "assert double(half(2)) == 2"],
    "test_setup_code": "",
}


@pytest.fixture(scope="module")
def problems() -> list[dict[str, Any]]:
    return documents()["test"]


FORMS = {
    "completion": lambda d: d["body"],
    "whole": lambda d: d["prompt"] + d["body"],
    "chat": lambda d: f"Here it is:\n\n```python\n{d['prompt']}{d['body']}```\nIt passes `check`.",
    "run on": lambda d: f"{d['body']}\n\ndef unfinished(x):\n    return [x",
}


@pytest.mark.parametrize("form", FORMS)
def test_every_humaneval_reference_passes(form: str, problems: list[dict[str, Any]]) -> None:
    assert len(problems) == 164
    graded = list(grade_all(grade_code, [(d, FORMS[form](d)) for d in problems]))
    assert [d["task_id"] for d, answer in zip(problems, graded, strict=True) if not answer.correct] == []


def test_no_empty_body_passes(problems: list[dict[str, Any]]) -> None:
    assert not any(answer.correct for answer in grade_all(grade_code, [(d, "    pass\n") for d in problems]))


def test_redefining_a_helper_of_the_prompt_does_not_help(problems: list[dict[str, Any]]) -> None:
    """The tests' own poly and encode_cyclic are the prompt's, whatever the program calls so."""
    cheats = {
        "HumanEval/32": "def poly(xs, x):\n    return 0\n\ndef find_zero(xs):\n    return 1.0\n",
        "HumanEval/38": "def encode_cyclic(s):\n    return s\n\ndef decode_cyclic(s):\n    return s\n",
        "HumanEval/50": "def encode_shift(s):\n    return s\n\ndef decode_shift(s):\n    return s\n",
    }
    pairs = [(d, cheats[d["task_id"]]) for d in problems if d["task_id"] in cheats]
    assert len(pairs) == 3 and not any(answer.correct for answer in grade_all(grade_code, pairs))


def in_plain_python(row: dict[str, Any]) -> bool:
    space: dict[str, Any] = {}
    try:
        for source in (row["code"], row["test_setup_code"], *row["test_list"]):
            exec(source, space)
    except Exception:
        return False
    return True


@needs_mbpp
@pytest.mark.long
@pytest.mark.filterwarnings("ignore:invalid escape:DeprecationWarning")
def test_every_mbpp_reference_that_passes_in_plain_python_passes() -> None:
    rows = [row for row in mbpp_rows() if in_plain_python(row)]
    assert len(rows) >= 970
    graded = grade_all(grade_code, [(document(row), row["code"]) for row in rows])
    assert [row["task_id"] for row, answer in zip(rows, graded, strict=True) if not answer.correct] == []


def test_the_entry_point_is_what_the_first_assertion_calls() -> None:
    found = document(ROW)
    assert found["entry_point"] == "double" and "\r" not in found["code"]
    assert grade_code(found, ROW["code"]).correct and not grade_code(found, "def double(x):\n  return x").correct


@needs_mbpp
def test_mbpp_is_asked_with_three_worked_problems_of_the_prompt_split() -> None:
    splits = mbpp_documents()
    assert {name: len(rows) for name, rows in splits.items()} == {
        "prompt": 3,
        "test": 500,
        "validation": 90,
        "train": 374,
        "other": 7,
    }
    assert [row["task_id"] for row in splits["prompt"]] == [2, 3, 4] and splits["test"][0]["task_id"] == 11
