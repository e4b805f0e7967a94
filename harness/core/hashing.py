"""Hashes of values, files and folders: 16 hex digits of a SHA-256."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from harness.core.bounded_read import open_regular


def file_hash(path: Path) -> str:
    """First 16 hex digits of the SHA-256 of a file's content, or of a folder's file names and contents in name
    order.
    """
    if not path.is_dir():
        return _digest(path).hex()[:16]
    total = hashlib.sha256()
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        total.update(str(file.relative_to(path)).encode() + _digest(file))
    return total.hexdigest()[:16]


def _digest(file: Path) -> bytes:
    with open_regular(file) as handle:
        return hashlib.file_digest(handle, "sha256").digest()


def sampled_hash(path: Path) -> Any:
    """A SHA-256 object over size, first and last MiB and 256 evenly spaced pieces of 64 KiB of a large file."""
    size = path.stat().st_size
    total = hashlib.sha256(str(size).encode())
    pieces = [(0, 1 << 20), *((size * i // 256, 1 << 16) for i in range(1, 256)), (max(0, size - (1 << 20)), 1 << 20)]
    with open_regular(path) as file:
        for start, length in pieces:
            file.seek(start)
            total.update(file.read(length))
    return total


def digest(value: object) -> str:
    """The first 16 hex digits of the SHA-256 of `value` as canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
