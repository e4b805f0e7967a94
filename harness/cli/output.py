"""What commands print: tables and progress on standard error, one JSON document on standard output."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from reports.parts import Table

_NARROW = 5  # columns that are folded rather than taken apart


def answer(found: Any, as_json: bool, table: Table | None = None) -> None:
    """One JSON document on standard output when asked, else a table or `key: value` lines on standard error."""
    if is_dataclass(found) and not isinstance(found, type):
        found = asdict(found)
    if as_json:
        click.echo(json.dumps(found, indent=1))
    elif table is not None:
        print_table(table)
    else:
        print_lines([f"{key}: {value}" for key, value in found.items()])


def show_run(folder: Path, as_json: bool) -> None:
    from reports.build import read_run
    from reports.sections.serving import memory_table, speed_table, throughput_table
    from reports.sections.summary import summary_table
    from reports.verdict import sentences

    run = read_run(folder)
    if as_json:
        click.echo(json.dumps(run, indent=1))
    print_table(summary_table(run))
    if not any(variant["eval"] for variant in run["variants"]):
        for table in (throughput_table(run), speed_table(run), memory_table(run)):
            print_table(table)
    print_lines(sentences(run))
    click.echo(f"\nReport: {folder / 'report.html'}", err=True)


def show_sweep(folder: Path, as_json: bool) -> None:
    """The claims and the target's curves."""
    from reports.build import read_run
    from reports.sections.accuracy import target_table
    from reports.sections.claims import threshold_table
    from reports.verdict import sentences

    run = read_run(folder)
    if as_json:
        click.echo(json.dumps(run, indent=1))
    for table in (target_table(run), threshold_table(run)):
        print_table(table)
    print_lines(sentences(run))
    print_lines([f"failed: {cell['cell']}: {cell['reason']}" for cell in run["sweep"]["failed"]])
    click.echo(f"\n{run['sweep']['seconds']:.0f} s in all. Report: {folder / 'report.html'}", err=True)


def print_table(table: Table) -> None:
    """As a table where it fits the terminal, else row by row, a line a cell; nothing in a cell is taken for markup."""
    from rich.table import Table as RichTable
    from rich.text import Text

    from harness.core.progress import console

    shown = [[visible(cell) for cell in row] for row in table.rows]
    widths = [
        max(len(part) for cell in column for part in cell.split("\n"))
        for column in zip(table.head, *shown, strict=True)
    ]
    if len(widths) > _NARROW and sum(widths) + 3 * len(widths) + 1 > console.width:
        print_lines(
            [table.title, *(line for row in shown for line in _record(table.head, row)), *filter(None, [table.note])]
        )
        return
    drawn = RichTable(
        title=Text(visible(table.title)),
        title_justify="left",
        caption=Text(visible(table.note)) if table.note else None,
        caption_justify="left",
    )
    for name in table.head:
        drawn.add_column(Text(visible(name)), overflow="fold")
    for row in shown:
        drawn.add_row(*map(Text, row))
    console.print(drawn)


def _record(head: Sequence[str], row: Sequence[str]) -> list[str]:
    return [
        f"  {' / '.join(row[:2])}",
        *(f"    {name}: {cell}" for name, cell in list(zip(head, row, strict=True))[2:] if cell),
    ]


def visible(text: str) -> str:
    """What a terminal would obey is shown instead."""
    return "".join(c if c in "\n\t" or c.isprintable() else f"\\u{ord(c):04x}" for c in text)


def print_lines(lines: Sequence[str]) -> None:
    for line in lines:
        click.echo(visible(line), err=True)


@contextmanager
def stdout_to_stderr() -> Iterator[None]:
    """Libraries print what they like; standard output stays clean for the one JSON document."""
    sys.stdout.flush()
    saved = os.dup(1)
    try:
        os.dup2(2, 1)
        yield
    finally:
        sys.stdout.flush()
        os.dup2(saved, 1)
        os.close(saved)
