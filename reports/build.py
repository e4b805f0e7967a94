"""run.json -> report.html and report.md; everything on the pages is read from that one file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jinja2

from harness.errors import UsageError
from harness.store import write_text
from reports import charts, figures
from reports.neurons import neuron_tables
from reports.recovery import recovery_sentences, recovery_tables
from reports.serving import serving_sentences, serving_tables
from reports.sweep import sweep_sentences, sweep_tables

_TEMPLATES = Path(__file__).parent / "templates"


def read_run(folder: Path) -> dict[str, Any]:
    """run.json of a run directory; raises UsageError where there is none that can be read."""
    try:
        run: dict[str, Any] = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{folder} has no run.json; finish the run first with `harness run --out {folder}`") from error
    except ValueError as error:
        raise UsageError(f"{folder / 'run.json'} is damaged ({error}); run again") from error
    return run


def write_reports(folder: Path) -> tuple[Path, Path]:
    """Renders both forms into the run directory and returns their paths."""
    run = read_run(folder)
    html, markdown = folder / "report.html", folder / "report.md"
    write_text(html, render(run, "report.html.j2", escape=True))
    write_text(markdown, render(run, "report.md.j2", escape=False))
    return html, markdown


def render(run: dict[str, Any], template: str, escape: bool) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        undefined=jinja2.StrictUndefined,
        autoescape=escape,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(figures.FILTERS)
    drawn = charts.drawn(run) if escape else []
    *results, provenance = figures.tables(run)
    if run.get("sweep"):
        results = [*sweep_tables(run), figures.difference_table(run)]
    tables = [*results, *serving_tables(run), *recovery_tables(run), *neuron_tables(run), provenance]
    return environment.get_template(template).render(run=run, charts=drawn, verdict=sentences(run), tables=tables)


def sentences(run: dict[str, Any]) -> list[str]:
    """What the figures say, in words."""
    if run.get("claims"):
        return sweep_sentences(run)
    return [*figures.verdict(run), *serving_sentences(run), *recovery_sentences(run)]
