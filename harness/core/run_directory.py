"""The run directory: a manifest of finished stages and a lock. Nothing here knows what a stage does."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness.core.bounded_read import open_regular
from harness.core.contained_files import leads_out, read_text_below
from harness.core.errors import StorageError, UsageError, first_line
from harness.core.files import write_json
from harness.core.hashing import file_hash
from harness.core.out_place import check_folder
from harness.core.progress import say
from harness.core.run_schema import SCHEMA_VERSION
from harness.core.secrets import redacted_tree

MANIFEST = "manifest.json"
_MOST_BYTES = 2**28  # of a manifest

_SCRATCH = re.compile(r"\..+\.[a-z0-9_]{8}")  # as tempfile.mkdtemp names them

_WEIGHTS = {"fingerprint", "fingerprints"}  # the settings that say which weights a run is about

FINISHED = "finished"


def is_locked(folder: Path) -> bool:
    """Whether a process is at work in a run directory."""
    try:
        with open_regular(folder / ".lock") as handle:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except (OSError, UsageError):
        return False
    return False


def check_run_directory(folder: Path) -> None:
    """Tries, before any work, whether a run can write there; leaves nothing behind.

    Raises:
        UsageError: A file is there or above, or a folder with other things in it.
        StorageError: Nothing can be written there.
    """
    check_folder(folder)
    if not (folder / MANIFEST).exists():
        _refuse_foreign(folder)


def _refuse_foreign(folder: Path) -> None:
    if folder.exists() and any(not _is_of_a_run(entry) for entry in folder.iterdir()):
        raise UsageError(f"{folder} is not empty and is not a run directory; give another --out")


def _is_of_a_run(entry: Path) -> bool:
    """The lock, and what a run that was killed in its first moment leaves."""
    return entry.name == ".lock" or entry.name.startswith(f".{MANIFEST}.")


def _lock(handle: Any) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        time.sleep(0.2)  # the holder may be is_locked, which only looks
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextmanager
def _lock_file(path: Path) -> Iterator[int]:
    """The descriptor of a lock; a link, a FIFO or a device in its place is refused, as the directory may be foreign."""
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise StorageError(f"{path} cannot be opened ({error.strerror}); remove it or give another --out") from error
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise StorageError(f"{path} is not a regular file; remove it or give another --out")
        yield handle
    finally:
        os.close(handle)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One process at a time in a run directory; the lock ends with the process, however it ends."""
    folder.mkdir(parents=True, exist_ok=True)
    with _lock_file(folder / ".lock") as handle:
        try:
            _lock(handle)
        except BlockingIOError as error:
            raise StorageError(f"{folder} is in use by another process; wait for it or give another --out") from error
        yield


