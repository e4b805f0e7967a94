"""A data folder of generated problems, and answers that are right."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.failure_kinds.references import references
from tests.support.data import make_data_folder


@pytest.fixture()
def data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    monkeypatch.setenv("HARNESS_DATA_DIR", str(folder))
    return make_data_folder(folder)


@pytest.fixture(scope="session")
def reference_texts() -> list[str]:
    return references()
