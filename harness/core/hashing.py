"""Hashes of values, files and folders: 16 hex digits of a SHA-256."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

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


def digest(value: object) -> str:
    """The first 16 hex digits of the SHA-256 of `value` as canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
