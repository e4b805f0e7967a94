"""The outer side of a sandbox: starts the server inside it and talks to one candidate at a time.

Nothing that comes back is trusted: lines are bounded, values are rebuilt from base types (values.py), and a candidate
that is late, loud or gone has an ending from the list of failure kinds.
"""

from __future__ import annotations

import builtins
import contextlib
import json
import re
import resource
import secrets
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from json.encoder import encode_basestring_ascii as quoted
from typing import Any

from tasks.jail.confinement import ENVIRONMENT, Confinement
from tasks.jail.values import PROOF, PROOFS, dumps, unpack

_START_S = 20.0
_LONGEST_REPLY = 8 << 20  # bytes of one line; values.py keeps honest ones below
_CHUNK = 1 << 16
_FAULTS = ("syntax_error", "runtime_error", "memory")  # what a candidate's own process may say of itself
_MODULE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,59}")


@dataclass(frozen=True)
class Limits:
    """Of one program. CPU time decides; the clock on the wall is generous, so that a busy machine does not change
    verdicts.
    """

    wall_s: float = 40.0
    cpu_s: int = 10  # the slowest of MBPP's references takes 5 on a busy machine
    memory_bytes: int = 1 << 30
    file_bytes: int = 32 << 20

    @property
    def rlimits(self) -> list[tuple[int, int, int]]:
        """(number of the limit, soft, hard), for setrlimit(2)."""
        whole = {
            resource.RLIMIT_AS: self.memory_bytes,
            resource.RLIMIT_FSIZE: self.file_bytes,
            resource.RLIMIT_NOFILE: 64,
            resource.RLIMIT_CORE: 0,
            resource.RLIMIT_NPROC: 4096,  # threads: processes are refused
        }
        return [
            (resource.RLIMIT_CPU, self.cpu_s, self.cpu_s + 1),
            *((number, value, value) for number, value in whole.items()),
        ]


class Outcome(str):
    """The verdict on a program: passed, wrong or a failure kind.

    missing_module: what the program could not import, where that ended it.
    """

    missing_module: str | None

    def __new__(cls, kind: str, missing_module: str | None = None) -> Outcome:
        self = super().__new__(cls, kind)
        self.missing_module = missing_module
        return self


class Ended(BaseException):
    """The candidate is over; `outcome` is a failure kind. Not an Exception: a test's own `except` must not swallow
    it.
    """

    def __init__(self, kind: str, missing_module: str | None = None) -> None:
        super().__init__(kind)
        self.outcome = Outcome(kind, missing_module)


class _Gone(BaseException):
    """The candidate's process closed its socket."""


