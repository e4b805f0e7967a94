"""Reads run.json, the manifest and the answers of a run directory, which may be a foreign one.

Each is read whole, checked against its dataclasses once, and given on in their form: every field is there and has its
type.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.core.contained_files import file_below, read_text_below
from harness.core.errors import UsageError, first_line
from harness.core.jsonl import numbered_rows
from harness.core.resume import typed_again
from harness.core.run_directory import MANIFEST
from harness.core.run_schema import SCHEMA_VERSION, upgrade

if TYPE_CHECKING:  # pydantic takes longer to import than a help page to print
    from pydantic import TypeAdapter

RUN_FILE = "run.json"
_MOST_RUN_BYTES = 2**26
_MOST_ANSWER_BYTES = 2**30
_FOREIGN = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


def read_run(folder: Path) -> dict[str, Any]:
    """run.json of a run directory, in the present version; fields that this version does not know are left out.

    Raises:
        UsageError: There is none, it is damaged, or it is no run.json.
    """
    run = read_document(folder, RUN_FILE)
    if run is None:
        raise UsageError(f"{folder} has no {RUN_FILE}; {_what_instead(folder)}")
    if run.get("schema_version") not in (1, SCHEMA_VERSION):
        found = str(run.get("schema_version"))[:20]
        raise UsageError(
            f"{folder / RUN_FILE} has schema version {found}, this harness reads 1 to {SCHEMA_VERSION}; run again"
        )
    with figures_of(folder):
        checked = _checked(_run_form(), upgrade(run), folder / RUN_FILE)
    if problem := _misfit(checked):
        raise UsageError(f"{folder / RUN_FILE} is damaged: {problem}; run again")
    return checked


def read_document(folder: Path, name: str) -> dict[str, Any] | None:
    """A JSON object of a run directory; None where there is no such file.

    Raises:
        UsageError: It cannot be read, leads out of the folder, or is no JSON object.
    """
    text = read_text_below(folder, name, _MOST_RUN_BYTES)
    if text is None:
        return None
    try:
        document = json.loads(text)
        if r"\ud" in text.lower():
            json.dumps(document, ensure_ascii=False).encode()  # half of a surrogate pair is no text: ValueError
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{folder / name} is damaged ({first_line(error)}); run again") from error
    if not isinstance(document, dict):
        raise UsageError(f"{folder / name} is damaged (it is no JSON object); run again")
    return document


def read_answers(folder: Path, name: str) -> list[dict[str, Any]] | None:
    """The rows of a sample file (`SampleRecord`) that run.json names; None where there is no such file.

    Raises:
        UsageError: It leads out of the folder, is no regular file, is packed, or a row has another form.
    """
    path = file_below(folder, name)
    if path is None:
        return None
    if path.suffix == ".gz":
        raise UsageError(f"{path} is packed, and no run writes it so; restore it, or run again")
    rows = numbered_rows(path, most_bytes=_MOST_ANSWER_BYTES)
    return [_checked(_answer_form(), row, f"{path}, line {number}") for number, row in rows]


@contextmanager
def figures_of(folder: Path) -> Iterator[None]:
    """For work on the figures of a run: what a formula or a table raises, because they contradict each other, is a
    UsageError.
    """
    try:
        yield
    except _FOREIGN as error:
        reason = f"{type(error).__name__}: {first_line(error)[:200]}"
        raise UsageError(f"the figures of {folder / RUN_FILE} do not fit together ({reason}); run again") from error


def _checked(form: TypeAdapter[Any], value: Mapping[str, Any], where: object) -> dict[str, Any]:
    """`value` with the fields and types of `form`."""
    from pydantic import ValidationError

    try:
        found: dict[str, Any] = form.dump_python(form.validate_python(value), exclude={"folder"})
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part)[:50] for part in first["loc"])
        raise UsageError(f"{where} is damaged at {place} ({first['msg'][:200]}); run again") from error
    return found


@functools.cache
def _run_form() -> TypeAdapter[Any]:
    from pydantic import TypeAdapter

    from harness.core.types.run import RunResult

    return TypeAdapter(RunResult)


@functools.cache
def _answer_form() -> TypeAdapter[Any]:
    from pydantic import TypeAdapter

    from harness.core.types.evaluation import SampleRecord

    return TypeAdapter(SampleRecord)


def _misfit(run: Mapping[str, Any]) -> str | None:
    """What no run writes, in words."""
    names = [v["name"] for v in run["variants"]]
    points = run["sweep"]["points"] if run["sweep"] else ()
    if not names:
        return "it has no variant"
    if len(set(names)) < len(names):
        return "two of its variants have the same name"
    if any(not p["variants"] or not set(p["variants"]) <= set(names) for p in points):
        return "a point of its sweep names a variant that it does not have"
    if run["goal"] and not _is_searched(run["goal"], names):
        return "its goal names a variant that was not evaluated"
    return None


def _is_searched(goal: Mapping[str, Any], names: list[str]) -> bool:
    """Whether the candidates are variants, and the one that was found or the nearest is among them."""
    candidates = {c["variant"] for c in goal["candidates"]}
    return candidates <= set(names) and (goal["found"] or goal["nearest"]) in candidates


def _what_instead(folder: Path) -> str:
    """Advice where a folder is not a finished run."""
    if (folder / MANIFEST).exists():
        command = command_of(folder, {})
        how = f"resume it with `{command}`" if command else f"`harness runs {folder}` shows the command that resumes it"
        return f"its run has not finished; {how}"
    if runs := sorted(file.parent.name for file in folder.glob(f"*/{RUN_FILE}")):
        return f"give one of the runs in it: {', '.join(runs)}"
    return "give the directory of a finished run; `harness runs` lists them"


def command_of(folder: Path, run: Mapping[str, Any]) -> str | None:
    """The command of a run, by its manifest or else by its run.json; None where it is not known, is none of harness,
    or had settings in the environment besides.
    """
    try:
        manifest = read_document(folder, MANIFEST) or {}
        command = manifest.get("command") or run.get("command")
        plain = isinstance(command, str) and not manifest.get("environment")
        return typed_again(manifest, str(command), ()) if plain else None
    except (*_FOREIGN, OSError, UsageError):
        return None
