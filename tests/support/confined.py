"""Commands of harness with little memory and time, each in a fork of one process, which saves the imports.

Standard input: a JSON list of {"arguments", "cwd"} on each line. Standard output: for each a line with a JSON list of
[exit code, what it wrote on standard error]; the code is negative where a signal ended the command, as after too much
time.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CPU_SECONDS, WALL_SECONDS = 60, 120
MEMORY = 2 << 30  # that a command may add

Confined = Callable[[Sequence[Sequence[str]], Path], list[tuple[int, str]]]


@contextmanager
def confined() -> Iterator[Confined]:
    """A function that runs commands in a folder and returns exit code and standard error of each."""
    command, root = [sys.executable, "-m", "tests.support.confined"], Path(__file__).parents[2]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=root) as server:
        given, answered = server.stdin, server.stdout
        assert given and answered

        def ask(commands: Sequence[Sequence[str]], cwd: Path) -> list[tuple[int, str]]:
            print(json.dumps([{"arguments": [*each], "cwd": str(cwd)} for each in commands]), file=given, flush=True)
            return [(code, said) for code, said in json.loads(answered.readline())]

        yield ask
        given.close()


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

    for line in sys.stdin:
        print(json.dumps([_answer(case) for case in json.loads(line)]), flush=True)


if __name__ == "__main__":
    _main()
