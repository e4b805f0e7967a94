"""Files that a run directory names. It may be a foreign one: what it names must lie below it and be a regular file.

A name may not lead out of the folder, by "..", as an absolute path or through a link, and a FIFO or a device is never
opened. Every read has a limit.
"""

from __future__ import annotations

import os
from pathlib import Path

from harness.core.bounded_read import read_bytes
from harness.core.errors import UsageError, first_line


def path_below(folder: Path, name: str) -> Path:
    """The resolved path of what a run directory names.

    Args:
        folder: The run directory, or another folder that nothing may lead out of.
        name: A path relative to it. It need not exist.

    Raises:
        UsageError: It leads out of the folder, or is no path.
    """
    try:
        root = folder.resolve()
        path = (root / name).resolve()
    except (OSError, RuntimeError, ValueError) as error:  # a circle of links; a null character
        raise UsageError(
            f"{folder} names {name[:200]!r}, which is no path ({first_line(error)[:200]}); correct its files"
        ) from error
    if root not in path.parents:
        raise UsageError(f"{folder} names {name[:200]!r}, which leads out of it; only what lies below it is used")
    return path


def leads_out(folder: Path, name: str) -> bool:
    """Whether `path_below` refuses the name."""
    try:
        path_below(folder, name)
    except UsageError:
        return True
    return False


def file_below(folder: Path, name: str) -> Path | None:
    """The resolved path of a regular file that a run directory names; None where nothing is there.

    Raises:
        UsageError: It leads out of the folder, or is a folder, a FIFO or a device.
    """
    path = path_below(folder, name)
    if os.path.isfile(path):  # noqa: PTH113  # Path.is_file raises OSError for a name that is too long
        return path
    if os.path.exists(path):  # noqa: PTH110
        raise UsageError(f"{path} is not a regular file; restore it, or run again")
    return None


def read_text_below(folder: Path, name: str, most_bytes: int, errors: str = "strict") -> str | None:
    """The text of a regular file that a run directory names; None where nothing is there.

    Args:
        folder: The run directory.
        name: A path relative to it.
        most_bytes: That the file may have.
        errors: What is done with bytes that are no UTF-8, as of bytes.decode.

    Raises:
        UsageError: It leads out of the folder, is no regular file, is larger than `most_bytes`, or cannot be read.
    """
    path = file_below(folder, name)
    if path is None:
        return None
    try:
        return read_bytes(path, most_bytes).decode("utf-8", errors)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read ({first_line(error)}); restore it, or run again") from error