class Jail:
    """A running server, for one candidate at a time. `broken`: it is of no more use, start another."""

    def __init__(self, confinement: Confinement, folder: str) -> None:
        """Raises OSError where it does not start; `folder` is what `confinement.folder()` gives."""
        self.control, inside = socket.socketpair()
        self.broken = False
        self.proofs = [secrets.token_hex(PROOF // 2).encode() for _ in range(PROOFS // PROOF)]
        with inside:
            self.process = subprocess.Popen(
                confinement.command(folder),
                stdin=inside.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=ENVIRONMENT,
                cwd="/",
            )
        self.control.settimeout(_START_S)
        if self._receive() != b"ready\n":
            self.close()
            raise OSError(f"no sandbox starts by {confinement.mode}")
        self.control.sendall(b"".join(self.proofs))
        self.proofs.reverse()

    def close(self) -> None:
        """Kills the server and everything in it."""
        self.broken = True
        self.process.kill()
        self.control.close()
        self.process.wait()

    @contextlib.contextmanager
    def candidate(self, program: str, limits: Limits) -> Iterator[Candidate]:
        """A process for `program`, dead on leaving.

        Raises:
            Ended: for what happens to it.
            OSError: the server is gone, or somebody else speaks in its place: what was said is worth nothing.
        """
        ours, inside = socket.socketpair()
        gone = False
        with ours:
            with inside:
                socket.send_fds(self.control, [b"c"], [inside.fileno()])
            try:
                yield Candidate(ours, program, limits)
            except _Gone:
                gone = True
            finally:
                status = self._finish()
        if status["full"]:
            raise Ended("memory")
        if gone:
            raise Ended(_ending(status, limits))

    def _finish(self) -> Mapping[str, Any]:
        """Has the candidate killed; its {"signal", "cpu_s", "full"}."""
        proof = self.proofs.pop()
        self.broken = True
        with contextlib.suppress(OSError):
            self.control.send(b"e")
        report = self._receive()
        if not secrets.compare_digest(report[: len(proof)], proof):
            raise OSError("the server does not answer as itself")
        self.broken = not self.proofs  # the next candidate gets a new sandbox
        return dict(json.loads(report[len(proof) :]))

    def _receive(self) -> bytes:
        """One line, b"" where none comes."""
        raw = b""
        with contextlib.suppress(OSError):
            while not raw.endswith(b"\n") and (part := self.control.recv(256)):
                raw += part
        return raw


def _ending(status: Mapping[str, Any], limits: Limits) -> str:
    """Of a process that went away by itself: over its CPU time, or a crash."""
    late = status.get("signal") == signal.SIGXCPU or status.get("cpu_s", 0.0) >= limits.cpu_s
    return "timeout" if late else "crash"


class Candidate:
    """A defined program. Values that cannot cross are Opaque; what the program raises is raised here, marked
    `from_candidate`, with `missing_module`.
    """

    def __init__(self, channel: socket.socket, program: str, limits: Limits) -> None:
        self.channel, self.deadline, self.pending = channel, time.monotonic() + limits.wall_s, b""
        self.answers = select.poll()
        self.answers.register(channel, select.POLLIN)
        channel.setblocking(False)
        self._send(json.dumps({"limits": limits.rlimits, "program": program}))
        self.over: BaseException | None = None
        defined = self._answer().get("defined")
        if not isinstance(defined, dict):
            raise Ended("crash")
        self.defined: dict[str, Any] = defined  # name -> the number of a function, None of anything else

    def get(self, name: str, of: int | None = None) -> Any:
        """A global of the program, or an attribute of an opaque value."""
        number = self.defined.get(name) if of is None else None
        return Opaque(self, number) if isinstance(number, int) else self._ask(name, of)

    def call(
        self, name: str | None, arguments: tuple[Any, ...], named: Mapping[str, Any], of: int | None = None
    ) -> Any:
        """A global function, a method of an opaque value, or (name None) the opaque value itself."""
        given = f', "arguments": {dumps(list(arguments), _number)}'
        return self._ask(name, of, f'{given}, "named": {dumps(dict(named), _number)}' if named else given)

    def _ask(self, name: str | None, of: int | None, given: str = "") -> Any:
        """`given`: the rest of the request, as JSON."""
        named = "null" if name is None else quoted(name)
        place = "" if of is None else f', "of": {of}'
        try:
            self._send(f'{{"name": {named}{place}{given}}}')
            answer = self._answer()
        except (Ended, _Gone) as end:
            self.over = end  # a test that swallows everything does not swallow this
            raise
        if "raised" in answer:
            raise _exception(str(answer["raised"]), _missing_module(answer))
        try:
            return unpack(answer["value"], lambda number: Opaque(self, int(number)))
        except (KeyError, ValueError):
            raise Ended("crash") from None

    def _answer(self) -> dict[str, Any]:
        """The next line as an object; raises Ended where it is a fault, late, or no answer of our server."""
        try:
            answer = json.loads(self._line().decode())
        except (ValueError, RecursionError):
            raise Ended("crash") from None
        if not isinstance(answer, dict):
            raise Ended("crash")
        if "fault" in answer:
            raise Ended(answer["fault"] if answer["fault"] in _FAULTS else "crash", _missing_module(answer))
        return answer

    def _line(self) -> bytes:
        parts, size = [self.pending], len(self.pending)
        while b"\n" not in parts[-1]:
            self._wait(self.answers)
            try:
                part = self.channel.recv(_CHUNK)
            except OSError:
                part = b""
            if not part:
                raise _Gone
            size += len(part)
            if size > _LONGEST_REPLY:
                raise Ended("crash")
            parts.append(part)
        line, _, rest = parts.pop().partition(b"\n")
        self.pending = rest
        return b"".join([*parts, line])

    def _send(self, text: str) -> None:
        """A candidate that does not read cannot hold us up."""
        left = memoryview(text.encode("utf-8", "surrogatepass") + b"\n")
        while left:
            try:
                left = left[self.channel.send(left) :]
            except BlockingIOError:
                room = select.poll()
                room.register(self.channel, select.POLLOUT)
                self._wait(room)
            except OSError:
                return  # its last words, if any, are still to be read

    def _wait(self, event: select.poll) -> None:
        if not event.poll(1000 * max(0.0, self.deadline - time.monotonic())):
            raise Ended("timeout")


class Opaque:
    """Stands for a value inside the sandbox: its attributes and calls happen there, comparisons never do."""

    def __init__(self, candidate: Candidate, number: int) -> None:
        self.__dict__.update(_candidate=candidate, _number=number)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self._candidate.get(name, self._number)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self._candidate.call(None, arguments, named, self._number)


def _number(value: Any) -> int:
    if isinstance(value, Opaque):
        return int(value.__dict__["_number"])
    raise TypeError(f"a {type(value).__name__} cannot be handed to the program")


def _missing_module(answer: Mapping[str, Any]) -> str | None:
    """The module that the program could not import, as its process says: only a name, and none that Python has."""
    name = answer.get("missing")
    is_name = isinstance(name, str) and _MODULE.fullmatch(name) and name not in sys.stdlib_module_names
    return name if is_name else None


def _exception(name: str, missing_module: str | None) -> Exception:
    """Python's own exception of that name, else a RuntimeError."""
    kind = getattr(builtins, name, None)
    plain = (
        isinstance(kind, type)
        and issubclass(kind, Exception)
        and not issubclass(kind, UnicodeError | BaseExceptionGroup)
    )
    error: Exception = kind(name) if plain and kind else RuntimeError(name)
    error.__dict__.update(from_candidate=True, missing_module=missing_module)
    return error
