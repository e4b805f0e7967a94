"""Real programs in the real sandbox: what they may not do, and that nothing of them stays. tests/tasks/jail has the
hostile set.
"""

from __future__ import annotations

import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import pytest

from tasks.sandbox import Limits, _Worker, available, confinement, run_tests

pytestmark = pytest.mark.slow

SHORT = Limits(wall_s=3, cpu_s=1)
CALL = "f(1)"
FLOOD = """
import os
def put(fd):
    try:
        os.write(fd, b'a' * 4096)
    except OSError:
        pass
while True:
    [put(fd) for fd in range(3, 9)]
"""


def test_a_sandbox_is_available() -> None:
    assert available() is None


def test_the_processes_of_a_worker_share_a_core() -> None:
    program = "import os\ndef f(x): return os.sched_getaffinity(0)"
    assert run_tests(program, "f", "assert len(f(1)) == 1") == "passed"


def test_calls_with_values_of_every_kind() -> None:
    program = "def f(x, *, y=0): return x, y"
    values = """[None, True, 1, -(10**5000), 1.5, float('inf'), 'é\\ud800', b'a', 2j, (1, [2]), {3: {4}}, frozenset(),
        range(3), {'a': 1}.keys(), int]"""
    test = (
        f"for value in {values}:\n    assert f(value, y=value) == (value, value), value\nassert f(f(1)) == ((1, 0), 0)"
    )
    assert run_tests(program, "f", test) == "passed"


def test_objects_of_the_program_are_usable_and_its_names_too() -> None:
    program = "class P:\n    def __init__(self, a): self.a = a\n    def twice(self): return 2 * self.a\nK = [3]\n"
    test = "p = P(4)\nassert f([p, P(5)]) == [4, 5] and p.twice() == 8 and p.a == 4 and K == [3]"
    assert run_tests(program + "def f(ps): return [p.a for p in ps]", "f", test) == "passed"


def test_a_test_sees_the_exceptions_of_the_program() -> None:
    test = "try:\n    f(0)\nexcept ZeroDivisionError:\n    pass\nelse:\n    raise AssertionError"
    assert run_tests("def f(x): return 1 / x", "f", test) == "passed"
    assert run_tests("def f(x): return x", "f", test) == "wrong"


@pytest.mark.parametrize(
    ("program", "outcome"),
    [
        ("def f(x): while", "syntax_error"),
        ("x = 3", "no_entry_point"),
        ("f = 3", "no_entry_point"),
        ("def f(x):\n    return 1 / 0", "runtime_error"),
        ("def f(x):\n    raise AssertionError", "runtime_error"),
        ("raise SystemExit(0)", "runtime_error"),
        ("def f(x):\n    while True:\n        pass", "timeout"),
        ("import time\ndef f(x):\n    time.sleep(60)", "timeout"),
        ("def f(x):\n    return 'a' * (3 << 30)", "memory"),
        ("import os\nos._exit(0)", "crash"),
        ("import os, signal\ndef f(x): os.kill(os.getpid(), 11)", "crash"),
        (FLOOD, "crash"),
        ("def f(x):\n    return object()", "wrong"),
        ("def f(x):\n    return 3", "wrong"),
        ("def f(x):\n    print(2)\n    return 2", "passed"),
    ],
)
def test_every_ending_has_its_kind(program: str, outcome: str) -> None:
    assert run_tests(program, "f", f"assert {CALL} == 2", SHORT) == outcome


