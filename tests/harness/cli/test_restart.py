"""A command starts again with libraries preloaded: once, and only where the process is the command's own."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.cli import restart
from harness.cli.restart import restart_preloaded
from harness.core.processors import cpu_dtype
from harness.engine.preload import preloaded_environment
from tests.support.cli import in_a_process

OWN = (
    ["python", "-m", "harness", "eval", "tiny-math"],
    ["/venv/bin/python3", "/venv/bin/harness", "eval", "tiny-math"],
)
OTHERS = (["python", "-m", "pytest"], ["python", "my_script.py", "harness"], ["python", "-c", "..."], ["python"])


@pytest.fixture()
def replaced(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the process was replaced by."""
    calls: list[Any] = []
    monkeypatch.setattr(os, "execve", lambda *arguments: calls.append(arguments))
    monkeypatch.setattr(restart, "preloaded_environment", lambda _: {"LD_PRELOAD": "/x/libiomp5.so"})
    return calls


@pytest.mark.parametrize("started", OWN, ids=" ".join)
def test_a_command_is_replaced_by_itself(
    started: list[str], replaced: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "orig_argv", started)
    restart_preloaded("bfloat16")
    ((program, words, environment),) = replaced
    assert (program, words) == (sys.executable, [sys.executable, *started[1:]])
    assert environment == {**os.environ, "LD_PRELOAD": "/x/libiomp5.so"}


@pytest.mark.parametrize("started", OTHERS, ids=" ".join)
def test_a_users_own_process_is_left_alone(
    started: list[str], replaced: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "orig_argv", started)
    restart_preloaded("bfloat16")
    assert not replaced


def test_nothing_happens_where_nothing_is_to_be_preloaded(replaced: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "orig_argv", OWN[0])
    monkeypatch.setattr(restart, "preloaded_environment", lambda _: {})
    restart_preloaded("float32")
    assert not replaced


@pytest.mark.long
@pytest.mark.skipif(
    cpu_dtype("auto") != "bfloat16" or not preloaded_environment("auto"),
    reason="this CPU does not compute in bfloat16, or intel-openmp is not installed",
)
def test_an_evaluation_in_bfloat16_runs_with_intels_openmp(tmp_path: Path) -> None:
    made = in_a_process("eval", "tiny-math", "--dtype", "auto", "--limit", "2", "--out", str(tmp_path / "run"))
    assert made.returncode == 0, made.stderr
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    assert "libiomp5.so" in run["hardware"]["preloaded"]
