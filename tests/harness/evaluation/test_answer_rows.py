"""The forms in which other tools write answers: each row is graded as the same answer in our own form is."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from harness.core.errors import UsageError
from harness.evaluation.answer_rows import AnswerRow, read_answers
from tasks.mini_math.task import items
from tests.support.grade_command import grade

PROBLEM = items("test", 1)[0]
RIGHT = PROBLEM.solution


def lm_eval(doc_id: int, *texts: str, filter: str = "strict-match") -> dict[str, Any]:
    return {
        "doc_id": doc_id,
        "doc": {"question": PROBLEM.question, "answer": "1"},
        "target": "1",
        "arguments": {"gen_args_0": {"arg_0": PROBLEM.question, "arg_1": {"until": []}}},
        "resps": [list(texts)],
        "filtered_resps": ["[invalid]"],
        "filter": filter,
        "exact_match": 0.0,
    }


def batch(custom_id: Any, content: Any, *more: str, finish_reason: str = "stop") -> dict[str, Any]:
    choices = [
        {"index": at, "message": {"role": "assistant", "content": text}, "finish_reason": finish_reason}
        for at, text in enumerate((content, *more))
    ]
    body = {"object": "chat.completion", "choices": choices, "usage": {"prompt_tokens": 70, "completion_tokens": 12}}
    return {"id": "b_1", "custom_id": custom_id, "response": {"status_code": 200, "body": body}, "error": None}


def lighteval(doc_id: str, text: str, cut: int = 0) -> dict[str, Any]:
    response = {"text": [text], "output_tokens": [[5, 6, 7]], "truncated_tokens_count": cut}
    return {"doc": {"id": doc_id, "query": "?"}, "metric": {"em": 1}, "model_response": response}


def read(tmp_path: Path, *rows: Any, is_code: bool = False) -> list[AnswerRow]:
    (tmp_path / "rows").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return list(read_answers(tmp_path / "rows", is_code))


FORMS: dict[str, list[Any]] = {
    "own": [{"doc_id": 0, "text": RIGHT}],
    "human-eval": [{"task_id": "mini_math/0", "completion": RIGHT, "passed": False}],
    "question in text": [{"doc_id": 0, "text": "What is #### 7?", "completion": RIGHT}],
    "lm-eval": [lm_eval(0, RIGHT)],
    "lm-eval, filtered only": [{"doc_id": 0, "filtered_resps": [RIGHT]}],
    "lm-eval, two filters": [lm_eval(0, RIGHT), lm_eval(0, RIGHT, filter="flexible-extract")],
    "lm-eval, repeats": [lm_eval(0, RIGHT, "#### 0.5")],
    "batch": [batch("mini_math-0", RIGHT)],
    "batch, completions": [{"custom_id": 0, "response": {"body": {"choices": [{"text": RIGHT}]}}}],
    "batch, two choices": [batch("0", RIGHT, "no")],
    "lighteval": [lighteval("0", RIGHT)],
}


@pytest.mark.parametrize("form", FORMS)
def test_a_packed_file_is_read_like_a_plain_one(form: str, tmp_path: Path) -> None:
    plain = read(tmp_path, *FORMS[form])
    (tmp_path / "rows").write_bytes(gzip.compress((tmp_path / "rows").read_bytes()))
    assert list(read_answers(tmp_path / "rows", False)) == plain and plain[0].text == RIGHT


@pytest.mark.parametrize("form", FORMS)
def test_each_item_is_graded_once(form: str, tmp_path: Path) -> None:
    _, graded, summary = grade(tmp_path, "mini_math", FORMS[form])
    assert [(row["doc_id"], row["text"], row["correct"]) for row in graded] == [(0, RIGHT, True)]
    assert (summary["n"], summary["accuracy"], summary["file"]["duplicates"]) == (1, 1.0, 0)
    assert summary["file"]["left_out"] == (1 if "two" in form or "repeats" in form else 0)


def test_samples_of_another_data_set_are_said(tmp_path: Path) -> None:
    """The numbers of its items mean nothing here, and only the questions show it."""
    result, _, summary = grade(tmp_path, "mini_math", [lm_eval(0, RIGHT), lm_eval(1, RIGHT)])
    assert summary["file"]["other_questions"] == 1 and "other questions: 1 rows" in result.stderr


def test_what_a_batch_says_of_its_answers_is_kept(tmp_path: Path) -> None:
    failed = {"custom_id": "2", "response": None, "error": {"code": "server_error", "message": "?"}}
    refused = {"custom_id": "3", "response": {"status_code": 400, "body": {"error": {"message": "?"}}}, "error": None}
    rows = [batch("0", RIGHT), batch("1", None, finish_reason="length"), failed, refused]
    _, graded, summary = grade(tmp_path, "mini_math", rows)
    assert [row["failure"] for row in graded] == [None, "empty", "engine_error", "engine_error"]
    assert [row["n_tokens"] for row in graded] == [12, 12, None, None]
    assert graded[1]["failures"] == ["empty", "truncated", "no_answer"]
    assert summary["file"]["null_texts"] == 1 and graded[0]["custom_id"] == "0"
    assert read(tmp_path, batch("0", RIGHT, "no"))[0].text.meta.get("n_tokens") is None, "it is of both choices"


def test_what_lighteval_says_is_kept(tmp_path: Path) -> None:
    (row,) = read(tmp_path, lighteval("7", "x", cut=3))
    assert row.ids == {"doc_id": "7"} and row.text.meta == {"n_tokens": 3, "prompt_truncated": True}


@pytest.mark.parametrize(
    ("row", "is_code", "text"),
    [
        ({"text": "Write a function.", "solution": "def f(): pass"}, True, "def f(): pass"),
        ({"text": "The answer is 4", "solution": "#### 5"}, False, "The answer is 4"),  # the reference
        ({"text": "question", "completion": "answer", "solution": "reference"}, True, "answer"),
        ({"text": "question", "completion": None}, False, ""),
    ],
)
def test_the_answer_is_not_the_question(row: dict[str, Any], is_code: bool, text: str, tmp_path: Path) -> None:
    assert read(tmp_path, {"doc_id": 0, **row}, is_code=is_code)[0].text == text


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({**lm_eval(0), "resps": [[["-1.2", "False"]]]}, "holds log likelihoods"),
        ({"custom_id": "r-1", "method": "POST", "url": "/v1", "body": {"messages": []}}, "is a batch's request"),
        (batch("0", [{"type": "text"}]), "line 1 has no `text`"),
        ({"doc": {"id": "0"}, "model_response": {"text": [[1]]}}, "line 1 has no `text`"),
        ({"doc_id": 0, "predictions": ["4"]}, "line 1 has no `text`"),
        ({"doc_id": 0, "resps": "4", "filter": 3, "doc": []}, None),
        ({"doc_id": 0, "resps": {"a": 1}}, None),
    ],
)
def test_what_holds_no_answer_is_named(row: dict[str, Any], message: str | None, tmp_path: Path) -> None:
    if message is None:
        assert len(read(tmp_path, row)) == 1
        return
    with pytest.raises(UsageError, match=message):
        read(tmp_path, row)
