"""Atomic writes of files, folders and arrays, and checks of disk space."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.core.bounded_read import check_regular
from harness.core.errors import StorageError, UsageError, first_line
from harness.core.text import size_text

if TYPE_CHECKING:  # numpy takes longer to import than most commands that write a text
    import numpy.typing as npt

_ARRAYS_BYTES = 8 << 30  # the scores of 80 layers of 53,248 neurons have 0.5 GiB


@contextmanager
def atomic_path(final: Path, replaces: bool = False) -> Iterator[Path]:
    """A path beside `final` to write a file or folder to; it becomes `final` on success and vanishes on failure.

    Args:
        final: The file or folder to write.
        replaces: Whether a folder with something in it may be replaced (`harness.core.written_folder`).

    Raises:
        UsageError: A folder with something in it is there, and may not be replaced.
        StorageError: The disk is full, or cannot be written.
    """
    if not replaces and final.is_dir() and any(final.iterdir()):
        raise UsageError(f"{final} is a folder with other things in it; give another --out")
    scratch = _scratch_folder(final)
    try:
        yield scratch / final.name
        if final.is_dir():
            final.replace(scratch / "old")  # so that a kill leaves the old one, none, or the new one, never a half
        (scratch / final.name).replace(final)
    except Exception as error:
        if _disk_is_full(error):
            written, free = size_text(_size_of(scratch)), size_text(shutil.disk_usage(scratch).free)
            raise StorageError(
                f"no space left while writing {final}: it has {written} so far and {free} are free; "
                "free some disk space and run again"
            ) from error
        raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _scratch_folder(final: Path) -> Path:
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=f".{final.name}.", dir=final.parent))
    except OSError as error:
        raise StorageError(
            f"{final} cannot be written ({error.strerror or first_line(error)}); write to another folder"
        ) from error


def _size_of(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())


def _disk_is_full(error: Exception) -> bool:
    """ENOSPC or EDQUOT, also in the words of the Rust libraries."""
    return getattr(error, "errno", None) in (28, 122) or "os error 28" in str(error) or "os error 122" in str(error)


def write_text(path: Path, text: str) -> None:
    with atomic_path(path) as scratch:
        scratch.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def check_disk(folder: Path, needed_bytes: int, instead: str = "give another folder with --out") -> None:
    """Refuses early where `folder`'s disk cannot take `needed_bytes` and a tenth more. instead: what else helps."""
    existing = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    free = shutil.disk_usage(existing).free
    if free < needed_bytes * 1.1:
        raise StorageError(
            f"{folder} needs {size_text(round(needed_bytes * 1.1))} and {size_text(free)} are free; "
            f"free some disk space or {instead}"
        )


def save_arrays(path: Path, arrays: Mapping[str, npt.NDArray[Any]], metadata: Mapping[str, str]) -> None:
    """A safetensors file, atomically, with the same bytes for the same content (the library shuffles the metadata)."""
    import numpy as np
    from safetensors.numpy import save

    raw = save({name: np.ascontiguousarray(array) for name, array in arrays.items()}, dict(metadata))
    size = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + size])
    header["__metadata__"] = dict(sorted(metadata.items()))
    text = json.dumps({"__metadata__": header.pop("__metadata__"), **header}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with atomic_path(path) as scratch:
        scratch.write_bytes(len(text).to_bytes(8, "little") + text + raw[8 + size :])


def check_replaceable_arrays(path: Path, keys: Set[str], what: str) -> None:
    """Raises UsageError where a file with something else is there, by the `keys` of its metadata: a model, a thesis."""
    from harness.core.safetensors_stream import read_entries

    if not path.is_file() or path.stat().st_size == 0:
        return
    try:
        _, metadata = read_entries(path)
    except (OSError, ValueError):
        metadata = {}
    if not keys <= metadata.keys():
        raise UsageError(f"{path} is there and holds no {what}; remove it, or give another --out")


def load_arrays(
    path: Path, made_by: str, limit_bytes: int = _ARRAYS_BYTES
) -> tuple[dict[str, npt.NDArray[Any]], dict[str, str]]:
    """Arrays and metadata of a safetensors file; raises UsageError naming the command that makes one."""
    from safetensors import SafetensorError, safe_open

    try:
        check_regular(path, limit_bytes)  # the library would wait for a FIFO
        with safe_open(path, framework="np") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (OSError, TypeError, MemoryError, SafetensorError) as error:
        raise UsageError(f"{path} cannot be read ({error}); make one with `{made_by}`") from error
