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
import select
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from json.encoder import encode_basestring_ascii as quoted
from os import close, getpid, read, write  # by name: looking into a module copies its pages after a fork
from resource import RLIMIT_CORE, setrlimit
from sys import modules
from types import FunctionType, ModuleType
from typing import Any

from tasks.jail.filters import candidate_filter, restrict, server_filter
from tasks.jail.folder import empty, is_over
from tasks.jail.kernel import die_with_parent, drop_capabilities, hide
from tasks.jail.landlock import only
from tasks.jail.values import PROOF, PROOFS, TooLarge, dumps, unpack

DESCRIPTOR_SPACE = socket.CMSG_LEN(4)
REPORT = b'{"signal": %d, "cpu_s": %f, "full": %d}\n'
READ = json.JSONDecoder().scan_once  # type: ignore[attr-defined]  # (text, start) -> (value, end)
MOST_FILES, MOST_BYTES, LOOK_EVERY_MS = 4096, 32 << 20, 50  # of the folder that a program may write in
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
WIPE_ON_FORK = 18  # MADV_WIPEONFORK of madvise(2)
OPAQUE: list[Any] = []
REHEARSALS = 20  # Python adapts code to its types after a few runs
REHEARSAL = (
    b"""{"limits": [[%d, 0, 0]], "program": "def f(x):\\n    return x"}
{"name": "f"}
{"name": null, "of": 0, "arguments": [1]}
{"name": null, "of": 0, "arguments": [[1, 2.5, "a", true, null]]}
"""
    % RLIMIT_CORE
)


def serve(control: socket.socket, folder: str, proofs: memoryview) -> None:
    """Forks a process per candidate and reports how it ended, until `control` is closed or the proofs are used up;
    empties `folder` after each.
    """
    restrict_candidate = candidate_filter()
    rehearse()
    gc.collect()
    gc.freeze()
    poll = select.poll()
    poll.register(control, select.POLLIN)
    for start in range(0, len(proofs), PROOF):
        word, rights, _, _ = control.recvmsg(1, DESCRIPTOR_SPACE)
        if not word:
            return
        channel = int.from_bytes(rights[0][2], sys.byteorder)
        pid = os.fork()
        if pid == 0:
            close(control.fileno())
            answer(channel, restrict_candidate)
        close(channel)
        full = watch(poll, folder)
        os.kill(pid, signal.SIGKILL)
        _, status, usage = os.wait4(pid, 0)
        control.recv(1)
        empty(folder)
        report = REPORT % (os.WTERMSIG(status), usage.ru_utime + usage.ru_stime, full)
        control.sendmsg([proofs[start : start + PROOF], report])


def watch(poll: select.poll, folder: str) -> bool:
    """Waits for the end of a candidate; whether it came because `folder` is too full: no limit of the kernel counts
    files.
    """
    while not poll.poll(LOOK_EVERY_MS):
        if is_over(folder, MOST_FILES, MOST_BYTES):
            return True
    return False


def rehearse() -> None:
    """Goes through what a candidate's process does, so that Python's caches are full before the fork: what is written
    after it copies a page of memory, and copied pages are most of what a short program costs.
    """
    for _ in range(REHEARSALS):
        host, channel = socket.socketpair()
        with host, channel:
            host.sendall(REHEARSAL)
            host.shutdown(socket.SHUT_WR)
            live(channel.fileno(), restrict=lambda _pid: None)
        OPAQUE.clear()
    del modules["candidate"]


def answer(channel: int, restrict: Callable[[int], None]) -> None:
    """The life of a candidate's process; it ends here."""
    try:
        live(channel, restrict)
    except MemoryError:
        say(channel, '{"fault": "memory"}')
    except BaseException as error:
        say(channel, json.dumps({"fault": "runtime_error", **raised(error)}))
    os._exit(0)


def live(channel: int, restrict: Callable[[int], None]) -> None:
    """Defines the program and answers requests about it, until the host closes the channel."""
    requests = received(channel)
    job = next(requests)
    confine(job["limits"])
    restrict(getpid())
    space = define(job["program"], channel)
    for request in requests:
        say(channel, respond(space, request))


def received(channel: int) -> Iterator[dict[str, Any]]:
    """The host's requests, one a line, until it closes the channel."""
    raw = b""
    while part := read(channel, 1 << 16):
        *lines, raw = (raw + part).split(b"\n")
        for line in lines:
            yield READ(line.decode(), 0)[0]


def confine(limits: list[tuple[int, int, int]]) -> None:
    """Sets limits (number, soft, hard) of this process, for good."""
    die_with_parent()
    for number, soft, hard in limits:
        setrlimit(number, (soft, hard))


def define(program: str, channel: int) -> dict[str, Any]:
    """Runs the program as a module, reports the names that it defines, and returns them with their values."""
    try:
        code = compile(program, "candidate.py", "exec")
    except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError):
        say(channel, '{"fault": "syntax_error"}')
        os._exit(0)
    module = ModuleType("candidate")
    modules["candidate"] = module
    space = module.__dict__
    exec(code, space)
    say(channel, f'{{"defined": {{{", ".join(names(space))}}}}}')
    return space


def names(space: dict[str, Any]) -> list[str]:
    """The names that a program has made, as JSON, with the numbers of functions: the host need not ask for those."""
    return [
        f"{quoted(name)}: {keep(value) if type(value) is FunctionType else 'null'}"
        for name, value in list(space.items())
        if type(name) is str
    ]


def respond(space: dict[str, Any], request: dict[str, Any]) -> str:
    """Reads a name or calls a function of the program, and returns the value or the exception's name as JSON."""
    known = OPAQUE.__getitem__
    target = known(request["of"]) if "of" in request else None
    name = request["name"]
    if "arguments" not in request:
        return value_text(getattr(target, name) if target is not None else space[name])
    function: Any = target if name is None else getattr(target, name) if target is not None else space[name]
    positional = unpack(request["arguments"], known)
    named = unpack(request["named"], known) if "named" in request else {}
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


def say(channel: int, text: str) -> None:
    """Sends one line to the host."""
    line = text.encode() + b"\n"
    while line:
        line = line[write(channel, line) :]


def main() -> None:
    """Confines the server itself and serves; file descriptor 0 is the socket to the host."""
    control = socket.socket(fileno=os.dup(0))
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    os.close(nothing)
    hide()
    die_with_parent()
    os.environ.pop("LD_BIND_NOW", None)  # was for the loader, and is no program's business
    settings = json.loads(sys.argv.pop())
    folder = settings["folder"]
    os.chdir(folder)
    wall(**settings)
    drop_capabilities()
    restrict(server_filter())
    empty(folder)  # of what a server before this one left
    sys.setrecursionlimit(sys.getrecursionlimit() + 16)  # our own frames are not the candidate's
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


# the same numbers for every program: without its hook the module does not seed itself again after a fork
register, os.register_at_fork = os.register_at_fork, lambda **_hooks: None
__import__("random").seed(0)
os.register_at_fork = register

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
