"""A data folder of generated problems, and answers that are right."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness.core.jsonl import read_rows
from tasks.mini_math.task import items
from tests.support.data import make_data_folder


@pytest.fixture()
def data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    monkeypatch.setenv("HARNESS_DATA_DIR", str(folder))
    return make_data_folder(folder)


@pytest.fixture(scope="session")
def reference_texts() -> list[str]:
    """Answers that are right: HumanEval's (from its package), the embedded tasks', and GSM8K's and MBPP's where they
    are at hand.
    """
    from tasks.humaneval.task import rows as humaneval_rows
    from tasks.mini_code.task import items as code_items

    found = [row["canonical_solution"] for row in humaneval_rows()] + [p.solution for p in items("test")]
    found += [function.prompt + function.body for function in code_items("test")]
    folder = os.environ.get("HARNESS_DATA_DIR")
    for name, field in (("gsm8k_test", "answer"), ("gsm8k_train", "answer"), ("mbpp", "code")) if folder else ():
        found += [row[field] for row in read_rows(Path(folder) / f"{name}.jsonl")]
    return found
