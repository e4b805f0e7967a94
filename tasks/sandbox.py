"""Runs model-written Python against tests: the program in a sandbox, the tests outside it.

The candidate only answers calls. Arguments go in and base values come out as text, and what they are compared with
never enters, so that exiting early, printing, patching the interpreter or overloading == gains nothing. Each worker is
a trusted process (jail/checker.py) with one sandbox, in which every candidate is forked from a server that has done the
imports.

Protects: of host files, only the interpreter, its standard library and the shared libraries can be read, no installed
packages; one folder can be written and is emptied after each program; no network, no host processes or environment, no
new processes or programs; system calls that a computation does not need are refused by seccomp; memory, CPU time, files
and output are bounded. In mode bubblewrap, namespaces and Landlock keep host files away; in mode landlock, where no
namespaces can be made, Landlock alone, and names and sizes of files can be asked. Does not protect against bugs of the
kernel or of the hardware, nor hide the machine's kind, load or clock. Where neither works, nothing is run.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import queue
import select
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.core.errors import MeasurementError
from tasks.jail.cell import Jail, Limits, Outcome
from tasks.jail.checker import NO_REFERENCE, check
from tasks.jail.confinement import Confinement, candidates

PASSED, WRONG = "passed", "wrong"
_GRACE_S = 5.0  # for a worker's own tests, beyond the program's limit
_START_S = 60.0
_ATTEMPTS = 2
_ROOT = Path(__file__).parent.parent
_LOCK = threading.Lock()
_PROBE = {
    "program": "def f(x):\n    return x + 1",
    "entry_point": "f",
    "test": "assert f(1) == 2",
    "limits": asdict(Limits(wall_s=10.0)),
}


@dataclass(frozen=True)
class Reference:
    """A right program whose outputs the tests compare with; it runs in the sandbox as well.

    Attributes:
        program: Python source.
        inputs: lists of arguments, as `tasks.jail.values.dumps` writes them.
    """

    program: str
    inputs: Sequence[str]


def run_tests(
    program: str, entry_point: str, test: str, limits: Limits = Limits(), reference: Reference | None = None
) -> Outcome:
    """Runs a program's tests in the sandbox. Safe to call from several threads.

    Args:
        program: Python source, untrusted.
        entry_point: a name that it must define.
        test: Python source that may use the program's names; it fails by an exception.
        limits: of time, memory and files.
        reference: where given, the test finds (arguments, output of the reference) pairs in `reference_cases`, without
            those on which the reference raises.

    Returns:
        "passed", "wrong" (a test failed), or a failure kind: syntax_error, no_entry_point, runtime_error, timeout,
        memory, crash. `missing_module` names what the program could not import, where that ended it.

    Raises:
        MeasurementError: no sandbox can be started (code is never run without one), or the reference itself fails.
    """
    outcome = _pool().run(program, entry_point, test, limits, reference)
    if outcome == NO_REFERENCE:
        raise MeasurementError(
            f"the canonical solution of {entry_point} gives no output in the sandbox for any input, or does not end; "
            "take the problem out of the data file"
        )
    return outcome


def available() -> str | None:
    """Why no program can be run here, or None where a sandbox works."""
    try:
        confinement()
    except MeasurementError as error:
        return str(error)
    return None


@functools.cache
def confinement() -> Confinement:
    """The first way, best first, by which a program runs here; raises MeasurementError where there is none."""
    for found in candidates():
        if works(found):
            return found
    raise MeasurementError(
        "no sandbox for model-written code: bubblewrap is missing or may not create user namespaces, "
        "and the kernel has no Landlock; "
        "install the bubblewrap package, or leave the code tasks out with --task"
    )


def works(found: Confinement) -> bool:
    """Whether a program runs by it."""
    with contextlib.suppress(OSError), found.folder() as folder, contextlib.closing(Jail(found, folder)) as jail:
        return check(jail, _PROBE) == PASSED
    return False


def mode_used() -> str | None:
    """How programs were contained, None where none was run."""
    return confinement().mode if confinement.cache_info().currsize else None


class _Worker:
    """A checker process and its sandbox. Their processes take turns, dozens of times a program, so they share a core:
    handing over to another one costs more than what they do.
    """

    def __init__(self, found: Confinement, core: int) -> None:
        self.core = core
        self.resources = contextlib.ExitStack()
        folder = self.resources.enter_context(found.folder())
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-s",
                "-S",
                "-P",
                "-m",
                "tasks.jail.checker",
                json.dumps(asdict(found)),
                folder,
                str(core),
            ],
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={"PYTHONPATH": str(_ROOT)},
        )
        self.usable = self._line(_START_S) == b"ready\n"

    def run(self, job: Mapping[str, Any]) -> Outcome | None:
        """The outcome, or None where the sandbox broke; `usable` says whether it takes another job."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(job).encode() + b"\n")
            self.process.stdin.flush()
        except OSError:
            self.usable = False
            return None
        programs = 2 if "reference" in job else 1
        line = self._line(programs * job["limits"]["wall_s"] + _GRACE_S)
        self.usable = bool(line)
        if line is None:
            return Outcome("timeout")  # the tests themselves were kept busy by what the program returned
        outcome = Outcome(**json.loads(line)) if line else None
        return None if outcome == "sandbox" else outcome

    def _line(self, seconds: float) -> bytes | None:
        """One short line; b"" at the end of the stream, None past the time."""
        assert self.process.stdout is not None
        if not select.select([self.process.stdout], [], [], seconds)[0]:
            return None
        return self.process.stdout.readline()

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()
        self.resources.close()


class Pool:
    """`size` workers of one kind, spread over the cores and started when they are first needed; one that breaks is
    replaced.
    """

    def __init__(self, found: Confinement, size: int) -> None:
        self.confinement = found
        self.idle: queue.LifoQueue[_Worker | int] = queue.LifoQueue()  # a number: the core of one not yet started
        cores = sorted(os.sched_getaffinity(0))
        for number in range(size):
            self.idle.put(cores[number % len(cores)])

    def run(
        self, program: str, entry_point: str, test: str, limits: Limits, reference: Reference | None = None
    ) -> Outcome:
        """As `run_tests`, or NO_REFERENCE."""
        job = {"program": program, "entry_point": entry_point, "test": test, "limits": vars(limits)}
        if reference:
            job["reference"] = asdict(reference)
        worker = self.idle.get()
        try:
            for _ in range(_ATTEMPTS):
                if isinstance(worker, int) or not worker.usable:
                    worker = self._replace(worker)
                outcome = worker.run(job)
                if outcome is not None:
                    return outcome
            return Outcome("crash")  # a program that takes its sandbox down every time
        finally:
            self.idle.put(worker)

    def _replace(self, worker: _Worker | int) -> _Worker:
        core = worker if isinstance(worker, int) else worker.core
        if isinstance(worker, _Worker):
            worker.close()
        fresh = _Worker(self.confinement, core)
        if not fresh.usable:
            fresh.close()
            raise MeasurementError("the sandbox for model-written code worked before and does not start now; run again")
        return fresh

    def close(self) -> None:
        while not self.idle.empty():
            if isinstance(worker := self.idle.get(), _Worker):
                worker.close()


@functools.cache
def _shared_pool() -> Pool:
    pool = Pool(confinement(), os.cpu_count() or 1)
    atexit.register(pool.close)
    return pool


def _pool() -> Pool:
    with _LOCK:
        return _shared_pool()