@pytest.mark.parametrize(
    ("program", "module"),
    [
        ("import numpy as np\ndef f(x): return x", "numpy"),
        ("def f(x):\n    from scipy.special import comb\n    return comb(x, 1)", "scipy"),
        ("import os.no_such_part\ndef f(x): return x", None),
        ("def f(x): return 1 / 0", None),
        ("def f(x): raise ImportError('numpy', name='numpy')", None),
        # what a program may say in the place of a name
        ("raise ModuleNotFoundError(name='json')", None),
        (f"raise ModuleNotFoundError(name='{'a' * 61}')", None),
        ("def f(x): raise ModuleNotFoundError(name='a b')", None),
        ("def f(x): raise ModuleNotFoundError(name='<b>')", None),
        ("def f(x): raise ModuleNotFoundError(name='\\ud800')", None),
        ("def f(x): raise ModuleNotFoundError(name='nümpy')", None),
        ("def f(x): raise ModuleNotFoundError(name=['numpy'])", None),
        ("class E(ModuleNotFoundError):\n    name = property(lambda self: 1 / 0)\ndef f(x): raise E", None),
    ],
)
def test_a_module_that_is_missing_is_named(program: str, module: str | None) -> None:
    outcome = run_tests(program, "f", f"assert {CALL} == 2")
    assert (outcome, outcome.missing_module) == ("runtime_error", module)


def test_a_missing_module_that_a_program_does_without_is_not_named() -> None:
    program = "try:\n    import numpy\nexcept ImportError:\n    pass\ndef f(x): return x"
    outcome = run_tests(program, "f", f"assert {CALL} == 2")
    assert (outcome, outcome.missing_module) == ("wrong", None)


