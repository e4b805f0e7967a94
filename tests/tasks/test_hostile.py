"""The hostile sets in the sandbox, and what it refuses in every mode that starts here."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.jail.cell import Jail, Limits
from tasks.jail.checker import check
from tasks.jail.confinement import candidates

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent.parent
FOLDERS = os.environ.get("HARNESS_HOSTILE_DIR", "").split(os.pathsep)
needs_set = pytest.mark.skipif(not FOLDERS[0], reason="HARNESS_HOSTILE_DIR is not set, the hostile set is not at hand")
TEST = "assert f(1) == 2"


@needs_set
@pytest.mark.long
def test_no_program_of_the_sets_gets_anywhere() -> None:
    """In the mode that is used here, and where we are root as an ordinary user too; `make hostile` tries every mode."""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "tests.tasks.hostile", "--json", *FOLDERS]
    result = subprocess.run(command, capture_output=True, text=True, timeout=600, cwd="/", env=environment)
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert rows and all(row["programs"] >= 30 and row["bad"] == {} for row in rows), result.stdout + result.stderr


MODES = list(candidates())


@pytest.mark.parametrize("number", range(len(MODES)), ids=lambda i: f"{MODES[i].mode}-{i}")
def test_every_mode_that_starts_here_holds(number: int, tmp_path: Path) -> None:
    """The fallbacks too, which run_tests takes only where the better ones do not start."""
    with MODES[number].folder() as folder:
        try:
            jail = Jail(MODES[number], folder)
        except OSError as error:
            pytest.skip(str(error))
        with contextlib.closing(jail):
            refuses(jail, tmp_path)


def refuses(jail: Jail, tmp_path: Path) -> None:
    limits = {"wall_s": 3.0, "cpu_s": 1, "memory_bytes": 1 << 30, "file_bytes": 1 << 20}
    victim = tmp_path / "victim"
    victim.write_text("whole")
    for path in (victim, *victim.parents):
        path.chmod(path.stat().st_mode | 0o007) if path in (victim, tmp_path) else None
    sleeper = subprocess.Popen(["sleep", "60"])
    before = victim.stat()
    bodies = {
        "return x + 1": "passed",
        "return x": "wrong",
        "while True: pass": "timeout",
        "import os; return os.fork() or 2": "runtime_error",
        "import socket; return socket.socket() and 2": "runtime_error",
        "return open('/etc/passwd') and 2": "runtime_error",
        "return open('/usr/hostile', 'w') and 2": "runtime_error",
        f"import os; return os.truncate({str(victim)!r}, 0) or 2": "runtime_error",
        f"import os; return os.chmod({str(victim)!r}, 0) or 2": "runtime_error",
        f"import os; return os.utime({str(victim)!r}, (1, 1)) or 2": "runtime_error",
        f"import os; return os.setxattr({str(victim)!r}, 'user.x', b'1') or 2": "runtime_error",
        (
            f"import fcntl, os; r, w = os.pipe(); return fcntl.fcntl(r, fcntl.F_SETOWN, {sleeper.pid}) or 2"
        ): "runtime_error",
        "import fcntl, os; r, w = os.pipe(); return fcntl.fcntl(r, 10, 9) or 2": "runtime_error",
        "return bytearray(2 << 30) and 2": "memory",
        "import os; os._exit(0)": "crash",
    }
    try:
        for body, outcome in bodies.items():
            job = {"program": f"def f(x): {body}", "entry_point": "f", "test": TEST, "limits": limits}
            if body == "while True: pass":
                job["program"] = "def f(x):\n    while True:\n        pass"
            assert check(jail, job) == outcome, body
        assert (
            victim.read_text() == "whole"
            and victim.stat().st_mtime == before.st_mtime
            and victim.stat().st_mode == before.st_mode
        )
        assert sleeper.poll() is None
    finally:
        sleeper.kill()
        sleeper.wait()


def test_the_limits_are_what_the_kernel_is_told() -> None:
    assert sorted(Limits(1.0, 2, 3, 4).rlimits) == sorted(
        [
            (resource.RLIMIT_CPU, 2, 3),
            (resource.RLIMIT_AS, 3, 3),
            (resource.RLIMIT_FSIZE, 4, 4),
            (resource.RLIMIT_NOFILE, 64, 64),
            (resource.RLIMIT_CORE, 0, 0),
            (resource.RLIMIT_NPROC, 4096, 4096),
        ]
    )
