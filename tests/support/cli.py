"""The command line in this process, which saves the imports, or in one of its own."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from harness.cli.main import cli, main

PATIENCE = 800  # seconds for another process on a busy machine; pytest ends a test after 900


def invoke(*arguments: str) -> tuple[dict[str, Any], str]:
    """A harness command in this process, which saves the imports: its JSON document and what it said on standard
    error.
    """
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as said:
        cli([*arguments], standalone_mode=False)
    return json.loads(out.getvalue()), said.getvalue()


def harness(*arguments: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """The console script's own function in this process, which saves the imports: exit code and what it wrote where."""
    before, where, typed, code = dict(os.environ), Path.cwd(), sys.argv, 0
    os.environ.update(environment)
    os.chdir(cwd or where)
    sys.argv = ["harness", *arguments]
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        try:
            main()
        except SystemExit as ended:
            code = int(ended.code or 0)
        finally:
            sys.argv = typed
            os.chdir(where)
            os.environ.clear()
            os.environ.update(before)
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())


def in_a_process(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "harness", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, env={**os.environ, **environment})
