"""`--out`, tried before any work begins: whether a file or a folder can be written where it is asked for."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Sequence
from pathlib import Path

from harness.core.errors import StorageError, UsageError, first_line
from harness.core.text import size_text

_INSTEAD = "give another --out"
_SCRATCH = "." * 10  # what a name for the time of writing has more (`harness.core.files.atomic_path`)


def given_path(out: str | Path) -> Path:
    """What was given as `out`, as a path; raises UsageError for an empty text, which Path takes for this folder."""
    if not str(out).strip():
        raise UsageError("--out is empty; give the file or the folder to write")
    return Path(out)


def check_file(path: Path, beside: Sequence[str] = ()) -> None:
    """Tries whether a file can be written, and leaves nothing behind.

    Args:
        path: The file; it need not exist, nor its folder.
        beside: What is added to its name for the files that are written beside it.

    Raises:
        UsageError: A folder or a device is there, or a file where a folder is needed.
        StorageError: Nothing can be written there.
    """
    for name in ("", *beside):
        file = path.with_name(path.name + name) if path.name else path
        kind = _kind(file)
        if kind == stat.S_IFDIR:
            raise UsageError(f"{file} is a folder; give the name of a file as --out, such as {file / 'NAME'}")
        if kind not in (None, stat.S_IFREG):
            raise UsageError(f"{file} is not a regular file; {_INSTEAD}")
    _try(path.parent, path.name + max(beside, key=len, default=""), path)


def check_folder(path: Path) -> None:
    """Tries whether a folder can be made, or files be written in it where it is there; leaves nothing behind.

    Raises:
        UsageError: A file is there, or at one of the folders above.
        StorageError: Nothing can be written there.
    """
    if _kind(path) not in (None, stat.S_IFDIR):
        raise UsageError(f"{path} is a file, and a folder is to be written; {_INSTEAD}")
    _try(path, "", path)


def check_new_folder(path: Path) -> None:
    """As `check_folder`, for a folder that takes the place of the one that may be there.

    Raises:
        UsageError: Also where it is the current folder, one above, or a mount point, which cannot be replaced.
    """
    check_folder(path)
    whole, here = path.resolve(), Path.cwd()
    if whole == here or whole in here.parents or whole.is_mount():
        raise UsageError(f"{path} is in use and cannot be replaced; give the name of a new folder as --out")
    _try(whole.parent, whole.name, path)


def _kind(path: Path) -> int | None:
    """The kind of what is at `path`, as of stat.S_IFMT; None where nothing is there."""
    try:
        return stat.S_IFMT(path.stat().st_mode)
    except FileNotFoundError:
        if path.is_symlink():
            raise UsageError(f"{path} is a link to {path.readlink()}, which is not there; {_INSTEAD}") from None
        return None
    except NotADirectoryError:
        return None  # `_try` names the file that is in the way
    except (OSError, ValueError) as error:  # a name that is too long; a null character
        raise UsageError(f"{str(path)[:200]} cannot be written ({first_line(error)[:100]}); {_INSTEAD}") from error


def _try(folder: Path, name: str, out: Path) -> None:
    """Writes a file for a moment, in the nearest folder that is there, under a name as long as any later one."""
    there = next(place for place in (folder, *folder.absolute().parents) if _kind(place) is not None)
    if not there.is_dir():
        raise UsageError(f"{there} is a file, so {out} cannot be written below it; {_INSTEAD}")
    if long := [part for part in out.parts if len(os.fsencode(part)) > os.pathconf(there, "PC_NAME_MAX")]:
        raise UsageError(f"{long[0][:80]}... is too long a name; {_INSTEAD}")
    try:
        with tempfile.NamedTemporaryFile(prefix=f".{name}{_SCRATCH}", dir=there) as probe:
            probe.write(bytes(1 << 12))
            probe.flush()
    except OSError as error:
        raise StorageError(
            f"{out} cannot be written ({error.strerror or first_line(error)}: {there}, "
            f"{size_text(_free(there))} free); {_INSTEAD}"
        ) from error


def _free(folder: Path) -> int:
    """Bytes that this user can still write there."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize
