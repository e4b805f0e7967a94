"""JSON Lines: one JSON object a line. A line ends at "\\n" only: U+2028, U+0085 and form feeds are part of a text."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from io import BufferedReader
from pathlib import Path
from typing import Any

from harness.core.bounded_read import open_regular, parse_json
from harness.core.errors import UsageError, first_line
from harness.core.files import write_text
from harness.core.text import well_formed

FILE_BYTES, LINE_BYTES = 1 << 30, 64 << 20  # the most of a file, unpacked, and of a line
_FORM = "a JSON Lines file has one JSON object on each line"
_GZIP = b"\x1f\x8b"
_OTHER_KINDS = {  # first bytes -> what such a file is
    b"PAR1": "Parquet",
    b"PK\x03\x04": "a ZIP archive or a spreadsheet",
    b"\x28\xb5\x2f\xfd": "packed by zstd",
    b"\xfd7zXZ": "packed by xz",
    b"BZh": "packed by bzip2",
    b"ARROW1": "Arrow",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}


def to_line(row: Mapping[str, Any]) -> str:
    """One row as text with its "\\n". Escapes what UTF-8 cannot hold (lone surrogates)."""
    text = json.dumps(row, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        text = json.dumps(row)
    return text + "\n"


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes all rows at once: `path` never holds a part of them."""
    write_text(path, "".join(map(to_line, rows)))


def read_rows(path: Path, cut_short: bool = False) -> list[dict[str, Any]]:
    """All rows of a file; see `numbered_rows`."""
    return [row for _, row in numbered_rows(path, cut_short)]


def numbered_rows(
    path: Path, cut_short: bool = False, most_bytes: int = FILE_BYTES
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line numbers (from 1) and rows of a file; blank lines are skipped, gzip is unpacked.

    Args:
        path: UTF-8, with or without a byte order mark.
        cut_short: the file may end in the middle of a line, because its writer was killed. Reading then stops before
            the first bad line.
        most_bytes: of the file, unpacked. A line has at most 64 MiB.

    Raises:
        UsageError: the file cannot be read, is too large, or a line is not a JSON object (unless cut_short).
    """
    try:
        with open_regular(path, FILE_BYTES) as file:
            for number, line in enumerate(_lines(file, path, most_bytes), 1):
                if not line.strip():
                    continue
                try:
                    row = _parse(line, f"{path}, line {number}")
                except UsageError:
                    if cut_short:
                        return
                    raise
                yield number, row
    except (OSError, EOFError, zlib.error) as error:
        raise UsageError(f"{path} cannot be read ({first_line(error)}); {_FORM}") from error


def _lines(file: BufferedReader, path: Path, most_bytes: int) -> Iterator[bytes]:
    """The lines of a file or of what is packed in it, which may be far more."""
    left, start = most_bytes, file.peek(8)
    if kind := next((kind for first, kind in _OTHER_KINDS.items() if start.startswith(first)), None):
        raise UsageError(f"{path} is no plain text: it is {kind}; write it as JSON Lines, plain or gzip")
    packed = start.startswith(_GZIP) or path.suffix == ".gz"
    with gzip.GzipFile(fileobj=file) if packed else file as lines:
        while line := lines.readline(LINE_BYTES + 1):
            left -= len(line)
            if len(line) > LINE_BYTES or left < 0:
                most = LINE_BYTES if len(line) > LINE_BYTES else most_bytes
                raise UsageError(f"{path} has a line or a whole of more than {most:,} bytes; {_FORM}")
            yield line


def _parse(line: bytes, where: str) -> dict[str, Any]:
    try:
        row = parse_json(_decoded(line))
    except ValueError as error:
        raise UsageError(f"{where} is not JSON ({first_line(error)}); {_FORM}") from error
    if not isinstance(row, dict):
        raise UsageError(f"{where} is not a JSON object; {_FORM}")
    return row


def _decoded(line: bytes) -> str:
    """Half a surrogate pair, which some writers encode like a character, becomes U+FFFD."""
    try:
        return line.decode("utf-8-sig")
    except UnicodeDecodeError:
        return well_formed(line.decode("utf-8", "surrogatepass")).removeprefix("\ufeff")
