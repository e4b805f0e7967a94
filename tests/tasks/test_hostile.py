"""The hostile set, as the user who runs the tests and, where that is root, as an ordinary one too; in every mode of the
sandbox.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tasks.jail.cell import Jail, Limits
from tasks.jail.checker import check
from tasks.jail.confinement import candidates

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent.parent
FOLDER = os.environ.get("HARNESS_HOSTILE_DIR")
needs_set = pytest.mark.skipif(not FOLDER, reason="HARNESS_HOSTILE_DIR is not set, the hostile set is not at hand")
needs_root = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("setpriv"), reason="needs root and setpriv to become another user"
)
ORDINARY = ("setpriv", "--reuid=12345", "--regid=12345", "--clear-groups")
TEST = "assert f(1) == 2"


def run_set(*prefix: str, python: str = sys.executable) -> dict[str, Any]:
    command = [*prefix, python, "-m", "tests.tasks.hostile", str(FOLDER)]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    result = subprocess.run(command, capture_output=True, text=True, timeout=250, cwd="/", env=environment)
    assert result.returncode == 0, result.stderr[-2000:]
    return dict(json.loads(result.stdout))


@needs_set
def test_no_program_of_the_set_gets_anywhere() -> None:
    found = run_set()
    assert found["programs"] >= 30 and found["bad"] == {}


@needs_set
@needs_root
def test_nor_as_an_ordinary_user() -> None:
    """With the interpreter of this environment, or the system's where other users cannot reach it."""
    reachable = subprocess.run([*ORDINARY, sys.executable, "-c", ""], capture_output=True).returncode == 0
    found = run_set(*ORDINARY, python=sys.executable if reachable else "/usr/bin/python3")
    assert found["uid"] == 12345 and found["programs"] >= 30 and found["bad"] == {}


MODES = list(candidates())


@pytest.mark.parametrize("number", range(len(MODES)), ids=lambda i: f"{MODES[i].mode}-{i}")
def test_every_mode_that_starts_here_holds(number: int, tmp_path: Path) -> None:
    """The fallbacks too, which run_tests takes only where the better ones do not start."""
    try:
        jail = Jail(MODES[number])
    except OSError as error:
        pytest.skip(str(error))
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
        jail.close()
        sleeper.kill()
        sleeper.wait()


def test_the_limits_are_what_the_kernel_is_told() -> None:
    assert Limits(1.0, 2, 3, 4).rlimits == {
        "RLIMIT_CPU": (2, 3),
        "RLIMIT_AS": (3, 3),
        "RLIMIT_FSIZE": (4, 4),
        "RLIMIT_NOFILE": (64, 64),
        "RLIMIT_CORE": (0, 0),
        "RLIMIT_NPROC": (4096, 4096),
    }
