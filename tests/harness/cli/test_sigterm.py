"""SIGTERM ends a command as Ctrl-C does."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

_WRITES = """
import os, signal, sys, time
from pathlib import Path
from harness.cli import main
from harness.core.files import atomic_path

def writes(**_):
    with atomic_path(Path(sys.argv[1])) as scratch:
        scratch.write_text("half")
        if (child := os.fork()) == 0:
            time.sleep(60)
            os._exit(0)
        os.kill(child, signal.SIGTERM)
        print(os.waitpid(child, 0)[1], flush=True)
        time.sleep(60)

main.cli = writes
main.main()
"""


def test_sigterm_leaves_nothing_half_written(tmp_path: Path) -> None:
    """As Slurm and `timeout` end a process. A child of it ends without a word, as libraries expect of theirs."""
    command = [sys.executable, "-c", _WRITES, str(tmp_path / "file")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stdout.readline() == f"{int(signal.SIGTERM)}\n"
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (1, "stopped; run the same command again to resume\n")
    assert not list(tmp_path.iterdir())
