"""Commands of harness with little memory and time, each in a fork of one process, which saves the imports.

Standard input: a JSON list of {"arguments", "cwd", "environment"}. Standard output: a JSON list of [exit code, what it
wrote on standard error]; the code is negative where the command was ended by a signal, as after too much time.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

CPU_SECONDS, WALL_SECONDS = 60, 120
MEMORY = 2 << 30  # that a command may add


def confined(
    commands: Sequence[Sequence[str]], cwd: Path, environment: Mapping[str, str] = {}
) -> list[tuple[int, str]]:
    """Exit code and standard error of each command."""
    asked = json.dumps([{"arguments": list(each), "cwd": str(cwd)} for each in commands])
    command = [sys.executable, "-m", "tests.support.confined"]
    root = Path(__file__).parents[2]
    done = subprocess.run(
        command, input=asked, capture_output=True, text=True, cwd=root, env={**os.environ, **environment}, check=True
    )
    return [(code, text) for code, text in json.loads(done.stdout)]


def _answer(case: Mapping[str, Any]) -> tuple[int, str]:
    """In a fork, which ends itself: a command that waits for a FIFO or never ends is killed by the clock."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        _run(case, writer)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        said = pipe.read().decode("utf-8", "replace")
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), said


def _run(case: Mapping[str, Any], writer: int) -> None:
    import signal

    from harness.cli.main import main

    os.dup2(writer, 2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.chdir(case["cwd"])
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + MEMORY, mapped + MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    signal.alarm(WALL_SECONDS)
    sys.argv = ["harness", *case["arguments"]]
    code = 0
    try:
        main()
    except SystemExit as ended:
        code = int(ended.code or 0)
    sys.stderr.flush()
    os._exit(code)


def _main() -> None:
    import transformers.models.auto.modeling_auto  # noqa: F401  # before memory is counted

    import harness.pipeline.dry_run
    import harness.pipeline.single_stage  # noqa: F401

    print(json.dumps([_answer(case) for case in json.load(sys.stdin)]))


if __name__ == "__main__":
    _main()
