"""Every measured figure on a page has a source: a committed JSON file, out of which it is computed again, or a command
of this repository. See scripts/write_figures.py for the markers.
"""

from __future__ import annotations

import html
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.cli.main import cli
from harness.core.run_file import read_run
from reports.figures import percent
from reports.figures import points as signed
from scripts import write_figures
from scripts.write_figures import FIGURE, PAGES, ROOT, SOURCES

NOT_PROSE = re.compile(  # code, generated tables, targets of links, numbers of papers
    r"^```.*?^```|<!-- (table|failure kinds): .*?<!-- (?:table|failure kinds) end -->|`[^`\n]+`|\]\([^)]*\)"
    r"|\b\d{4}\.\d{5}\b",
    re.MULTILINE | re.DOTALL,
)
SET = re.compile(  # what a reader sets or a name says, not what came out
    r"95 % (?:Wilson )?(?:interval|band)s?|\bat (?:[1-7]?[05](?:, | and | or | to )?)+\s%|\d+ % (?:is )?removed"
    r"|(?:vLLM|Python|optipfair|Apache|CC BY|ratios?|widths?) [\d.]+(?:(?:, | and )[\d.]+)*"
    r"|\d+(?:\.\d+)?B\b|\d+ bits\b|\d+(?:\.\d+){2,}"
)
NUMBER = r"[+-]?\d[\d,]*(?:\.\d+)?"
UNIT = r"%|(?:x|times|s|seconds?|ms|minutes?|hours?|[KMGk]i?B|tok/s|points?|nats|bits|million|billion)\b"
MEASURED = re.compile(
    rf"(?<![\w.-])(?:{NUMBER}(?: (?:to|and|or|against) {NUMBER})?\s?(?:{UNIT})|[+-]?\d[\d,]*\.\d+"
    rf"|{NUMBER}(?: of |/){NUMBER})"
)
COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)


def blocks(page: str) -> Iterator[str]:
    """Paragraphs, items of lists and rows of tables, each with the marker that stands alone behind its paragraph."""
    paragraphs = re.split(r"\n\s*\n", NOT_PROSE.sub(" ", page))
    for paragraph, behind in zip(paragraphs, [*paragraphs[1:], ""], strict=True):
        marker = behind if SOURCES.fullmatch(behind.strip()) else ""
        if not all(line.startswith("    ") for line in paragraph.splitlines()):  # an indented block is code
            yield from (f"{part} {marker}" for part in re.split(r"\n(?=[-|] ?|\d+\. )", paragraph))


def without_source(page: str) -> list[str]:
    """The measured figures without a marker of their own in blocks that have none either."""
    bare = (COMMENT.sub(" ", FIGURE.sub(" ", block)) for block in blocks(page) if not SOURCES.search(block))
    return [found[0] for block in bare for found in MEASURED.finditer(SET.sub(" ", block))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_measured_figure_has_a_source(page: Path) -> None:
    assert without_source(page.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_figures_are_those_of_their_files(page: Path) -> None:
    assert page.read_text(encoding="utf-8") == write_figures.text(page), "run make generate"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("It keeps 82.6 % of it.", ["82.6 %"]),
        ("| best | 99.6 | 1.04x |", ["99.6", "1.04x"]),
        ("It took 12 s, 3 GiB and\n1,300 tok/s.", ["12 s", "3 GiB", "1,300 tok/s"]),
        ("43 of 44 were right, +1.2 points.", ["43 of 44", "+1.2 points"]),
        ("- one: 5 minutes <!-- from: make run -->\n- two: 6 minutes", ["6 minutes"]),
        ("| a | 1.5 |\n\n<!-- from: make run -->\n\n| b | 2.5 |", ["2.5"]),
        ("It keeps 82.6<!-- = 1 --> %, not 82.7 %.", ["82.7 %"]),
        ("S at 10, 20 and 30 %, with its 95 % interval, `--ratio 0.2`, 10 % removed, arXiv 2604.27115.", []),
        ("```\n82.6 %\n```\n\n    82.6 %\n\n<!-- table: results -->\n82.6 %\n<!-- table end -->", []),
    ],
)
def test_the_search_sees_figures_and_no_settings(text: str, found: list[str]) -> None:
    assert without_source(text) == found


@pytest.mark.parametrize(
    ("shown", "value", "new"),
    [
        ("99.4", 99.96, "100.0"),
        ("+11.2", -3.04, "-3.0"),
        ("-0.8", 0.31, "+0.3"),
        ("1,912", 12003.6, "12,004"),
        ("0.2", -0.04, "0.0"),
    ],
)
def test_a_figure_keeps_its_form(shown: str, value: float, new: str) -> None:
    assert write_figures.shown_as(shown, value) == new


def test_every_source_of_a_figure_exists() -> None:
    markers = {found for page in PAGES for found in SOURCES.findall(page.read_text(encoding="utf-8"))}
    assert markers and not [one for marker in markers for one in marker.split("; ") if not exists(one)]


def exists(source: str) -> bool:
    """A file, a target of make, a module or script for Python, or a command of harness."""
    first, *rest = shlex.split(source)
    if first == "make":
        return re.search(rf"^{rest[0]}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE) is not None
    if first == "python":
        path = f"{rest[1].replace('.', '/')}" if rest[0] == "-m" else rest[0]
        return any((ROOT / name).is_file() for name in (path, f"{path}.py", f"{path}/__main__.py"))
    if first == "harness":
        return rest[0] in cli.commands
    return source == "definition" or (ROOT / source).is_file()


def test_a_source_that_is_not_there_is_seen() -> None:
    assert exists("make effects") and exists("python -m benchmarks.gpu_check") and exists("harness plan x")
    assert not any(map(exists, ("make efects", "python benchmarks/none.py", "harness paln x", "docs/none.json")))


@pytest.mark.parametrize("page", write_figures.reports(), ids=lambda page: page.parent.name)
def test_a_committed_report_is_what_its_run_gives(page: Path) -> None:
    assert page.read_text(encoding="utf-8") == write_figures.reports()[page], "run make generate"


@pytest.mark.parametrize("page", sorted(ROOT.glob("reports/example/*/report.html")), ids=lambda page: page.parent.name)
def test_a_committed_page_was_made_from_the_run_beside_it(page: Path) -> None:
    """It holds answers, which are not committed, so that it cannot be made again: its figures are compared."""
    run, text = read_run(page.parent), re.sub(r"<[^>]+>", " ", page.read_text(encoding="utf-8"))
    shown = " ".join(html.unescape(text).split())
    sweep = run["sweep"] or {"points": ()}
    points = sweep["points"]
    figures = {percent(point[key]) for point in points for key in ("value", "ci_low", "ci_high")}
    figures |= {signed(point["difference"]) for point in points if point["difference"] is not None}
    figures |= {f"{claim['claim']} {claim['verdict']}" for claim in run["claims"]} | {run["created"]}
    explained = run["dissociation"]["explanations"] if run.get("dissociation") else ()
    figures |= {f"{e['target']} {e['explanation']} {e['verdict']}" for e in explained}
    assert [figure for figure in sorted(figures) if figure not in shown] == []
