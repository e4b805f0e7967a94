"""Whose item an id names: a task's own spellings are found, those of other benchmarks are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.core.errors import UsageError
from harness.evaluation.item_ids import items_of
from tasks.data import trusting
from tasks.registry import find_task
from tests.support.data import make_data_folder, write_evalplus_files
from tests.support.grade_command import grade


def mbpp_row(task_id: int) -> dict[str, Any]:
    row = {"task_id": task_id, "text": f"Give {task_id}.", "code": f"def f():\n    return {task_id}"}
    return {**row, "test_list": [f"assert f() == {task_id}"], "test_setup_code": ""}


@pytest.fixture()
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    found = tmp_path / "data"
    found.mkdir()
    make_data_folder(found)
    rows = [mbpp_row(task_id) for task_id in range(1, 975)]
    (found / "mbpp.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_evalplus_files(found)
    monkeypatch.setenv("HARNESS_DATA_DIR", str(found))
    return found


def find(task: str, **ids: Any) -> Any:
    with trusting(True):
        item = items_of(find_task(task)).find(ids, {}, "rows, line 1")
    return item.doc.get("task_id", item.doc_id)


OWN = [
    ("gsm8k_boxed", {"doc_id": 3}, 3),
    ("gsm8k_boxed", {"doc_id": "gsm8k/3"}, 3),
    ("gsm8k_boxed", {"doc_id": "GSM8K_test_3"}, 3),
    ("gsm8k_boxed", {"doc_id": "test/3"}, 3),
    ("gsm8k_boxed", {"task_id": "gsm8k_cot/3"}, 3),
    ("gsm8k_cot", {"custom_id": "gsm8k-3"}, 3),
    ("mini_math", {"custom_id": "mini_math-3"}, 3),
    ("mbpp", {"task_id": 11}, 11),
    ("mbpp", {"task_id": 11.0, "doc_id": 5}, 11),
    ("mbpp", {"task_id": "MBPP/11"}, 11),
    ("mbpp", {"custom_id": "mbpp-11"}, 11),
    ("mbpp", {"doc_id": "MBPP/11"}, 11),
    ("mbpp", {"doc_id": 0}, 11),
    ("mbpp", {"doc_id": "mbpp/test/0"}, 11),
    ("mbpp_plus", {"task_id": "Mbpp/12"}, "Mbpp/12"),
    ("mbpp_plus", {"task_id": 12}, "Mbpp/12"),
    ("humaneval_plus", {"task_id": "HumanEval/0"}, "HumanEval/0"),
    ("humaneval", {"task_id": "HumanEval/53"}, "HumanEval/53"),
    ("humaneval", {"doc_id": "humaneval_complete/53"}, "HumanEval/53"),
]


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(("task", "ids", "item"), OWN)
def test_own_spellings_are_found(task: str, ids: dict[str, Any], item: Any) -> None:
    assert find(task, **ids) == item


FOREIGN = [
    ("humaneval", {"task_id": "Mbpp/11"}, "'Mbpp/11' is an item of mbpp_plus .*EvalPlus"),
    ("humaneval", {"task_id": "MBPP/11"}, "'MBPP/11' is an item of mbpp"),
    ("mbpp", {"task_id": "HumanEval/11"}, "'HumanEval/11' is an item of humaneval"),
    ("mbpp", {"task_id": "Mbpp/11"}, "'Mbpp/11' is an item of mbpp_plus .*EvalPlus.*--task mbpp_plus"),
    ("mbpp", {"doc_id": "Mbpp/6"}, "'Mbpp/6' is an item of mbpp_plus"),
    ("mbpp", {"custom_id": "Mbpp-11"}, "'Mbpp-11' is an item of mbpp_plus"),
    ("mbpp_plus", {"task_id": "MBPP/12"}, "is an item of mbpp"),
    ("mbpp_plus", {"task_id": "Mbpp/13"}, "is not an item of mbpp_plus"),
    ("gsm8k_boxed", {"doc_id": "HumanEval/0"}, "is an item of humaneval"),
    ("gsm8k_boxed", {"doc_id": 0, "task_id": "HumanEval/0"}, "is an item of humaneval"),
    ("gsm8k_boxed", {"doc_id": "humaneval_0"}, "is an item of humaneval"),
    ("gsm8k_boxed", {"doc_id": "train/0"}, "is not an item of gsm8k_boxed"),
    ("gsm8k_boxed", {"doc_id": "gsm8k/train/0"}, "is not an item"),
    ("gsm8k_boxed", {"doc_id": "gsm_plus/0"}, "is not an item"),
    (
        "gsm8k_boxed",
        {"custom_id": "request-1"},
        "custom_id 'request-1' is not an item .*gsm8k_boxed/0 or 0",
    ),
    ("mini_math", {"doc_id": "math/0"}, "is not an item"),
    ("humaneval", {"task_id": "Python/3"}, "is not an item of humaneval_instruct, .*HumanEval/0"),
    ("humaneval", {"task_id": "HumanEval/164"}, "'HumanEval/164' is not an item"),
    ("mbpp", {"task_id": 975}, "task_id 975 is not an item of mbpp"),
    ("gsm8k_boxed", {"doc_id": "!/3"}, "is not an item"),
]


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(("task", "ids", "message"), FOREIGN)
def test_ids_of_others_are_refused(task: str, ids: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        find(task, **ids)


@pytest.mark.usefixtures("folder")
def test_all_974_items_of_mbpp_are_known() -> None:
    with trusting(True):
        found = items_of(find_task("mbpp"))
    assert sorted(found.by_number) == list(range(1, 975)) and len(found.test) == 500
    outside = found.find({"task_id": 6}, {}, "")
    assert (outside.doc["task_id"], outside.doc_id) == (6, None)


@pytest.mark.slow
@pytest.mark.usefixtures("folder")
def test_items_outside_the_test_split_are_graded(tmp_path: Path) -> None:
    rows = [{"task_id": number, "text": f"def f():\n    return {number}"} for number in (1, 6, 11, 700)]
    _, graded, summary = grade(tmp_path, "mbpp", rows, "--trust-data")
    assert [(row["task_id"], row["doc_id"], row["correct"]) for row in graded] == [
        (1, None, True),
        (6, None, True),
        (11, 0, True),
        (700, None, True),
    ]
    assert summary["file"]["missing"] == 499


@pytest.mark.usefixtures("folder")
def test_a_sample_of_lm_eval_with_other_tests_is_refused(tmp_path: Path) -> None:
    """lm-eval's mbpp_plus numbers its items as mbpp does."""
    row = {"doc_id": 0, "doc": {"task_id": 11, "test_list": ["assert f() == 12"]}, "resps": [["x"]], "filter": "none"}
    result, _, _ = grade(tmp_path, "mbpp", [row], "--trust-data")
    assert "its test_list is not the one of this item of mbpp" in str(result.exception)
