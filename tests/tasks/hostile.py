"""Runs sets of hostile programs through the sandbox: `make hostile FOLDERS="..."`, or `python -m tests.tasks.hostile
[--every-mode] [--json] FOLDER...`.

A FOLDER holds programs and manifest.json, which says for each what it tries and which verdicts are right. Beside the
verdict: time, processes, files, sockets, mounts, what reached listeners outside, this process's memory, and whether
three wrong programs behind it, by the same worker, are wrong and a right one is right. Standard library only, so that
it runs as any user.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tasks.jail.confinement import Confinement, candidates
from tasks.sandbox import Limits, Pool, confinement, works

LIMITS = Limits(wall_s=3.0)
ORDINARY = 12_345  # a user that owns nothing
_SECRET = {"HOSTILE_TEST_SECRET": "7f3a9c2e5b8d1f4a6c0e9b7d"}
_PORT, _NAME = 47613, "hostile47613"  # where the programs try to connect
_DATAGRAMS = (f"/tmp/{_NAME}.sock", f"\0{_NAME}_datagram")
_MEMORY = 50 << 20
_GRACE_S = 10.0  # the worker gives its own tests 5 s more; the cores may be busy
WRONG = ("def add(x, y):\n    return 0", "def add(x, y):\n    return x - y", "raise SystemExit")
RIGHT = "def add(a, b):\n    return a + b"
_ROOT = Path(__file__).resolve().parent.parent.parent


class Listener:
    """Counts what reaches the TCP port and the unix sockets."""

    def __init__(self) -> None:
        self.seen = 0
        for family, address in ((socket.AF_INET, ("127.0.0.1", _PORT)), (socket.AF_UNIX, f"\0{_NAME}")):
            server = socket.socket(family, socket.SOCK_STREAM)
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.bind(address)
            server.listen()
            self._count(server.accept)
        for path in _DATAGRAMS:
            Path(path).unlink(missing_ok=True) if path[0] == "/" else None
            heard = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            heard.bind(path)
            Path(path).chmod(0o777) if path[0] == "/" else None
            self._count(lambda heard=heard: heard.recv(4096))

    def _count(self, wait: Any) -> None:
        def listen() -> None:
            while True:
                wait()
                self.seen += 1

        threading.Thread(target=listen, daemon=True).start()


def verdict_of(outcome: str) -> str:
    return {"passed": "pass", "timeout": "timeout"}.get(outcome, "fail")


def processes() -> dict[int, tuple[int, str]]:
    """pid -> (parent, name) of what is alive."""
    found = {}
    for entry in Path("/proc").iterdir():
        try:
            name, _, rest = (entry / "stat").read_text().rpartition(")") if entry.name.isdigit() else ("", "", "")
            if rest and rest.split()[0] != "Z":
                found[int(entry.name)] = (int(rest.split()[1]), name.partition("(")[2])
        except OSError:
            continue
    return found


def descendants() -> set[int]:
    alive = processes()
    ours = {os.getpid()}
    while more := {pid for pid, (parent, _) in alive.items() if parent in ours} - ours:
        ours |= more
    return ours


def descriptors() -> int:
    """Open files and sockets of what we started, as far as it can be seen."""
    count = 0
    for pid in descendants():
        try:
            count += len(list(Path(f"/proc/{pid}/fd").iterdir()))
        except OSError:
            continue
    return count


def leftovers() -> list[str]:
    left = [str(path) for folder in ("/tmp", "/dev/shm", "/var/tmp") for path in Path(folder).glob("hostile_*")]
    return left + [str(path) for path in Path("/tmp").glob("harness-sandbox-*/*")]


def memory_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Trial:
    """One confinement, one worker, one problem."""

    def __init__(self, found: Confinement, problem: dict[str, str], listener: Listener) -> None:
        self.pool, self.listener, self.entry_point = Pool(found, 1), listener, problem["entry_point"]
        self.test = f"{problem['test']}\ncheck({problem['entry_point']})\n"
        self.outcome(RIGHT)
        self.mounts, self.processes = Path("/proc/mounts").read_text(), len(descendants())
        self.descriptors = descriptors()

    def outcome(self, program: str) -> str:
        return self.pool.run(program, self.entry_point, self.test, LIMITS)

    def problems(self, program: dict[str, Any], text: str) -> list[str]:
        """What is wrong with what became of a program."""
        before, contacts, started = memory_bytes(), self.listener.seen, time.monotonic()
        outcome = self.outcome(text)
        seconds = time.monotonic() - started
        behind = [self.outcome(wrong) for wrong in WRONG]
        after = self.outcome(RIGHT)
        names = [name for _, name in processes().values() if "hostile" in name]
        found = {
            f"verdict {outcome}": verdict_of(outcome) not in program["verdict"],
            f"took {seconds:.1f} s": seconds > LIMITS.wall_s + _GRACE_S,
            f"wrong programs behind it: {behind}": "passed" in behind or behind[0] != "wrong",
            f"the next program: {after}": after != "passed",
            f"survivors {names}": bool(names) or len(descendants()) > self.processes,
            f"files {leftovers()}": bool(leftovers()),
            "open files or sockets": descriptors() > self.descriptors,
            "mounts": Path("/proc/mounts").read_text() != self.mounts,
            "connected": self.listener.seen > contacts,
            f"memory {memory_bytes() - before}": memory_bytes() - before > _MEMORY,
        }
        return [what for what, bad in found.items() if bad]


def trial(found: Confinement, folders: Sequence[Path], listener: Listener) -> dict[str, Any]:
    """All programs in one confinement, in the order of the manifests: one line of the table."""
    result: dict[str, Any] = {"mode": found.mode, "uid": os.getuid() if found.uid is None else found.uid}
    result |= {"started_by": os.getuid(), "program": found.program, "programs": 0, "bad": {}}
    for folder in folders:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        judged = Trial(found, manifest["problem"], listener)
        for program in manifest["programs"]:
            what = judged.problems(program, (folder / program["file"]).read_text(encoding="utf-8"))
            result["programs"] += 1
            result["bad"].update({f"{folder.name}/{program['name']}": what} if what else {})
        judged.pool.close()
    return result


def as_ordinary_user(arguments: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The same where we are root, by an interpreter that everybody can reach."""
    prefix = ("setpriv", f"--reuid={ORDINARY}", f"--regid={ORDINARY}", "--clear-groups")
    reachable = subprocess.run([*prefix, sys.executable, "-c", ""], capture_output=True).returncode == 0
    python = sys.executable if reachable else "/usr/bin/python3"
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(_ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [*prefix, python, "-m", "tests.tasks.hostile", "--json", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, cwd="/", env=environment)
    if result.returncode not in (0, 1):
        raise SystemExit(f"as user {ORDINARY}: {result.stderr[-2000:]}")
    yield from map(json.loads, result.stdout.splitlines())


def table(rows: Sequence[dict[str, Any]]) -> str:
    lines = [f"{'mode':12}{'started by':>11}{'runs as':>9}{'programs':>10}{'bad':>5}"]
    for row in rows:
        lines += [f"{row['mode']:12}{row['started_by']:>11}{row['uid']:>9}{row['programs']:>10}{len(row['bad']):>5}"]
        lines += [f"    {name}: {'; '.join(what)}" for name, what in row["bad"].items()]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="Runs sets of hostile programs through the sandbox.")
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--every-mode", action="store_true", help="every way that starts here, not the first alone")
    parser.add_argument("--json", action="store_true", help="a line of JSON a mode, not a table")
    arguments = parser.parse_args()
    os.environ.update(_SECRET)
    folders = [folder.resolve() for folder in arguments.folders]
    rows = []
    if os.getuid() == 0 and shutil.which("setpriv"):
        rows += as_ordinary_user([*(["--every-mode"] if arguments.every_mode else []), *map(str, folders)])
    listener = Listener()
    ways = [found for found in candidates() if works(found)] if arguments.every_mode else [confinement()]
    rows += [trial(found, folders, listener) for found in ways]
    Path(_DATAGRAMS[0]).unlink()
    print("\n".join(map(json.dumps, rows)) if arguments.json else table(rows))
    raise SystemExit(any(row["bad"] for row in rows))


if __name__ == "__main__":
    main()
