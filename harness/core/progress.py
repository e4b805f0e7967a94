"""Progress on standard error: rich bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from harness.core.secrets import redacted
from harness.core.text import one_line

console = Console(stderr=True)
_BAR = 20  # columns of the bar
_FIGURES = 52  # columns of the bar, the spinner, the count and the two times, with their spaces


def say(text: str) -> None:
    """A line on standard error, as text: neither markup nor a control character in it is obeyed."""
    console.print(one_line(redacted(text)), highlight=False, markup=False, soft_wrap=True)


def _shortened(title: str, width: int) -> str:
    """So that the figures of the line have room; the whole title is printed at the end."""
    return title if len(title) <= width else f"{title[: max(width, 8) - 3]}..."


@contextmanager
def progress_bar(title: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """Announces some work, shows a bar while it runs, and reports how long it took.

    Args:
        title: What is being done.
        total: Number of items; None if it is unknown.

    Yields:
        A function that advances the bar by a number of items.
    """
    started = time.perf_counter()
    if console.is_terminal:
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=_BAR),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task(_shortened(one_line(title), console.width - _FIGURES), total=total)
            yield lambda done: bar.advance(task, done)
    else:
        say(f"{title} ...")
        yield lambda _: None
    seconds = time.perf_counter() - started
    say(f"{title}: {seconds:.1f} s" + (f", {seconds / total:.2f} s each" if total and seconds >= 1 else ""))
