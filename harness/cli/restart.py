"""Starts a command again where it runs faster with libraries that have to be loaded before Python is."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from harness.engine.preload import preloaded_environment


def restart_preloaded(dtype: str) -> None:
    """Replaces this process by the same command with LD_PRELOAD, where that helps an engine of this dtype.

    Only once, as LD_PRELOAD is set then, and only where this process is the command alone: not in Python code that
    calls commands. To be called before anything is written or started. The engines' other processes inherit it.
    """
    if _is_own_process() and (found := preloaded_environment(dtype)):
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, **found})


def _is_own_process() -> bool:
    """Whether Python was started as `harness` or `python -m harness`."""
    return sys.orig_argv[1:3] == ["-m", "harness"] or [Path(word).name for word in sys.orig_argv[1:2]] == ["harness"]