@pytest.mark.parametrize(
    "body",
    [
        "return open('/etc/passwd').read()",
        "import os\n    return os.listdir('/root')",
        "import os\n    return os.environ['HARNESS_TEST_SECRET']",
        "return open('/proc/1/environ').read().split('HARNESS_TEST_SECRET=')[1]",
        "import socket\n    return socket.create_connection(('127.0.0.1', 22), 1) and 1",
        "import socket\n    return socket.socket(socket.AF_INET, socket.SOCK_DGRAM) and 1",
        "import subprocess\n    return subprocess.run(['/bin/true']).returncode",
        "import os\n    return os.fork()",
        "import os\n    return os.kill(1, 0) or 1",
        "return open('/usr/harness_was_here', 'w').write('x')",
    ],
)
def test_nothing_of_the_host_is_reachable(body: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_TEST_SECRET", "tell nobody")
    assert run_tests(f"def f(x):\n    {body}", "f", CALL, SHORT) in ("runtime_error", "crash")


def test_an_equality_of_the_program_is_never_asked() -> None:
    program = (
        "class Yes(int):\n    def __eq__(self, other): return True\n    __hash__ = "
        "int.__hash__\ndef f(x): return Yes(3)"
    )
    assert run_tests(program, "f", f"assert {CALL} == 2") == "wrong"


def test_what_a_program_leaves_behind_is_gone_for_the_next() -> None:
    leave = (
        "import builtins, os\ndef f(x): return 2\nbuiltins.abs = lambda x: "
        "7\nos.makedirs('/tmp/a/b')\nopen('/tmp/a/b/c', 'w').write('x')"
    )
    look = "import os\ndef f(x): return (abs(0), os.listdir('/tmp'))"
    for _ in range(2 * (os.cpu_count() or 1)):  # every worker
        assert run_tests(leave, "f", f"assert {CALL} == 2") == "passed"
        assert run_tests(look, "f", f"assert {CALL} == (0, [])") == "passed"


def test_values_that_keep_the_tests_busy_are_ended_from_outside() -> None:
    assert (
        run_tests("def f(x): return range(10**18)", "f", f"assert sum({CALL}) == 2", Limits(wall_s=1, cpu_s=1))
        == "timeout"
    )
    assert run_tests("def f(x): return 2", "f", f"assert {CALL} == 2") == "passed"


@pytest.mark.thorough
def test_a_checker_whose_parent_is_gone_ends_itself() -> None:
    worker = _Worker(confinement(), min(os.sched_getaffinity(0)))
    assert worker.usable and worker.process.stdin
    limits = asdict(Limits(wall_s=1, cpu_s=1))
    job = {"program": "def f(x): return range(10**18)", "entry_point": "f", "test": f"sum({CALL})", "limits": limits}
    worker.process.stdin.write(json.dumps(job).encode() + b"\n")
    worker.process.stdin.flush()
    assert worker.process.wait(60) == -signal.SIGALRM


def test_several_threads_get_their_own_answers() -> None:
    with ThreadPoolExecutor(4) as threads:
        found = threads.map(
            lambda i: run_tests(f"def f(x): return {i}", "f", f"assert {CALL} == {i - i % 2}"), range(40)
        )
    assert list(found) == ["passed", "wrong"] * 20


def test_no_process_outlives_its_run() -> None:
    name = f"mark-{os.getpid()}"  # of these tests alone; the kernel keeps 15 letters
    mark = f"import ctypes, os, threading, time\nctypes.CDLL(None).prctl(15, b'{name}', 0, 0, 0)\n"
    program = mark + "threading.Thread(target=time.sleep, args=(600,)).start()\ntime.sleep(600)\ndef f(x): return x"
    assert run_tests(program, "f", CALL, SHORT) == "timeout"
    assert name not in [_name(pid) for pid in os.listdir("/proc") if pid.isdigit()]  # noqa: PTH208


def _name(pid: str) -> str:
    try:
        return (Path("/proc") / pid / "comm").read_text().strip()
    except OSError:
        return ""


FORGERIES = [
    "{'fault': 'passed'}",
    "{'fault': 'engine_error'}",
    "{'fault': ''}",
    "{'fault': ['passed']}",
    "{'value': '2'}",
    "{'defined': ['f']}\\n{'value': '2'}",
    "{'defined': {'f': -1}}\\n{'value': '2'}",
    "{'defined': {'f': true}}\\n{'value': '2'}",
    "{'defined': {'f': 99999}}\\n{'value': '2'}",
    "{'defined': 5}",
    "[]",
    "nonsense",
]
FORGE = """
import os
def g():
    for fd in range(3, 64):
        try:
            os.write(fd, b'''LINE\\n'''.replace(b"'", b'"'))
        except OSError:
            pass
"""


@pytest.mark.parametrize("line", FORGERIES)
@pytest.mark.parametrize("where", ["at once", "in the call"])
def test_words_put_into_the_candidates_own_socket_win_nothing(line: str, where: str) -> None:
    """It can only spoil its own answers: a verdict is the test's, and a fault one of the three that a candidate may
    have.
    """
    program = FORGE.replace("LINE", line) + (
        "g()\ndef f(x): return 0" if where == "at once" else "def f(x):\n    g()\n    return 0"
    )
    outcome = run_tests(program, "f", f"assert {CALL} == 3 and {CALL} == 3", SHORT)
    assert outcome in ("wrong", "crash", "runtime_error", "no_entry_point")


@pytest.mark.parametrize(
    ("program", "test"),
    [
        ("abs = lambda x: 0\ndef f(x): return 9", "assert abs(f(1) - 5) < 1"),
        ("def len(x): return 5\ndef f(x): return []", "assert len(f(1)) == 5"),
        ("AssertionError = ValueError = 3\ndef f(x): return 0", "assert f(1) == 2"),
        ("def f(x): return range(70_000_000)", "assert sorted(f(1)) == 2"),
    ],
)
def test_the_tests_keep_their_own_python(program: str, test: str) -> None:
    assert run_tests(program, "f", test, SHORT) == "wrong"


def test_a_test_that_swallows_everything_does_not_swallow_the_end_of_the_candidate() -> None:
    test = f"try:\n    assert {CALL} == 2\nexcept BaseException:\n    pass"
    assert run_tests("import os\ndef f(x): os._exit(0)", "f", test) == "crash"
    assert run_tests("def f(x):\n    while True: pass", "f", test, SHORT) == "timeout"


def test_library_numbers_and_sequences_come_back() -> None:
    program = "from collections import deque\nfrom decimal import Decimal\nfrom fractions import Fraction\n"
    program += (
        "def f(x): return [Fraction(1, 2), Decimal('0.5'), deque([1, 2]), bytearray(b'a'), Fraction(10**5000, 3)][x]"
    )
    test = "assert f(0) == f(1) == 0.5 and list(f(2)) == [1, 2] and f(3) == b'a' and f(4) * 3 == 10**5000"
    assert run_tests(program, "f", test) == "passed"
