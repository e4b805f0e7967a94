"""What commands print: answers on standard output, progress and warnings on standard error.

On a terminal tables have boxes; elsewhere they are plain text with aligned columns, one row a line, so that grep and a
file get whole rows. With --json one JSON document is all that there is on standard output.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.core.text import one_line, visible

if TYPE_CHECKING:
    from harness.config.settings import RunConfig
    from reports.parts import Table

_FEW = 5  # columns that always make a table, however often their cells wrap
Rows = Sequence[Sequence[str]]


def answer(found: Any, as_json: bool, table: Table | None = None) -> None:
    """One JSON document if requested, else a table or `key: value` lines."""
    if is_dataclass(found) and not isinstance(found, type):
        found = asdict(found)
    if as_json:
        click.echo(json.dumps(found, indent=1))
    elif table is not None:
        print_table(table)
    else:
        print_lines([one_line(f"{key}: {value}") for key, value in found.items()])


def show_dry_run(
    config: RunConfig,
    resolve: Callable[[RunConfig, bool], Any],
    forecast: Callable[[Any, Any], Any],
    table: Callable[[Any], Table],
    out: Path | None,
    as_json: bool,
) -> None:
    """Prints what a command would do; `resolve`, `forecast` and `table` are the command's own."""
    from harness.models.registry import has_chat_template

    with stdout_to_stderr():
        found = forecast(resolve(config, has_chat_template(config.model, config.template_args)), out)
    answer(found, as_json, table(found))


def show_run(folder: Path, as_json: bool) -> None:
    """The summary of a run, or of what was only timed the tables of that, and the verdict."""
    from harness.core.run_file import read_run
    from reports.sections.lm_eval import lm_eval_table
    from reports.sections.serving import memory_table, speed_table, throughput_table
    from reports.sections.summary import summary_table

    run = read_run(folder)
    tables = [summary_table(run), lm_eval_table(run)]
    if not any(variant["eval"] for variant in run["variants"]):
        ratios = [ratio for ratio in run.get("speed_ratios") or () if ratio["quantity"] == "output_tok_s"]
        tables += [throughput_table(run), speed_table({**run, "speed_ratios": ratios}), memory_table(run)]
    _show(run, as_json, tables, [*_command_lines(run, folder), f"Report: {folder / 'report.html'}"])


def show_sweep(folder: Path, as_json: bool) -> None:
    """The target's curves, the thresholds and the verdict."""
    from harness.core.run_file import read_run
    from reports.sections.accuracy import target_table
    from reports.sections.claims import threshold_table

    run = read_run(folder)
    failed = [one_line(f"failed: {cell['cell']}: {cell['reason']}") for cell in run["sweep"]["failed"]]
    end = f"{run['sweep']['seconds']:.0f} s in all. Report: {folder / 'report.html'}"
    _show(run, as_json, [target_table(run), threshold_table(run)], [*failed, *_command_lines(run, folder), end])


def _command_lines(run: Any, folder: Path) -> list[str]:
    """How to get the recommended model."""
    from reports.verdict import commands

    found = commands(run, folder)
    title = "To write this model and serve it:" if len(found) > 1 else "To serve this model:"
    return [title, *(one_line(f"  {command}") for command in found), ""] if found else []


def show_dissociation(folder: Path, as_json: bool) -> None:
    """Who loses what, what explains it, and the verdict."""
    from harness.core.run_file import read_run
    from reports.sections.dissociation import explanation_table, matrix_table

    run = read_run(folder)
    found = run["dissociation"]
    short = explanation_table(found)
    tables = [matrix_table(found), replace(short, head=short.head[:-1], rows=tuple(row[:-1] for row in short.rows))]
    failed = [one_line(f"failed: {name}: {reason}") for name, reason in found["failed"].items()]
    end = f"{found['seconds']:.0f} s in all. Report: {folder / 'report.html'}"
    _show(run, as_json, tables, [*failed, end])


def _show(run: Any, as_json: bool, tables: Sequence[Table], last: Sequence[str]) -> None:
    from reports.verdict import sentences

    if as_json:
        click.echo(json.dumps(run, indent=1))
        return
    for table in tables:
        if table.rows:
            print_table(table)
    print_lines([*map(one_line, sentences(run)), "", *last])


