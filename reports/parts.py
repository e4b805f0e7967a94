"""The parts of a report: sections of sentences, charts and tables. HTML, Markdown and the terminal show the same
parts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

_NOTHING = {"", "not measured"}


@dataclass(frozen=True)
class Table:
    """`marked`: the row that the reader looks for."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    marked: int | None = None


@dataclass(frozen=True)
class Chart:
    """`spec`: an altair chart of one view. description: what it shows and which table has the same figures.

    picks: clicking a mark shows its answers, identified by the row's `arm`, `removed` and `kind`. legend: names with
    their colours.
    """

    title: str
    description: str
    spec: Any
    picks: bool = False
    legend: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Section:
    """`name`: the page's anchor. `folded`: long tables that are collapsed at first. `tables_first`: before charts."""

    name: str
    title: str
    text: tuple[str, ...] = ()
    charts: tuple[Chart, ...] = ()
    tables: tuple[Table, ...] = ()
    folded: tuple[Table, ...] = ()
    tables_first: bool = False

    @property
    def empty(self) -> bool:
        return not (self.text or self.charts or any(table.rows for table in (*self.tables, *self.folded)))


def filled(section: Section) -> Section:
    """The section, its tables without columns that say nothing in every row."""
    tables, folded = (tuple(map(_filled, found)) for found in (section.tables, section.folded))
    return replace(section, tables=tables, folded=folded)


def _filled(table: Table) -> Table:
    kept = [i for i in range(len(table.head)) if i == 0 or {row[i] for row in table.rows} - _NOTHING]
    if not table.rows or len(kept) == len(table.head):
        return table
    rows = tuple(tuple(row[i] for i in kept) for row in table.rows)
    return replace(table, head=tuple(table.head[i] for i in kept), rows=rows)
