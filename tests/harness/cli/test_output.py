"""Answers on a terminal of 80 columns and in a pipe: nothing cut, nothing coloured, nothing obeyed."""

from __future__ import annotations

import io
import json
import shutil
import sys
from pathlib import Path

import pytest
from rich.console import Console

from harness.cli import output
from harness.cli.main import cli
from harness.core import progress
from reports.parts import Table
from tests.support.cli import harness

EXAMPLES = Path(__file__).resolve().parents[3] / "reports" / "example"


def table(columns: int, rows: int, cell: str = "unbroken_{}_{}") -> Table:
    names = tuple(f"column {i}" for i in range(columns))
    return Table(
        "Every point", names, tuple(tuple(cell.format(r, c) for c in range(columns)) for r in range(rows)), "a note"
    )


@pytest.fixture
def terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> pytest.CaptureFixture[str]:
    """One of 80 columns, without colour."""
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr(type(sys.stdout), "isatty", lambda _: True)
    return capsys


def lines_of(capsys: pytest.CaptureFixture[str]) -> list[str]:
    said = capsys.readouterr()
    assert said.err == ""
    return said.out.splitlines()


@pytest.mark.parametrize(
    ("columns", "rows", "boxed"), [(4, 30, True), (8, 3, True), (8, 30, False)], ids=["fits", "transposed", "records"]
)
def test_a_table_on_a_terminal_shows_every_cell_unbroken(
    columns: int, rows: int, boxed: bool, terminal: pytest.CaptureFixture[str]
) -> None:
    shown = table(columns, rows)
    output.print_table(shown)
    lines = lines_of(terminal)
    assert max(map(len, lines)) <= 80 and any("│" in line for line in lines) == boxed
    text = "\n".join(lines)
    assert "a note" in text and all(cell in text for row in shown.rows for cell in row)
    assert sum(line.count("column") for line in lines) == (columns if boxed else rows * (columns - 2))


@pytest.mark.parametrize(
    "command",
    [["models"], ["tasks"], ["metrics"], ["presets"], ["doctor"], ["run", "--dry-run"], ["sweep", "--dry-run"]]
    + [["plan", "qwen-7b", "--device", device] for device in ("24GiB", "A100-80", "H100")],
    ids=" ".join,
)
def test_listings_stay_tables_without_broken_words_at_80_columns(
    command: list[str], terminal: pytest.CaptureFixture[str]
) -> None:
    cli(command, standalone_mode=False)
    boxed = lines_of(terminal)
    assert max(map(len, boxed)) <= 80 and any(line.startswith("┃") for line in boxed)
    words = {word for line in boxed for word in line.split()}
    plain = harness(*command).stdout.split() if command[0] in ("tasks", "metrics", "plan") else []
    assert {*plain} <= words


@pytest.mark.parametrize("run", ["smollm2-math", "laptop", "serving-tiny-math"])
def test_summaries_stay_tables_at_80_columns(run: str, terminal: pytest.CaptureFixture[str]) -> None:
    show = output.show_sweep if run == "laptop" else output.show_run
    show(EXAMPLES / run, False)
    lines = lines_of(terminal)
    assert not [line for line in lines if line.startswith("    ")]  # no table row by row
    assert len([line for line in lines if line.startswith("┏")]) == {"smollm2-math": 1, "laptop": 2}.get(run, 4)


def test_a_run_of_one_model_shows_no_table_of_ratios(tmp_path: Path, terminal: pytest.CaptureFixture[str]) -> None:
    run = json.loads((EXAMPLES / "serving-tiny-math" / "run.json").read_text())
    alone = {**run, "variants": run["variants"][:1], "speed_ratios": []}
    (tmp_path / "run.json").write_text(json.dumps(alone))
    output.show_run(tmp_path, False)
    lines = {line.strip() for line in lines_of(terminal)}
    assert {"Throughput", "Memory"} <= lines and not any(line.startswith("Speed against") for line in lines)


def test_a_table_without_rows_is_its_head(terminal: pytest.CaptureFixture[str]) -> None:
    output.print_table(table(20, 0))
    title, head, *rest = lines_of(terminal)
    assert title == "Every point" and head.split("  ") == [f"column {i}" for i in range(20)] and rest == ["a note", ""]


def test_what_every_row_says_goes_into_the_note_of_a_table_that_is_too_wide(
    terminal: pytest.CaptureFixture[str],
) -> None:
    shown = table(6, 9)
    output.print_table(Table("T", ("same", *shown.head), tuple(("always_the_same", *row) for row in shown.rows), "n"))
    lines = lines_of(terminal)
    assert "n same: always_the_same, in every row." in lines


def test_long_cells_wrap_on_a_terminal_and_are_no_markup(terminal: pytest.CaptureFixture[str]) -> None:
    output.print_table(Table("T", ("name", "what"), (("x", "[red]not markup[/red]"), ("y", "long " * 30))))
    said = "\n".join(lines_of(terminal))
    assert "[red]not markup[/red]" in said and "\x1b" not in said and said.count("long") == 30


def test_a_pipe_gets_one_aligned_line_a_row(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_table(Table("T", ("name", "empty", "what"), (("x", "", "two\nlines"), ("longer", "", "w " * 99)), "n"))
    assert lines_of(capsys) == ["T", "name    what", "x       two lines", f"longer  {('w ' * 99).strip()}", "n", ""]


def test_a_terminal_is_not_told_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_table(Table("T\x1b[2J", ("name",), (("bell\x07 \u202eback",),)))
    output.print_lines(["\x1b]0;title\x07"])
    said = "\n".join(lines_of(capsys))
    assert not {"\x1b", "\x07", "\u202e"} & set(said) and "\\u001b" in said and "\\u202e" in said


def test_a_stage_shows_no_bar_in_a_pipe(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "console", Console(stderr=True, width=80))
    with progress.progress_bar("Scoring", 10) as advance:
        advance(3)
    assert capsys.readouterr().err.startswith("Scoring ...\nScoring: 0.0 s")


def test_a_stage_shows_how_far_it_is_and_how_long_it_will_take_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(progress, "console", Console(file=screen, force_terminal=True, width=100))
    with progress.progress_bar("Scoring", 10) as advance:
        advance(3)
    assert "3/10" in screen.getvalue() and "-:--:--" in screen.getvalue()


def test_a_long_title_leaves_room_for_the_figures_at_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(progress, "console", Console(file=screen, force_terminal=True, width=80, color_system=None))
    with progress.progress_bar("Measuring dense, selective-best-0.2 and others, interleaved", 1319) as advance:
        advance(1100)
    line = next(line for line in screen.getvalue().splitlines() if "1100/1319" in line)
    assert "Measuring dense, selectiv..." in line and "0:00:00" in line and "-:--:--" in line


def test_a_sweep_ends_with_the_line_that_writes_what_it_recommends(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(EXAMPLES / "laptop" / "run.json", tmp_path / "run.json")
    plan = tmp_path / "arms" / "selective-best-0.35" / "plan.safetensors"
    plan.parent.mkdir(parents=True)
    plan.touch()
    output.show_sweep(tmp_path, False)
    lines = capsys.readouterr().out.splitlines()
    at = lines.index("To write this model and serve it:")
    assert lines[at + 1 : at + 3] == [
        f"  harness prune {tmp_path} --best",
        f"  vllm serve {plan.with_name('checkpoint')}",
    ]