def print_table(table: Table) -> None:
    """Columns without any entry are left out; nothing in a cell is taken for markup."""
    head, rows = _filled(
        [visible(name) for name in table.head], [[visible(cell) for cell in row] for row in table.rows]
    )
    title, note = visible(table.title), visible(table.note)
    if rows and sys.stdout.isatty():
        _draw(title, head, rows, note)
    else:
        print_lines([*filter(None, [title]), *_plain([head, *rows]), *filter(None, [note]), ""])


def _filled(head: Sequence[str], rows: Rows) -> tuple[Sequence[str], Rows]:
    kept = [i for i in range(len(head)) if not rows or any(row[i] for row in rows)]
    return [head[i] for i in kept], [[row[i] for i in kept] for row in rows]


def _plain(rows: Rows) -> list[str]:
    """One line a row, columns aligned, two spaces between them."""
    lines = [[" ".join(cell.split()) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]


def _draw(title: str, head: Sequence[str], rows: Rows, note: str) -> None:
    """As a table; transposed where only that fits the terminal; row by row where nothing does."""
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    console = Console()
    if not _fits([head, *rows], console.width):
        head, rows, note = _without_constants(head, rows, note)
    if not _fits([head, *rows], console.width):
        first, *others = zip(head, *rows, strict=True)
        if not _fits([first, *others], console.width):
            print_lines([title, *(line for row in rows for line in _record(head, row)), *filter(None, [note])])
            return
        head, rows = first, others
    drawn = RichTable(
        title=Text(title),
        title_justify="left",
        caption=Text(note) if note else None,
        caption_justify="left",
    )
    for name, width in zip(head, _widths([head, *rows], console.width), strict=True):
        drawn.add_column(Text(name), overflow="fold", width=width)
    for row in rows:
        drawn.add_row(*map(Text, row))
    console.print(drawn)
    console.print()


def _without_constants(head: Sequence[str], rows: Rows, note: str) -> tuple[Sequence[str], Rows, str]:
    """What is the same in every row goes into the note."""
    same = [len(rows) > 1 and len({row[i] for row in rows}) == 1 for i in range(len(head))]
    told = [
        f"{name}: {cell}, in every row." for name, cell, constant in zip(head, rows[0], same, strict=True) if constant
    ]
    return (
        [name for name, constant in zip(head, same, strict=True) if not constant],
        [[cell for cell, constant in zip(row, same, strict=True) if not constant] for row in rows],
        " ".join([note, *told]).strip(),
    )


def _fits(rows: Rows, width: int) -> bool:
    """Whether a table of these rows, the head among them, needs to break no word."""
    words = _longest_words(rows)
    return len(words) <= _FEW or sum(words) <= width - _frame(words)


def _longest_words(rows: Rows) -> list[int]:
    return [max(len(word) for cell in column for word in cell.split() or [""]) for column in zip(*rows, strict=True)]


def _frame(columns: Sequence[Any]) -> int:
    """Characters of a row that lines and padding take."""
    return 3 * len(columns) + 1


def _widths(rows: Rows, width: int) -> Sequence[int | None]:
    """Of the columns: no word is broken, and what lacks least to hold its cells on one line comes first. None: rich
    decides, since words have to be broken.
    """
    found = _longest_words(rows)
    room = width - _frame(found) - sum(found)
    if room < 0:
        return [None] * len(found)
    lines = [max(len(line) for cell in column for line in cell.split("\n")) for column in zip(*rows, strict=True)]
    for i in sorted(range(len(found)), key=lambda i: lines[i] - found[i]):
        more = min(room, lines[i] - found[i])
        found[i], room = found[i] + more, room - more
    return found


def _record(head: Sequence[str], row: Sequence[str]) -> list[str]:
    return [
        one_line(f"  {' / '.join(row[:2])}"),
        *(one_line(f"    {name}: {cell}") for name, cell in list(zip(head, row, strict=True))[2:] if cell),
    ]


def print_lines(lines: Sequence[str]) -> None:
    for line in lines:
        click.echo(visible(line))


def warn_of_ratio_0(config: RunConfig) -> None:
    if config.ratio == 0:
        click.echo("warning: ratio 0 removes nothing; the pruned model is the model as it is", err=True)


@contextmanager
def stdout_to_stderr() -> Iterator[None]:
    """While a command works: libraries print what they like, and standard output is kept for the answer."""
    sys.stdout.flush()
    saved = os.dup(1)
    try:
        os.dup2(2, 1)
        yield
    finally:
        sys.stdout.flush()
        os.dup2(saved, 1)
        os.close(saved)
