"""`harness runs`: the run directories in a folder, the state of each, and the command that resumes it."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.config.settings import FIELDS
from harness.core.errors import UsageError
from harness.core.resume import typed_again
from harness.core.run_directory import FINISHED, MANIFEST, is_locked
from harness.core.run_file import RUN_FILE, read_document
from harness.core.text import one_line


@dataclass(frozen=True)
class RunInfo:
    """`state`: running, finished, failed, stopped (by Ctrl-C) or killed. note: what it does, how far it came, or why it
    ended.

    resume_command: what resumes it, None while it runs and where nothing is left to do.
    """

    path: str
    state: str
    note: str
    model: str
    task: str
    updated: str
    stages: int
    command: str | None
    resume_command: str | None


def list_runs(
    folder: Path, model: str | None = None, task: str | None = None, states: Sequence[str] = ()
) -> list[RunInfo]:
    """The run directories directly below `folder`, or it itself, the latest first; raises UsageError where there is no
    such folder, or it is one whose manifest is damaged. Damaged ones below it are passed over.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder; runs are in runs/, or where --out put them")
    places = [folder] if (folder / MANIFEST).exists() else sorted(path.parent for path in folder.glob(f"*/{MANIFEST}"))
    infos = [info for place in places if (info := _read_info(place))]
    if places == [folder] and not infos:
        raise UsageError(f"{folder / MANIFEST} is damaged, or not the manifest of a run; restore it, or run again")
    kept = [
        info
        for info in infos
        if (model is None or model in info.model)
        and (task is None or task in info.task)
        and (not states or info.state in states)
    ]
    return sorted(kept, key=lambda info: info.updated, reverse=True)


def _read_info(place: Path) -> RunInfo | None:
    """None for what is not the manifest of a run, or is damaged."""
    manifest = _read(place, MANIFEST)
    try:
        return _info(place, manifest) if isinstance(manifest.get("stages"), dict) else None
    except (AttributeError, KeyError, OSError, RecursionError, TypeError, ValueError):
        return None


def _info(place: Path, manifest: Mapping[str, Any]) -> RunInfo:
    settings = manifest.get("settings") or {}
    state, note = _state(place, manifest)
    command = str(manifest.get("command") or _read(place, RUN_FILE).get("command") or "")
    task = settings.get("task") or []
    updated = datetime.datetime.fromtimestamp((place / MANIFEST).stat().st_mtime).isoformat(" ", "seconds")
    return RunInfo(
        path=str(place),
        state=state,
        note=note,
        model=str(settings.get("model", "")),
        task=", ".join(task) if isinstance(task, list) else str(task),
        updated=updated,
        stages=len(manifest["stages"]),
        command=command or None,
        resume_command=_resume_command(manifest, state, note, command),
    )


def _read(place: Path, name: str) -> dict[str, Any]:
    try:
        return read_document(place, name) or {}
    except UsageError:
        return {}


def _state(place: Path, manifest: Mapping[str, Any]) -> tuple[str, str]:
    end, at, done = manifest.get("end"), manifest.get("at"), len(manifest["stages"])
    so_far = f"{f'at {at}' if at else 'between two stages'}, {done} stage{'' if done == 1 else 's'} done"
    if is_locked(place):
        return "running", so_far
    if end == FINISHED or ("end" not in manifest and (place / RUN_FILE).exists()):  # older versions do not record it
        failed = len((_read(place, RUN_FILE).get("sweep") or {}).get("failed") or ())
        return "finished", f"cells that failed: {failed}; the same command retries them" if failed else ""
    if end:
        return (
            "failed" if str(end).startswith("failed") else "stopped"
        ), f"{str(end).removeprefix('failed: ')} ({so_far})"
    return "killed", so_far


def _resume_command(manifest: Mapping[str, Any], state: str, note: str, command: str) -> str | None:
    """The command as it was typed; None where nothing is left to do."""
    if state == "running" or (state == "finished" and not note):
        return None
    return typed_again(manifest, command, FIELDS)


def run_lines(infos: Sequence[RunInfo]) -> list[str]:
    """A few lines a run, none of them cut: a command can be copied as it stands."""
    lines = []
    for info in infos:
        lines.append(
            f"{info.state:<9} {info.path}  {info.updated}  {info.model}{f' on {info.task}' if info.task else ''}"
        )
        page = Path(info.path) / "report.html"
        report = f"report: {page}" if info.state == "finished" and page.exists() else None
        command = f"$ {info.resume_command}" if info.resume_command else None
        lines += [f"{'':<9} {text}" for text in (info.note, report, command) if text]
    return [one_line(line) for line in lines]
