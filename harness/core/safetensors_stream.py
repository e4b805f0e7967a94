"""Safetensors files read and written as streams of bytes: never more than a few MiB of a tensor in memory, no tensor
library.

The format: 8 bytes of header length, a JSON header {name: {dtype, shape, data_offsets}}, then the data
(huggingface/safetensors).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.core.bounded_read import is_count, open_regular, parse_json
from harness.core.dtypes import BY_CODE, PACKED

BLOCK_BYTES = 8 << 20
_HEADER_BYTES = 100_000_000  # the safetensors library's own limit
_KEYS = ("dtype", "shape", "data_offsets")
_MOST_AXES, _LONGEST_AXIS = 16, 1 << 48

Array = npt.NDArray[Any]


class PackedTypeError(ValueError):
    """A tensor of a type smaller than a byte, as only quantised weights have it."""


@dataclass(frozen=True)
class Entry:
    """A tensor of a file; `start` counts bytes from the beginning of the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int = 0

    @property
    def item_bytes(self) -> int:
        return BY_CODE[self.dtype].item_bytes

    @property
    def data_bytes(self) -> int:
        return prod(self.shape) * self.item_bytes

    def resized(self, axis: int, length: int) -> Entry:
        return replace(self, shape=(*self.shape[:axis], length, *self.shape[axis + 1 :]))


def read_entries(path: Path) -> tuple[list[Entry], dict[str, str]]:
    """The tensors of a safetensors file in the order of their data, and its metadata.

    Raises:
        OSError: There is no such file.
        UsageError: It is a FIFO, a device or a folder.
        ValueError: Its header is damaged, or does not fit the file's size; PackedTypeError for a tensor of quantised
            weights that cannot be read.
    """
    with open_regular(path) as file:
        whole = os.fstat(file.fileno()).st_size
        size = int.from_bytes(file.read(8), "little")
        if size > min(whole - 8, _HEADER_BYTES):
            raise ValueError(f"its header claims {size} bytes")
        header = parse_json(file.read(size))
    metadata = header.pop("__metadata__", {}) if isinstance(header, dict) else None
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("its header is not a list of tensors with metadata of texts")
    found = sorted((_entry(name, raw, 8 + size) for name, raw in header.items()), key=lambda e: (e.start, e.name))
    _check_places(found, 8 + size, whole)
    return found, metadata


def _entry(name: str, raw: Any, first: int) -> Entry:
    """A tensor as the header gives it; `first`: where the data begin. Raises ValueError where it contradicts itself."""
    dtype, shape, offsets = (raw.get(key) if isinstance(raw, dict) else None for key in _KEYS)
    if dtype in PACKED:
        raise PackedTypeError(f"{name[:80]} is {dtype}")
    if not isinstance(dtype, str) or dtype not in BY_CODE:
        raise ValueError(f"{name[:80]} has no known dtype")
    if not isinstance(shape, list) or len(shape) > _MOST_AXES or not all(is_count(n, _LONGEST_AXIS) for n in shape):
        raise ValueError(f"{name[:80]} has no possible shape")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(is_count(n, _LONGEST_AXIS) for n in offsets):
        raise ValueError(f"{name[:80]} has no possible data_offsets")
    entry = Entry(name, dtype, tuple(shape), first + offsets[0])
    if entry.data_bytes != offsets[1] - offsets[0]:
        raise ValueError(f"{name[:80]} has {offsets[1] - offsets[0]} bytes and needs {entry.data_bytes}")
    return entry


def _check_places(entries: Sequence[Entry], first: int, whole: int) -> None:
    """One tensor after the other from `first` to the end of the file, as the format demands."""
    position = first
    for entry in entries:
        if entry.start != position:
            raise ValueError(f"{entry.name[:80]} overlaps another tensor or leaves a gap before it")
        position += entry.data_bytes
    if position > whole:
        raise ValueError(f"it is cut: {whole} bytes of {position}")
    if position < whole:
        raise ValueError(f"{whole - position} bytes follow its last tensor")


def as_array(path: Path, entry: Entry) -> Array:
    """The tensor as a read-only memory map of unsigned integers of its item size: bytes are moved, not numbers."""
    dtype = np.dtype(f"u{entry.item_bytes}")
    if prod(entry.shape) == 0:
        return np.empty(entry.shape, dtype)
    return np.memmap(path, dtype, "r", offset=entry.start, shape=entry.shape)


def write_entries(
    path: Path, entries: Sequence[Entry], metadata: Mapping[str, str], blocks: Callable[[Entry], Iterator[Array]]
) -> None:
    """Writes the file tensor by tensor from `blocks(entry)`; entries keep their order, so equal inputs give equal
    bytes.
    """
    with path.open("wb") as file:
        file.write(_header(entries, metadata))
        for entry in entries:
            for block in blocks(entry):
                file.write(np.ascontiguousarray(block).data)


def file_bytes(entries: Sequence[Entry], metadata: Mapping[str, str]) -> int:
    """Size of the file that `write_entries` makes."""
    return len(_header(entries, metadata)) + sum(entry.data_bytes for entry in entries)


def data_hash(path: Path) -> str:
    """First 16 hex digits of the SHA-256 of names, types, shapes and data of a safetensors file, whatever its metadata
    says.
    """
    entries, _ = read_entries(path)
    total = hashlib.sha256(repr([(entry.name, entry.dtype, entry.shape) for entry in entries]).encode())
    with open_regular(path) as file:
        file.seek(8 + int.from_bytes(file.read(8), "little"))
        total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()[:16]


def _header(entries: Sequence[Entry], metadata: Mapping[str, str]) -> bytes:
    header: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    position = 0
    for entry in entries:
        header[entry.name] = {
            "dtype": entry.dtype,
            "shape": list(entry.shape),
            "data_offsets": [position, position + entry.data_bytes],
        }
        position += entry.data_bytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def row_blocks(rows: int, row_bytes: int) -> Iterator[slice]:
    """Slices of at most BLOCK_BYTES (or one row)."""
    step = max(1, BLOCK_BYTES // max(row_bytes, 1))
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


def iter_blocks(array: Array) -> Iterator[Array]:
    """The tensor in blocks."""
    flat = array.reshape(-1)
    for part in row_blocks(len(flat), flat.itemsize):
        yield flat[part]


def gather_blocks(array: Array, keep: npt.NDArray[np.integer[Any]], axis: int) -> Iterator[Array]:
    """The tensor with only the indices `keep` along `axis` (0 or 1), in blocks."""
    if axis == 0:
        for part in row_blocks(len(keep), int(array[:1].nbytes)):
            yield array[keep[part]]
    else:
        for part in row_blocks(len(array), int(array[:1].nbytes)):
            yield np.take(array[part], keep, axis=1)


def finite(block: Array, dtype: str) -> bool:
    """False where a floating-point value is infinite or NaN."""
    mask = BY_CODE[dtype].exponent
    if mask is None or block.size == 0:
        return True
    typed = block.dtype.type(mask)
    return bool((block & typed).max() != typed)
