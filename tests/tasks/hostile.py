"""Runs a set of hostile programs through the sandbox and prints what went wrong, as JSON: `python -m
tests.tasks.hostile FOLDER`.

FOLDER holds the programs and manifest.json, which says for each what it tries and which verdicts are right. Beside the
verdict: time, survivors, files, connections, this process's memory, and whether the next program still gets its own
verdict. Standard library only, so that it runs as any user.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

from tasks.sandbox import Limits, confinement, run_tests

LIMITS = Limits(wall_s=3.0)
_PORT, _ABSTRACT = 47613, "\0hostile47613"  # where the programs try to connect
_MEMORY = 50 << 20


class Listener:
    """Counts connections to the TCP port and the abstract socket."""

    def __init__(self) -> None:
        self.seen = 0
        for family, address in ((socket.AF_INET, ("127.0.0.1", _PORT)), (socket.AF_UNIX, _ABSTRACT)):
            server = socket.socket(family, socket.SOCK_STREAM)
            server.bind(address)
            server.listen()
            threading.Thread(target=self._accept, args=(server,), daemon=True).start()

    def _accept(self, server: socket.socket) -> None:
        while True:
            server.accept()
            self.seen += 1


def verdict_of(outcome: str) -> str:
    return {"passed": "pass", "timeout": "timeout"}.get(outcome, "fail")


def survivors() -> list[str]:
    names = []
    for process in Path("/proc").iterdir():
        try:
            names.append((process / "comm").read_text().strip() if process.name.isdigit() else "")
        except OSError:
            continue
    return [name for name in names if "hostile" in name]


def leftovers() -> list[str]:
    return [str(path) for folder in ("/tmp", "/dev/shm", "/var/tmp") for path in Path(folder).glob("hostile_*")]


def memory_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def problems(program: dict[str, Any], folder: Path, problem: dict[str, str], listener: Listener) -> list[str]:
    test = f"{problem['test']}\ncheck({problem['entry_point']})\n"
    before, contacts, started = memory_bytes(), listener.seen, time.monotonic()
    outcome = run_tests((folder / program["file"]).read_text(encoding="utf-8"), problem["entry_point"], test, LIMITS)
    seconds = time.monotonic() - started
    after = run_tests("def add(a, b):\n    return a + b\n", problem["entry_point"], test, LIMITS)
    found = {
        f"verdict {outcome}": verdict_of(outcome) not in program["verdict"],
        f"took {seconds:.1f} s": seconds > LIMITS.wall_s + 1,
        f"the next program: {after}": after != "passed",
        f"survivors {survivors()}": bool(survivors()),
        f"files {leftovers()}": bool(leftovers()),
        "connected": listener.seen > contacts,
        f"memory {memory_bytes() - before}": memory_bytes() - before > _MEMORY,
    }
    return [what for what, bad in found.items() if bad]


def main() -> None:
    os.environ["HOSTILE_TEST_SECRET"] = "7f3a9c2e5b8d1f4a6c0e9b7d"
    folder = Path(sys.argv[1])
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    listener = Listener()
    found = {
        program["name"]: problems(program, folder, manifest["problem"], listener) for program in manifest["programs"]
    }
    bad = {name: what for name, what in found.items() if what}
    print(json.dumps({"programs": len(found), "bad": bad, "mode": confinement().mode, "uid": os.getuid()}))


if __name__ == "__main__":
    main()
