"""Every command that takes --out tries it before it works, on a dry run too."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.support.cli import harness
from tests.support.models import TINY_MATH

COMMANDS = {
    "score": ["score", "tiny-math"],
    "run": ["run"],
    "run --dry-run": ["run", "--dry-run"],
    "recover --dry-run": ["recover", "tiny-math", "--dry-run"],
    "sweep": ["sweep"],
    "sweep --dry-run": ["sweep", "--dry-run"],
    "eval": ["eval", "tiny-math"],
    "bench": ["bench", "tiny-math"],
    "serve": ["serve", "tiny-math", "--port", "0"],
    "grade": ["grade", "answers.jsonl", "--task", "mini_math"],
}


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("out", "message"), [("file/out", "file is a file"), ("", "--out is empty"), ("/proc/x/y", "cannot be written")]
)
def test_a_place_that_cannot_be_written_is_refused_before_any_work(command: str, out: str, message: str) -> None:
    Path("file").write_text("mine")
    found = harness(*COMMANDS[command], "--out", out)
    assert found.returncode in (1, 2) and found.stderr.startswith("error: ") and message in found.stderr
    assert found.stderr.count("\n") == 1 and found.stdout == ""
    assert [path.name for path in Path().iterdir()] == ["file"]


@pytest.mark.parametrize("command", ["run", "run --dry-run", "sweep --dry-run", "eval", "bench"])
def test_a_folder_with_other_things_is_no_run_directory(command: str) -> None:
    Path("mine").mkdir()
    Path("mine/notes").write_text("mine")
    found = harness(*COMMANDS[command], "--out", "mine")
    assert found.returncode == 2 and "mine is not empty and is not a run directory" in found.stderr


def test_a_folder_is_no_place_for_scores() -> None:
    Path("mine").mkdir()
    found = harness("score", "tiny-math", "--out", "mine")
    assert found.returncode == 2 and "mine is a folder; give the name of a file" in found.stderr
    assert [path.name for path in Path().iterdir()] == ["mine"]


@pytest.mark.slow
def test_scores_and_plans_replace_only_their_own() -> None:
    shutil.copy(TINY_MATH / "model.safetensors", "weights")
    Path("thesis").write_text("years of work")
    Path("new").touch()
    how = ("--task", "mini_math", "--metric", "smd", "--calibration-samples", "4", "--threads", "1", "--no-compensate")
    for name in ("weights", "thesis"):
        before = Path(name).read_bytes()
        found = harness("score", "tiny-math", *how, "--out", name)
        assert found.returncode == 2 and f"{name} is there and holds no scores" in found.stderr
        assert Path(name).read_bytes() == before
    for _ in range(2):
        assert harness("score", "tiny-math", *how, "--out", "new").returncode == 0
    for name in ("weights", "thesis", "new"):
        before = Path(name).read_bytes()
        found = harness("plan", "new", "--metric", "smd", "--out", name)
        assert found.returncode == 2 and f"{name} is there and holds no plan" in found.stderr
        assert Path(name).read_bytes() == before
    for _ in range(2):
        assert harness("plan", "new", "--metric", "smd", "--out", "plan").returncode == 0
    found = harness("score", "tiny-math", *how, "--out", "plan")
    assert found.returncode == 2 and "plan is there and holds no scores" in found.stderr
