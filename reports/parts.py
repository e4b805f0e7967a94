"""The parts of a report: sections of sentences, charts and tables. HTML, Markdown and the terminal show the same
parts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Table:
    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


@dataclass(frozen=True)
class Chart:
    """`spec`: an altair chart of one view. description: what it shows and which table has the same figures.

    picks: clicking a mark shows its answers, identified by the row's `arm`, `removed` and `kind`.
    """

    title: str
    description: str
    spec: Any
    picks: bool = False


@dataclass(frozen=True)
class Section:
    """`name`: the page's anchor. `folded`: long tables that are collapsed at first."""

    name: str
    title: str
    text: tuple[str, ...] = ()
    charts: tuple[Chart, ...] = ()
    tables: tuple[Table, ...] = ()
    folded: tuple[Table, ...] = ()

    @property
    def empty(self) -> bool:
        return not (self.text or self.charts or any(table.rows for table in (*self.tables, *self.folded)))
