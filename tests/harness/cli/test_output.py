"""Tables in 80 columns and in a pipe: nothing cut, nothing coloured, nothing obeyed."""

from __future__ import annotations

import re

import pytest
from rich.console import Console

from harness.cli import output
from harness.core import progress
from reports.parts import Table

WIDE = Table(
    "Every point",
    tuple("abcdefgh"),
    tuple(tuple(f"value {i}{j} is long" for j in range(8)) for i in range(3)),
    "a note",
)


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "console", Console(stderr=True, width=80))


@pytest.mark.usefixtures("narrow")
def test_a_table_that_does_not_fit_is_shown_row_by_row(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_table(WIDE)
    said = capsys.readouterr().err
    assert all(cell in said for row in WIDE.rows for cell in row) and "a note" in said
    assert max(map(len, said.splitlines())) <= 80


@pytest.mark.usefixtures("narrow")
def test_a_table_that_fits_is_a_table_without_colour(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_table(Table("T", ("name", "what"), (("x", "[red]not markup[/red]"), ("y", "long " * 30))))
    said = capsys.readouterr().err
    assert "[red]not markup[/red]" in said and "\x1b" not in said and "│" in said
    assert max(map(len, said.splitlines())) <= 80 and len(re.findall("long", said)) == 30


@pytest.mark.usefixtures("narrow")
def test_a_terminal_is_not_told_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_table(Table("T\x1b[2J", ("name",), (("bell\x07 \u202eback",),)))
    output.print_lines(["\x1b]0;title\x07"])
    said = capsys.readouterr().err
    assert not {"\x1b", "\x07", "\u202e"} & set(said) and "\\u001b" in said and "\\u202e" in said


def test_a_stage_shows_no_bar_in_a_pipe(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "console", Console(stderr=True, width=80))
    with progress.progress_bar("Scoring", 10) as advance:
        advance(3)
    assert capsys.readouterr().err.startswith("Scoring ...\nScoring: 0.0 s")


def test_a_stage_shows_how_far_it_is_and_how_long_it_will_take_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    screen = io.StringIO()
    monkeypatch.setattr(progress, "console", Console(file=screen, force_terminal=True, width=100))
    with progress.progress_bar("Scoring", 10) as advance:
        advance(3)
    assert "3/10" in screen.getvalue() and "-:--:--" in screen.getvalue()
