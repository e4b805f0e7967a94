"""run.json -> report.html, report.md, report.csv and card.md. Every figure is read from that file and the
sample files it names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.core.errors import UsageError
from harness.core.files import write_text
from harness.core.out_place import check_folder
from harness.core.run_file import figures_of, read_run
from reports import flat, model_card, page
from reports.parts import Section, filled
from reports.sections import (
    accuracy,
    claims,
    cost,
    dissociation,
    failures,
    goal,
    lm_eval,
    neurons,
    off_target,
    provenance,
    recovery,
    summary,
    tradeoff,
)
from reports.templating import template
from reports.verdict import commands, sentences

# in the order of the report; a new section is a module with a function `section` and a line here
SECTIONS: tuple[Callable[[Mapping[str, Any]], Section], ...] = (
    dissociation.section,
    summary.section,
    goal.section,
    tradeoff.section,
    accuracy.section,
    lm_eval.section,
    failures.section,
    cost.section,
    claims.section,
    off_target.section,
    recovery.section,
    neurons.section,
    provenance.section,
)
FORMATS = {"html": "report.html", "md": "report.md", "csv": "report.csv", "card": "card.md"}


def write_reports(folder: Path, formats: Sequence[str] = ("html", "md")) -> dict[str, Path]:
    """Renders each format into the run directory and returns their paths.

    Raises:
        UsageError: An unknown format, or a run.json that is damaged or names files outside of its folder.
    """
    if not formats:
        raise UsageError(f"no format given; choose from {', '.join(FORMATS)}")
    if unknown := [name for name in formats if name not in FORMATS]:
        raise UsageError(f"unknown format {', '.join(unknown)}; known are {', '.join(FORMATS)}")
    run = read_run(folder)
    check_folder(folder)
    with figures_of(folder):
        made = sections(run) if {"html", "md"} & set(formats) else []
        render: Mapping[str, Callable[[], str]] = {
            "html": lambda: page.render(run, made, folder),
            "md": lambda: markdown(run, made, folder),
            "csv": lambda: flat.csv_text(run),
            "card": lambda: model_card.render(run),
        }
        texts = {name: render[name]() for name in formats}
    for name, text in texts.items():
        write_text(folder / FORMATS[name], text)
    return {name: folder / FORMATS[name] for name in texts}


def sections(run: Mapping[str, Any]) -> list[Section]:
    """The sections that are not empty, their tables without columns in which nothing was measured."""
    return [filled(found) for make in SECTIONS if not (found := make(run)).empty]


def markdown(run: Mapping[str, Any], made: Sequence[Section], folder: Path) -> str:
    shown = {"verdict": sentences(run), "commands": commands(run, folder), "sections": made}
    return template("report.md.j2").render(run=run, **shown)
