"""`harness grade` through the command line: rows in, rows and a summary out, nothing of a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.core.statistics import wilson
from tasks.humaneval.task import rows as humaneval_rows
from tasks.mini_math.task import items
from tasks.registry import TASKS
from tests.support.grade_command import grade

PROBLEMS = items("test", 4)


def test_rows_keep_order_and_ids_and_the_summary_counts_them(tmp_path: Path) -> None:
    answers = {3: PROBLEMS[3].solution, 0: "I do not know", 1: "#### 0"}
    rows = [
        {"doc_id": i, "text": text, "finish_reason": "stop", "n_tokens": 9, "prompt_truncated": False}
        for i, text in answers.items()
    ]
    _, graded, summary = grade(tmp_path, "mini_math", [*rows, rows[0]])
    assert [row["doc_id"] for row in graded] == [3, 0, 1, 3]
    assert [row["correct"] for row in graded] == [True, False, False, True]
    assert [row["failure"] for row in graded] == [None, "no_answer", "wrong", None]
    assert graded[0]["prompt"] == PROBLEMS[3].question and graded[0]["text"] == PROBLEMS[3].solution
    assert (summary["n"], summary["value"], summary["metric"]) == (4, 0.5, "exact_match")
    assert (summary["ci_low"], summary["ci_high"]) == pytest.approx(wilson(2, 4))
    assert summary["failures"]["no_answer"] == 0.25 and summary["failures"]["truncated"] == 0.0
    assert (summary["failure_rate"], summary["tokens_per_answer"], summary["trap_rate"]) == (0.25, 9.0, 0.0)


def test_what_the_rows_do_not_say_is_unknown_and_not_zero(tmp_path: Path) -> None:
    _, graded, summary = grade(
        tmp_path, "mini_math", [{"doc_id": 0, "text": PROBLEMS[0].solution}, {"doc_id": 1, "text": ""}]
    )
    assert graded[0]["unknown"] == ["engine_error", "truncated"]
    assert summary["failures"]["truncated"] is None and summary["failures"]["empty"] == 0.5
    assert summary["failure_rate"] is None and summary["trap_rate"] is None and summary["tokens_per_answer"] is None
    _, _, all_failed = grade(tmp_path, "mini_math", [{"doc_id": 1, "text": ""}])
    assert all_failed["failure_rate"] == 1.0, "an answer that failed for certain is a failure whatever else is unknown"


def test_the_failure_rate_is_known_where_finish_reason_and_tokens_are_given(tmp_path: Path) -> None:
    rows = [
        {"doc_id": i, "text": text, "finish_reason": reason, "n_tokens": 9}
        for i, text, reason in ((0, PROBLEMS[0].solution, "stop"), (1, "So 4", "length"), (2, "#### 77", "stop"))
    ]
    _, _, summary = grade(tmp_path, "mini_math", rows)
    assert summary["failure_rate"] == pytest.approx(1 / 3) and summary["failures"]["prompt_truncated"] == 0.0
    assert (summary["failure_low"], summary["failure_high"]) == pytest.approx(wilson(1, 3))
    cut = grade(tmp_path, "mini_math", [{**rows[0], "prompt_truncated": True}])[2]
    assert cut["failures"]["prompt_truncated"] == cut["failure_rate"] == 1.0


def test_duplicates_missing_items_and_null_texts_are_said_and_counted(tmp_path: Path) -> None:
    right, null = {"doc_id": 0, "text": PROBLEMS[0].solution}, {"doc_id": 1, "text": None, "finish_reason": "stop"}
    result, graded, summary = grade(tmp_path, "mini_math", [right, null, {**right, "text": "#### 0.5"}])
    assert [(row["correct"], row["failure"]) for row in graded] == [(True, None), (False, "empty"), (False, "wrong")]
    assert summary["file"] == {
        "items": 500,
        "missing": 498,
        "duplicates": 1,
        "null_texts": 1,
        "other_questions": 0,
        "left_out": 0,
    }
    said = [line for line in result.stderr.splitlines() if "in.jsonl" in line]
    assert len(said) == 1
    assert all(part in said[0] for part in ("duplicates: 1", "null texts: 1", "missing: 498 of 500")), said
    complete = [{"doc_id": i, "text": ""} for i in range(500)]
    assert "in.jsonl:" not in grade(tmp_path, "mini_math", complete)[0].stderr


def test_numbers_of_pandas_are_numbers(tmp_path: Path) -> None:
    rows = [{"doc_id": 1.0, "task_id": None, "text": PROBLEMS[1].solution, "n_tokens": 96.0, "finish_reason": None}]
    text = json.dumps({**rows[0], "finish_reason": float("nan"), "doc_id": "1.0"})
    _, graded, summary = grade(tmp_path, "mini_math", [*rows, text])
    assert [(row["doc_id"], row["n_tokens"], row["correct"]) for row in graded] == [(1, 96, True)] * 2
    assert summary["tokens_per_answer"] == 96.0


def test_half_an_emoji_costs_one_character(tmp_path: Path) -> None:
    _, graded, _ = grade(
        tmp_path, "mini_math", ['{"doc_id": 0, "text": "#### 1 \\ud83d"}', {"doc_id": 1, "text": "👍"}]
    )
    assert [row["text"] for row in graded] == ["#### 1 \ufffd", "👍"]


def test_the_papers_trap_counts_answers_of_1024_tokens(tmp_path: Path) -> None:
    rows = [
        {"doc_id": i, "text": PROBLEMS[i].solution, "finish_reason": "stop", "n_tokens": 1023 + i} for i in range(3)
    ]
    assert grade(tmp_path, "mini_math", rows)[2]["trap_rate"] == pytest.approx(2 / 3)


def test_words_of_other_engines_are_understood_and_unknown_ones_stay_unknown(tmp_path: Path) -> None:
    texts = {"doc_id": 0, "text": PROBLEMS[0].solution, "n_tokens": "9"}
    rows = [{**texts, "finish_reason": reason} for reason in ("max_tokens", "EOS", "gone fishing")]
    rows.append({"doc_id": 0, "text": None, "finish_reason": "error"})
    source = "\ufeff" + json.dumps(rows[0])
    _, graded, summary = grade(tmp_path, "mini_math", [source, *rows[1:]])
    assert [row["failure"] for row in graded] == ["truncated", None, None, "engine_error"]
    assert [row["finish_reason"] for row in graded] == ["length", "stop", None, "error"]
    assert "truncated" in graded[2]["unknown"] and summary["accuracy"] == summary["value"] == 0.5, (
        "the first may be half a number"
    )


def test_humaneval_takes_completions_and_solutions_by_task_id(tmp_path: Path) -> None:
    problems = humaneval_rows()[:3]
    rows = [
        {"task_id": "HumanEval/0", "completion": problems[0]["canonical_solution"]},
        {"task_id": "HumanEval/1", "solution": problems[1]["prompt"] + problems[1]["canonical_solution"]},
        {"task_id": "HumanEval/2", "text": "    pass"},
        {"doc_id": 2, "text": f"```python\n{problems[2]['prompt']}{problems[2]['canonical_solution']}```"},
        {"doc_id": 2, "text": "    return undefined_name"},
        {"task_id": "HumanEval/2", "text": "No."},
    ]
    _, graded, summary = grade(tmp_path, "humaneval", rows)
    assert [row["correct"] for row in graded] == [True, True, False, True, False, False]
    assert [row["failure"] for row in graded] == [None, None, "wrong", None, "runtime_error", "no_code"]
    assert graded[0]["task_id"] == "HumanEval/0" and graded[0]["doc_id"] == 0 and "task_id" not in graded[3]
    assert summary["metric"] == "pass@1" and summary["sandbox"] in ("bubblewrap", "landlock")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{", "line 2 is not JSON"),
        ("[1]", "line 2 is not a JSON object"),
        ({"text": "4"}, "line 2 has no usable `task_id` or `doc_id`"),
        ({"doc_id": True, "text": "4"}, "line 2 has no usable"),
        ({"doc_id": -1, "text": "4"}, "line 2 has no usable"),
        ({"doc_id": 500, "text": "4"}, "doc_id 500 is outside the 500 items of mini_math"),
        ({"doc_id": 1, "text": 4}, "line 2 has no `text`"),
        ({"doc_id": 1, "prompt": "4"}, "line 2 has no `text`"),
        ({"doc_id": 0.5, "text": "4"}, "line 2 has no usable"),
        ({"doc_id": "1" * 101, "text": "4"}, "line 2 has no usable"),
        ({"doc_id": 1, "text": "4", "n_tokens": "many"}, "line 2: n_tokens is 'many'"),
        ({"doc_id": 1, "text": "4", "n_tokens": 9.5}, "line 2: n_tokens is 9.5"),
        ({"doc_id": 1, "text": "4", "finish_reason": ["length"]}, "line 2: finish_reason is"),
        ({"doc_id": 1, "text": "4", "prompt_truncated": "no"}, "line 2: prompt_truncated is 'no'"),
    ],
)
def test_a_row_that_cannot_be_graded_is_named(row: Any, message: str, tmp_path: Path) -> None:
    result, _, _ = grade(tmp_path, "mini_math", [{"doc_id": 0, "text": ""}, row])
    assert result.exit_code != 0 and message in str(result.exception)
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize(
    ("task", "message"),
    [("similarity", "nothing to grade"), ("wikitext", "nothing to grade"), ("mini_maths", "did you mean mini_math?")],
)
def test_other_tasks_are_refused(task: str, message: str, tmp_path: Path) -> None:
    result, _, _ = grade(tmp_path, task, [{"doc_id": 0, "text": ""}])
    assert message in str(result.exception)


@pytest.mark.parametrize("name", ["mini_facts", "mini_code"])
def test_the_other_embedded_tasks_are_graded_too(name: str, tmp_path: Path) -> None:
    documents = TASKS[name].documents()["test"][:10]
    texts = [document.get("answer") or document["body"] for document in documents]
    _, _, summary = grade(tmp_path, name, [{"doc_id": i, "text": text} for i, text in enumerate(texts)])
    assert (summary["n"], summary["value"]) == (10, 1.0)


def test_answers_are_read_after_their_reasoning(tmp_path: Path) -> None:
    """Also where the prompt opened it, which the row does not say."""
    texts = [
        f"#### 0\n</think>\n\n{PROBLEMS[0].solution}",
        f"<think>{PROBLEMS[1].solution}</think>\n#### 0",
        "<think>\n#### 1",
    ]
    _, graded, summary = grade(tmp_path, "mini_math", [{"doc_id": i, "text": text} for i, text in enumerate(texts)])
    assert [row["failure"] for row in graded] == [None, "wrong", "unclosed_reasoning"]
    assert [row["text"] for row in graded] == [PROBLEMS[0].solution, "#### 0", ""]
    assert [f"{row['reasoning']}{row['text']}" for row in graded] == texts
    assert summary["value"] == pytest.approx(1 / 3) and summary["failures"]["unclosed_reasoning"] == pytest.approx(
        1 / 3
    )
