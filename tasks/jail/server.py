"""The program inside the sandbox: forks one process per candidate, which defines it and answers calls over its own
socket.

Started as `python -S -s -c SOURCE SETTINGS` (JSON: Confinement.command), with the control socket as standard input.
First come the proofs, then one candidate's socket at a time, then one byte to end it; back goes a proof and the
candidate's status as a line of JSON. A proof is a word that no candidate can know, so that nobody else can speak for
the server: the page that holds them is not handed to forked processes. The candidate never holds the control socket.
"""

import gc
import json
import mmap
import os
import random
import resource
import select
import signal
import socket
import sys
import types
from collections.abc import Iterator
from typing import Any

from tasks.jail.filters import prepare_candidate_filter, restrict, restrict_candidate, server_filter
from tasks.jail.folder import empty, is_over
from tasks.jail.kernel import die_with_parent, drop_capabilities, hide
from tasks.jail.landlock import only
from tasks.jail.values import TooLarge, dumps, unpack

PROOF = 32  # bytes
PROOFS = 1024 * PROOF
MOST_FILES, MOST_BYTES, LOOK_EVERY_S = 4096, 32 << 20, 0.05  # of the folder that a program may write in
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
WIPE_ON_FORK = 18  # MADV_WIPEONFORK of madvise(2)
OPAQUE: list[Any] = []


def serve(control: socket.socket, folder: str, proofs: memoryview) -> None:
    """Forks a process per candidate and reports how it ended, until `control` is closed or the proofs are used up;
    empties `folder` after each.
    """
    prepare_candidate_filter()
    gc.collect()
    gc.freeze()
    for start in range(0, len(proofs), PROOF):
        word, descriptors, _, _ = socket.recv_fds(control, 1, 1)
        if not word:
            return
        pid = os.fork()
        if pid == 0:
            control.close()
            answer(socket.socket(fileno=descriptors[0]))
        os.close(descriptors[0])
        full = watch(control, folder)
        os.kill(pid, signal.SIGKILL)
        _, status, usage = os.wait4(pid, 0)
        if full:
            control.recv(1)
        empty(folder)
        report = {
            "signal": os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0,
            "cpu_s": usage.ru_utime + usage.ru_stime,
            "full": full,
        }
        control.sendmsg([proofs[start : start + PROOF], json.dumps(report).encode() + b"\n"])


def watch(control: socket.socket, folder: str) -> bool:
    """Waits for the end of a candidate; whether it came because `folder` is too full: no limit of the kernel counts
    files.
    """
    while not select.select([control], [], [], LOOK_EVERY_S)[0]:
        if is_over(folder, MOST_FILES, MOST_BYTES):
            return True
    control.recv(1)
    return False


def answer(channel: socket.socket) -> None:
    """The life of a candidate's process; it ends here."""
    try:
        requests = received(channel)
        job = next(requests)
        confine(job["limits"])
        space = define(job["program"], channel)
        for request in requests:
            say(channel, respond(space, request))
    except MemoryError:
        say(channel, '{"fault": "memory"}')
    except BaseException as error:
        say(channel, json.dumps({"fault": "runtime_error", **raised(error)}))
    os._exit(0)


def received(channel: socket.socket) -> Iterator[dict[str, Any]]:
    """The host's requests, one a line, until it closes the channel."""
    raw = b""
    while part := channel.recv(1 << 16):
        raw += part
        while b"\n" in part:
            line, _, raw = raw.partition(b"\n")
            yield json.loads(line)
            part = raw


def confine(limits: dict[str, list[int]]) -> None:
    """Sets limits (name -> [soft, hard]) and system call filters for this process, for good."""
    die_with_parent()
    for name, (soft, hard) in limits.items():
        resource.setrlimit(getattr(resource, name), (soft, hard))
    restrict_candidate(os.getpid())
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
    positional, named = unpack(request["arguments"], known)
    try:
        return value_text(function(*positional, **named))
    except MemoryError:
        raise
    except Exception as error:
        return json.dumps(raised(error))


def raised(error: BaseException) -> dict[str, str]:
    """An exception for the host: its name, and the module that an import did not find."""
    module = error.name if type(error) is ModuleNotFoundError else None
    return {"raised": type(error).__name__, **({"missing": module} if type(module) is str else {})}


def value_text(value: Any) -> str:
    """A value as JSON for the host; what cannot be sent stays here and is named by a number."""
    try:
        text = dumps(value, keep)
    except (TooLarge, RecursionError):
        text = dumps(Uncrossable(), keep)
    return f'{{"value": {text}}}'


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
    die_with_parent()
    settings = json.loads(sys.argv.pop())
    folder = settings["folder"]
    os.chdir(folder)
    wall(**settings)
    drop_capabilities()
    restrict(server_filter())
    empty(folder)  # of what a server before this one left
    control.sendall(b"ready\n")
    serve(control, folder, receive_proofs(control))


def wall(mode: str, folder: str, readable: list[str], listed: list[str]) -> None:
    """Landlock around the server: the only wall in mode landlock, a second one in bubblewrap where the kernel has
    it.
    """
    try:
        only(readable, listed, [folder, *(device for device in DEVICES if os.path.exists(device))])  # noqa: PTH110
    except OSError:
        if mode == "landlock":
            raise


def receive_proofs(control: socket.socket) -> memoryview:
    """The host's words, in a page that is empty in every forked process; read into it without a copy elsewhere."""
    page = mmap.mmap(-1, PROOFS, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    page.madvise(WIPE_ON_FORK)
    proofs = memoryview(page)
    if control.recv_into(proofs, PROOFS, socket.MSG_WAITALL) < PROOFS:
        os._exit(0)
    return proofs


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

if __name__ == "__main__":
    main()
