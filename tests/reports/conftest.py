"""A real Chromium, and a sweep's run directory with answers in it, hostile ones among them."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

EXAMPLE = Path(__file__).parents[2] / "reports" / "example" / "laptop" / "run.json"
HOSTILE = (
    "<script>window.pwned = 1</script>",
    "<img src=x onerror='window.pwned = 2'>",
    "</script><script>window.pwned = 3</script>",
    "]]>--><svg onload=window.pwned=4>",
    "abc\u202egnp.exe \u2066inner\u2069 \u200f",
    "nul \x00 bell \x07 escape \x1b[31m",
    "&lt;b&gt; &amp; \\u003cscript\\u003e",
    "x" * 1_000_000,
    "javascript:window.pwned=5",
    "\ud83d lone surrogate",
)


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


def answer(doc_id: int, text: str, correct: bool, kinds: list[str]) -> dict[str, Any]:
    return {
        "doc_id": doc_id,
        "prompt": f"question {doc_id}",
        "text": text,
        "correct": correct,
        "prediction": None,
        "failure": kinds[0] if kinds else None,
        "failures": kinds,
        "finish_reason": "stop",
        "n_tokens": 9,
        "nll": None,
        "units": None,
        "unknown": [],
        "score": None,
    }


def write_samples(folder: Path, run: dict[str, Any], items: int) -> None:
    """Of every variant: answers that loop more the more was removed; the first of one variant are the hostile parts."""
    chance = random.Random(0)
    for v in run["variants"]:
        for e in v["eval"].values():
            rows = []
            for i in range(items):
                loops = chance.random() < v["ratio_neurons"]
                text = f"First {i}+1={i + 1}. " + ("again and again, " * 8 if loops else "") + f"#### {i + 1}"
                rows.append(
                    answer(
                        i, text.removesuffix(f"#### {i + 1}") if loops else text, not loops, ["loop"] if loops else []
                    )
                )
            if v["name"] == "selective-S-0.3":
                rows[: len(HOSTILE)] = [answer(i, text, False, ["gibberish"]) for i, text in enumerate(HOSTILE)]
            e["wrong_by_kind"] = {
                kind: sum(kind in row["failures"] for row in rows) / items for kind in ("loop", "gibberish")
            }
            e["value"] = sum(row["correct"] for row in rows) / items
            path = folder / e["samples"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture(scope="session")
def sweep_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory like that of a sweep, of which the figures are real ones and the answers made here."""
    folder = tmp_path_factory.mktemp("sweep")
    run = json.loads(EXAMPLE.read_text(encoding="utf-8"))
    write_samples(folder, run, 200)
    (folder / "run.json").write_text(json.dumps(run), encoding="utf-8")
    return folder
