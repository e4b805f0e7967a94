"""The control's questions: as many of each kind as the row says, the same ones every time."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from tasks.registry import TASKS
from tasks.similarity.task import documents, grade


@pytest.fixture
def plenty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A data folder with more of both kinds than are asked."""
    rows = [{"input": f"Which of these is number {i}?", "target": str(i)} for i in range(2000)]
    (tmp_path / "bbh_general.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pages = [f" = Page {i} = \n\n {f'Paragraph {i} tells of something. ' * 12}\n" for i in range(900)]
    (tmp_path / "wikitext2_test.txt").write_text("\n".join(pages) + "\n")
    monkeypatch.setenv("HARNESS_DATA_DIR", str(tmp_path))


@pytest.mark.usefixtures("plenty")
def test_a_hundred_of_each_kind_are_asked_and_none_twice() -> None:
    found = documents()["test"]
    assert Counter(document["kind"] for document in found) == {"qna": 100, "conversation": 100}
    assert len({document["question"] for document in found}) == TASKS["similarity"].items == 200
    assert found == documents()["test"]


def test_no_answer_is_wrong_and_an_empty_one_is_none() -> None:
    assert grade({}, "anything").correct and grade({}, " anything\n").prediction == "anything"
    assert grade({}, " \n").prediction is None
