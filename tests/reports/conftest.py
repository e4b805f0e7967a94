"""A real Chromium, and a sweep's run directory with answers in it, hostile ones among them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.runs import EXAMPLE, write_samples


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    sync = pytest.importorskip("playwright.sync_api", reason="playwright is not installed; `pip install playwright`")
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        pytest.skip("no Chromium; on Debian `apt-get install chromium`")
    with sync.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def sweep_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory like that of a sweep, of which the figures are real ones and the answers made here."""
    folder = tmp_path_factory.mktemp("sweep")
    run = json.loads(EXAMPLE.read_text(encoding="utf-8"))
    write_samples(folder, run, 200)
    (folder / "run.json").write_text(json.dumps(run), encoding="utf-8")
    return folder
