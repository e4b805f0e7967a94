"""The run directory: atomic writes, a manifest of finished stages, a lock. Nothing here knows what a stage does."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.core.bounded_read import check_regular
from harness.core.errors import StorageError, UsageError

if TYPE_CHECKING:  # numpy takes longer to import than most commands that write a text
    import numpy.typing as npt

_ARRAYS_BYTES = 8 << 30  # the scores of 80 layers of 53,248 neurons have 0.5 GiB


@contextmanager
def atomic_path(final: Path, replaces: str | None = None) -> Iterator[Path]:
    """A path beside `final` to write a file or folder to; it becomes `final` on success and vanishes on failure.

    A folder with something in it is replaced only where it holds the file `replaces`; raises UsageError elsewhere, and
    StorageError for a full disk.
    """
    if final.is_dir() and any(final.iterdir()) and not (replaces and (final / replaces).exists()):
        raise UsageError(f"{final} is a folder with other things in it; give another --out")
    final.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{final.name}.", dir=final.parent))
    try:
        yield scratch / final.name
        if final.is_dir():
            final.replace(scratch / "old")  # so that a kill leaves the old one, none, or the new one, never a half
        (scratch / final.name).replace(final)
    except Exception as error:
        if _disk_is_full(error):
            raise StorageError(f"no space left while writing {final}; free some disk space and run again") from error
        raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _disk_is_full(error: Exception) -> bool:
    """ENOSPC or EDQUOT, also in the words of the Rust libraries."""
    return getattr(error, "errno", None) in (28, 122) or "os error 28" in str(error) or "os error 122" in str(error)


def write_text(path: Path, text: str) -> None:
    with atomic_path(path) as scratch:
        scratch.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def check_disk(folder: Path, needed_bytes: int) -> None:
    """Refuses early where `folder`'s disk cannot take `needed_bytes` and a tenth more."""
    existing = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    free = shutil.disk_usage(existing).free
    if free < needed_bytes * 1.1:
        raise StorageError(
            f"{folder} needs {needed_bytes * 1.1 / 2**30:.2f} GiB and {free / 2**30:.2f} GiB are free; "
            "free some disk space or give another folder with --out"
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
