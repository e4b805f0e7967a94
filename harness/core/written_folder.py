"""A folder that is written as a whole, and that takes the place of an older one only where nothing in that is anybody
else's. What was written is listed in the folder itself, each file with a hash.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness.core.bounded_read import read_json_object
from harness.core.errors import UsageError
from harness.core.files import atomic_path, write_json
from harness.core.hashing import sampled_hash
from harness.core.out_place import check_new_folder

LIST = ".written.json"  # file -> hash, of all files beside it
_SHOWN = 3  # names in an error
_INSTEAD = "move that elsewhere, or give another --out"


@dataclass(frozen=True)
class Replaceable:
    """What makes a folder one of ours.

    Attributes:
        marker: A file that each has.
        wrote: Whether an older version, which kept no list, may have written this file: the folder, and the path in it.
        repair: Replace also what has changed since it was written, as a run does with its own damaged files.
    """

    marker: str
    wrote: Callable[[Path, str], bool]
    repair: bool = False


@contextmanager
def written_folder(final: Path, known: Replaceable) -> Iterator[Path]:
    """An empty folder to write to; it becomes `final` on success and vanishes on failure.

    Raises:
        UsageError: What is at `final` may not be replaced (`check_replaceable`).
        StorageError: The disk is full, or cannot be written.
    """
    check_replaceable(final, known)
    with atomic_path(final, replaces=True) as scratch:
        scratch.mkdir()
        yield scratch
        write_json(scratch / LIST, {name: _hash(scratch / name) for name in _files(scratch)})


def check_replaceable(final: Path, known: Replaceable) -> None:
    """Raises UsageError where `final` cannot be written, or holds what was not written there by us."""
    check_new_folder(final)
    found = _files(final)
    if not found:
        return
    if known.marker not in found:
        raise UsageError(f"{final} is a folder with other things in it; give another --out")
    listed = _listed(final)
    if listed is None:
        _refuse(final, [name for name in found if name != LIST and not known.wrote(final, name)], "not written here")
        return
    _refuse(final, [name for name in found if name != LIST and name not in listed], "not written here")
    if not known.repair:
        changed = [name for name in found if name != LIST and _hash(final / name) != listed[name]]
        _refuse(final, changed, "changed since it was written")


def _refuse(final: Path, names: Sequence[str], why: str) -> None:
    if names:
        shown = ", ".join(name[:80] for name in names[:_SHOWN])
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        raise UsageError(f"{final} holds {shown}{more}, {why}, and would be replaced; {_INSTEAD}")


def _files(folder: Path) -> list[str]:
    """Every file and link below a folder, in order; links are not followed."""
    found: list[str] = []
    for place, folders, files in os.walk(folder):
        below = Path(place).relative_to(folder)
        links = [name for name in folders if (Path(place) / name).is_symlink()]
        found += [(below / name).as_posix() for name in (*files, *links)]
    return sorted(found)


def _listed(folder: Path) -> dict[str, object] | None:
    file = folder / LIST
    return read_json_object(file) if file.is_file() and not file.is_symlink() else None


def _hash(file: Path) -> str | None:
    """None where it is not a regular file."""
    return sampled_hash(file).hexdigest()[:16] if file.is_file() and not file.is_symlink() else None