class RunDirectory:
    """Finished stages by name, each with the hash of its inputs and of its outputs."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.manifest: dict[str, Any] = {"schema_version": SCHEMA_VERSION, "settings": None, "stages": {}}
        self.started, self.before = time.monotonic(), 0.0

    def open(
        self,
        settings: dict[str, Any],
        fresh: bool,
        command: str | None = None,
        environment: Mapping[str, str] = {},
    ) -> None:
        """Reads the manifest, or writes the first one. Keys and tokens are hidden in what is written.

        Args:
            settings: What the directory is bound to; a run with other settings is refused.
            fresh: Empty the directory first.
            command: The command line as it was typed, None where Python code calls.
            environment: The HARNESS_ variables that were set.

        Raises:
            UsageError: The directory holds something else, or a run with other settings.
            StorageError: The manifest is damaged.
        """
        settings = redacted_tree(settings)
        if fresh:
            self.clear()
        file = self.path / MANIFEST
        for leftover in self.path.glob(f".{MANIFEST}.*"):  # of a run killed in its first moment
            shutil.rmtree(leftover, ignore_errors=True)
        if file.exists():
            self.manifest = _read_manifest(file)
        else:
            _refuse_foreign(self.path)
        known = self.manifest["settings"]
        if known is not None and (changed := _changed(known, settings)):
            pairs = ", ".join(f"{k}: {known.get(k)!r} there, {settings.get(k)!r} now" for k in changed)
            raise UsageError(
                f"{self.path} holds a run with other settings ({pairs}); give --fresh to start over or another --out"
            )
        self._remove_leftovers()
        started = {"command": command, "environment": dict(environment), "folder": str(Path.cwd())}
        self.manifest |= {"settings": settings, **redacted_tree(started), "at": None, "end": None}
        self.before = self.seconds
        write_json(file, self.manifest)

    @contextmanager
    def stage(self, name: str, inputs: str, outputs: list[Path]) -> Iterator[bool]:
        """A step of a run: yields whether there is work to do, and records it as finished once it is done.

        Args:
            name: Its name in the manifest.
            inputs: A hash of everything that the outputs depend on.
            outputs: The files and folders that it writes, below the run directory.
        """
        if self.finished(name, inputs):
            say(f"{name}: done before, skipped")
            yield False
            return
        self.begin(name)
        yield True
        self.finish(name, inputs, outputs)

    def begin(self, stage: str) -> None:
        """Records the stage in progress, so that it is known after a kill."""
        self._note(at=stage)

    @contextmanager
    def working(self) -> Iterator[None]:
        """Records how the work ended: finished, or with which error. After a kill nothing is recorded."""
        try:
            yield
        except KeyboardInterrupt:
            self._note(end="stopped by Ctrl-C")
            raise
        except Exception as error:
            self._note(end=f"failed: {first_line(error)}")
            raise
        self._note(at=None, end=FINISHED)

    def _note(self, **values: Any) -> None:
        self.manifest |= values
        write_json(self.path / MANIFEST, self.manifest)

    def clear(self) -> None:
        """Empties the directory, but only one that a run made."""
        if _is_ours(self.path / MANIFEST):
            for entry in sorted(
                self.path.iterdir(), key=lambda path: path.name == MANIFEST
            ):  # it says whose the rest is: last
                if entry.name != ".lock":
                    shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()

    def finished(self, stage: str, inputs: str) -> bool:
        """True where the stage ran on the same inputs and its outputs are still what it wrote."""
        entry = self.manifest["stages"].get(stage)
        return (
            entry is not None
            and entry["inputs"] == inputs
            and all(self._is_as_written(name, seen) for name, seen in entry["outputs"].items())
        )

    def _is_as_written(self, name: str, seen: str) -> bool:
        """False also for a name that leads out of the directory, and for a FIFO or a device."""
        if leads_out(self.path, name):
            return False
        path = self.path / name
        return (path.is_file() or path.is_dir()) and file_hash(path) == seen

    def finish(self, stage: str, inputs: str, outputs: list[Path]) -> None:
        hashes = {str(p.relative_to(self.path)): file_hash(p) for p in outputs}
        self.manifest["stages"][stage] = {"inputs": inputs, "outputs": hashes}
        at = None if self.manifest.get("at") == stage else self.manifest.get("at")
        self._note(seconds=self.before + time.monotonic() - self.started, at=at)

    @property
    def seconds(self) -> float:
        """Seconds spent so far, over all starts."""
        return float(self.manifest.get("seconds", 0.0))

    @property
    def command(self) -> str | None:
        """The command line of the present start, None where Python code called."""
        command = self.manifest.get("command")
        return str(command) if command else None

    def output_hash(self, stage: str) -> str:
        """One hash over a finished stage's outputs, for the inputs of the next."""
        return hashlib.sha256(
            json.dumps(self.manifest["stages"][stage]["outputs"], sort_keys=True).encode()
        ).hexdigest()[:16]

    def _remove_leftovers(self) -> None:
        """Removes the scratch folders of atomic_path that a killed run left; the lock keeps other writers out."""
        for leftover in [p for p in self.path.rglob(".*.*") if p.is_dir() and _SCRATCH.fullmatch(p.name)]:
            shutil.rmtree(leftover, ignore_errors=True)


def _changed(known: Mapping[str, Any], settings: Mapping[str, Any]) -> list[str]:
    """The settings that differ; a model with the same fingerprint may have moved, or be named otherwise."""
    changed = sorted(key for key in settings.keys() | known.keys() if settings.get(key) != known.get(key))
    same_weights = _WEIGHTS & settings.keys() and _WEIGHTS.isdisjoint(changed)
    return [key for key in changed if not (key == "model" and same_weights)]


def _is_ours(file: Path) -> bool:
    try:
        manifest = json.loads(read_text_below(file.parent, file.name, _MOST_BYTES) or "")
    except (UsageError, ValueError, RecursionError):
        return False
    return (
        isinstance(manifest, dict)
        and {"schema_version", "stages", "settings"} <= manifest.keys()
        and isinstance(manifest["settings"], dict | None)
        and isinstance(manifest["stages"], dict)
        and all(_is_stage(entry) for entry in manifest["stages"].values())
    )


def _is_stage(entry: Any) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("outputs"), dict) and "inputs" in entry


def _read_manifest(file: Path) -> dict[str, Any]:
    try:
        manifest: dict[str, Any] = json.loads(read_text_below(file.parent, file.name, _MOST_BYTES) or "")
    except (ValueError, RecursionError) as error:
        raise StorageError(f"{file} is damaged; delete this folder or give another --out") from error
    if not _is_ours(file):
        raise UsageError(f"{file} is not the manifest of a run; give another --out")
    if manifest.get("schema_version") != SCHEMA_VERSION:
        found = manifest.get("schema_version")
        raise UsageError(
            f"{file} has schema version {found}, this harness writes {SCHEMA_VERSION}; give --fresh or another --out"
        )
    return manifest
