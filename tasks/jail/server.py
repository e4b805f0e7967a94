"""The program inside the sandbox: forks one process per candidate, which defines it and answers calls over its own
socket.

Started as `python -S -s -c SOURCE MODE`, with the control socket as standard input. Over the control socket comes one
candidate's socket at a time, then one byte to end it; back goes its status as one line of JSON. The candidate process
never holds the control socket.
"""

import gc
import json
import os
import random
import resource
import shutil
import signal
import socket
import sys
import types
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # both stand before this file in the program (confinement.source)
    from tasks.jail.filters import hide, read_only, restrict
    from tasks.jail.values import TooLarge, dumps, loads

OPAQUE: list[Any] = []


def serve(control: socket.socket, wipe: Sequence[str]) -> None:
    """Forks a process per candidate and reports how it ended, until `control` is closed; empties `wipe` after each."""
    gc.collect()
    gc.freeze()
    while True:
        word, descriptors, _, _ = socket.recv_fds(control, 1, 1)
        if not word:
            os._exit(0)
        pid = os.fork()
        if pid == 0:
            control.close()
            answer(socket.socket(fileno=descriptors[0]))
        os.close(descriptors[0])
        control.recv(1)
        os.kill(pid, signal.SIGKILL)
        _, status, usage = os.wait4(pid, 0)
        for folder in wipe:
            empty(folder)
            if any(os.scandir(folder)):
                os._exit(1)  # the next candidate gets a new sandbox
        report = {
            "signal": os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0,
            "cpu_s": usage.ru_utime + usage.ru_stime,
        }
        control.sendall(json.dumps(report).encode() + b"\n")


def empty(folder: str) -> None:
    """Deletes what a candidate left in `folder`."""
    for entry in os.scandir(folder):
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path, ignore_errors=True)
        else:
            os.remove(entry.path)  # noqa: PTH107  # pathlib is not loaded here


def answer(channel: socket.socket) -> None:
    """The life of a candidate's process; it ends here."""
    reader = channel.makefile("rb")
    try:
        job = json.loads(reader.readline())
        confine(job["limits"])
        space = define(job["program"], channel)
        for line in reader:
            say(channel, respond(space, json.loads(line)))
    except MemoryError:
        say(channel, '{"fault": "memory"}')
    except BaseException as error:
        say(channel, json.dumps({"fault": "runtime_error", "error": type(error).__name__}))
    os._exit(0)


def confine(limits: dict[str, list[int]]) -> None:
    """Sets limits and system call filters for this process, for good; `limits`: name -> [soft, hard]."""
    hide()
    for name, (soft, hard) in limits.items():
        resource.setrlimit(getattr(resource, name), (soft, hard))
    restrict(os.getpid())
    random.seed(0)
    sys.setrecursionlimit(sys.getrecursionlimit() + 16)  # our own frames are not the candidate's


def define(program: str, channel: socket.socket) -> dict[str, Any]:
    """Runs the program as a module, reports the names that it defines, and returns them with their values."""
    try:
        code = compile(program, "candidate.py", "exec")
    except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError):
        say(channel, '{"fault": "syntax_error"}')
        os._exit(0)
    module = types.ModuleType("candidate")
    sys.modules["candidate"] = module
    exec(code, module.__dict__)
    say(channel, json.dumps({"defined": [name for name in list(module.__dict__) if type(name) is str]}))
    return module.__dict__


def respond(space: dict[str, Any], request: dict[str, Any]) -> str:
    """Reads a name or calls a function of the program, and returns the value or the exception's name as JSON."""
    known = OPAQUE.__getitem__
    target = known(request["of"]) if "of" in request else None
    name = request["name"]
    if "arguments" not in request:
        return value_text(getattr(target, name) if target is not None else space[name])
    function: Any = target if name is None else getattr(target, name) if target is not None else space[name]
    positional, named = loads(request["arguments"], known)
    try:
        return value_text(function(*positional, **named))
    except MemoryError:
        raise
    except Exception as error:
        return json.dumps({"raised": type(error).__name__})


def value_text(value: Any) -> str:
    """A value as JSON for the host; what cannot be sent stays here and is named by a number."""
    try:
        text = dumps(value, keep)
    except (TooLarge, RecursionError):
        text = dumps(Uncrossable(), keep)
    return '{"value": ' + json.dumps(text) + "}"


class Uncrossable:
    """Stands for a value that is too large or too deep to leave the sandbox."""


def keep(value: Any) -> int:
    """Keeps a value that stays in this process, and returns the number by which the host names it."""
    OPAQUE.append(value)
    return len(OPAQUE) - 1


def say(channel: socket.socket, text: str) -> None:
    """Sends one line to the host."""
    channel.sendall(text.encode() + b"\n")


def main() -> None:
    """Confines the server itself and serves; file descriptor 0 is the socket to the host."""
    control = socket.socket(fileno=os.dup(0))
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    os.close(nothing)
    hide()
    mode, *readable = sys.argv[1:]
    if mode == "landlock":
        read_only(readable)
    sys.argv[1:] = []
    control.sendall(b"ready\n")
    serve(control, ["/tmp", "/dev/shm"] if mode == "bubblewrap" else [])


# what programs of this kind import; a forked process has them at no cost
for name in (
    "bisect",
    "collections",
    "copy",
    "dataclasses",
    "datetime",
    "decimal",
    "enum",
    "fractions",
    "functools",
    "hashlib",
    "heapq",
    "itertools",
    "math",
    "operator",
    "re",
    "statistics",
    "string",
    "typing",
):
    __import__(name)

main()
