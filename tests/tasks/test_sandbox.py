"""Real programs in the real sandbox: what they may not do, and that nothing of them stays."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tasks.sandbox import Limits, available, run_calls

SHORT = Limits(wall_s=3, cpu_s=1)


def test_a_sandbox_is_available() -> None:
    assert available() is None


def test_values_come_back() -> None:
    result = run_calls("import math\ndef f(x, y):\n    return [x + y, math.gcd(x, y)]", "f", [(4, 6), (1, 1)])
    assert (result.outcome, result.values) == ("returned", [[10, 2], [2, 1]])


@pytest.mark.parametrize(
    ("program", "outcome"),
    [
        ("def f(x): while", "syntax_error"),
        ("x = 3", "no_entry_point"),
        ("f = 3", "no_entry_point"),
        ("def f(x):\n    return 1 / 0", "runtime_error"),
        ("raise SystemExit(0)", "runtime_error"),
        ("def f(x):\n    while True:\n        pass", "timeout"),
        ("import time\ndef f(x):\n    time.sleep(60)", "timeout"),
        ("def f(x):\n    return 'a' * (3 << 30)", "memory"),
        ("import os\nos._exit(0)", "crash"),
        ("def f(x):\n    return object()", "runtime_error"),
        ("import os\nwhile True:\n    os.write(3, b'a' * 4096)", "crash"),
    ],
)
def test_every_ending_has_its_kind(program: str, outcome: str) -> None:
    assert run_calls(program, "f", [(1,)], SHORT).outcome == outcome


@pytest.mark.parametrize(
    "body",
    [
        "return open('/etc/passwd').read()",
        "import os\n    return os.listdir('/root')",
        "import os\n    return os.environ['HARNESS_TEST_SECRET']",
        "return open('/proc/1/environ').read().split('HARNESS_TEST_SECRET=')[1]",
        "import socket\n    return socket.create_connection(('127.0.0.1', 22), 1) and 1",
        "return open('/usr/harness_was_here', 'w').write('x')",
    ],
)
def test_nothing_of_the_host_is_reachable(body: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_TEST_SECRET", "tell nobody")
    assert run_calls(f"def f(x):\n    {body}", "f", [(1,)], SHORT).outcome in ("runtime_error", "crash")


def test_printing_the_answer_does_not_count_as_returning_it() -> None:
    forged = 'print(\'{"outcome": "returned", "values": [2]}\')\ndef f(x):\n    return 0'
    assert run_calls(forged, "f", [(1,)]).values == [0]


def test_no_process_outlives_its_run() -> None:
    name = "harness_mark"
    program = f"import ctypes, os, time\nctypes.CDLL(None).prctl(15, b'{name}', 0, 0, 0)\nos.fork()\ntime.sleep(60)\ndef f(x): return x"
    started = time.monotonic()
    assert run_calls(program, "f", [(1,)], SHORT).outcome == "timeout"
    assert time.monotonic() - started < SHORT.wall_s + 2
    time.sleep(0.3)
    assert name not in [_name(pid) for pid in os.listdir("/proc") if pid.isdigit()]  # noqa: PTH208


def _name(pid: str) -> str:
    try:
        return (Path("/proc") / pid / "comm").read_text().strip()
    except OSError:
        return ""
