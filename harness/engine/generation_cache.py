"""Keeps finished generations on disk, so that a killed evaluation resumes with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.core.errors import UsageError
from harness.core.hashing import digest
from harness.core.jsonl import read_rows, to_line, write_rows
from tasks.generation import Generation


class GenerationCache:
    """A JSON Lines file: first the identity that the generations depend on, then one generation a line.

    A file with another identity is started over. A line that a kill cut short is dropped and generated again.
    """

    def __init__(self, path: Path, identity: str) -> None:
        if path.is_symlink() or not path.is_file():  # a link, a FIFO or a device in a foreign run directory
            path.unlink(missing_ok=True)
        self.known = _read(path, identity)
        rows = ({"key": key, "text": str(g), "meta": g.meta} for key, g in self.known.items())
        write_rows(path, [{"identity": identity}, *rows])  # at once: a kill here loses no generation
        self.file = path.open("a", encoding="utf-8")

    def get(self, key: str) -> Generation | None:
        """The generation that was saved under this key."""
        return self.known.get(key)

    def add(self, key: str, generation: Generation) -> None:
        """Saves a generation at once."""
        self.known[key] = generation
        self._write({"key": key, "text": str(generation), "meta": generation.meta})

    def _write(self, line: dict[str, Any]) -> None:
        self.file.write(to_line(line))
        self.file.flush()

    def __enter__(self) -> GenerationCache:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        self.file.close()


def key_of(prompt: list[int], settings: dict[str, Any]) -> str:
    """Identifies an answer of a given model: the prompt's token ids and the sampling settings."""
    return digest([prompt, settings])


def _read(path: Path, identity: str) -> dict[str, Generation]:
    try:
        first, *rows = read_rows(path, cut_short=True)
    except (UsageError, ValueError):  # no such file; no first row
        return {}
    return {row["key"]: Generation(row["text"], row["meta"]) for row in rows} if first == {"identity": identity} else {}
