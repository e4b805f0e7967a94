"""The figures on the pages, from committed JSON files: `python -m scripts.write_figures`.

A figure with `<!-- = EXPRESSION -->` behind it is the value of that Jinja expression, with the digits and the sign that
it is shown with. Names are the JSON files: `metrics` is docs/metrics.json, `smollm2_math` is
reports/example/smollm2-math/run.json. `pick(rows, arm="rms", ratio=0.3)` is the one row with these values. Between
`<!-- table: NAME ... -->` and `<!-- table end -->` stands a table of scripts/figure_tables.py or
scripts/comparison_tables.py. In a table's cell an expression cannot hold `|`.

`<!-- from: SOURCE; SOURCE -->` at the end of a line or paragraph, or alone in the paragraph behind it, names what made
its figures where no JSON holds them: a command or file of this repository, or `definition` for settings, limits and
formulas. tests/test_figures.py looks for measured figures without any of these.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jinja2

from harness.core.run_file import read_run
from reports.build import markdown, sections
from scripts import comparison_tables, figure_tables
from scripts.figure_tables import masks, of_gain, of_ideal, pick, speeds

ROOT = Path(__file__).resolve().parent.parent
GENERATED = ("commands.md",)  # from the program's own help
PAGES = sorted(
    page
    for pattern in ("*.md", "docs/*.md", "harness/embedded/*/README.md", "tasks/*/README.md")
    for page in ROOT.glob(pattern)
    if page.name not in (*GENERATED, "CHANGELOG.md")
)
FIGURE = re.compile(r"(?P<shown>[+-]?\d[\d,]*(?:\.\d+)?)(?P<mark><!-- =\s(?P<query>.*?)\s-->)", re.DOTALL)
SOURCES = re.compile(r"<!-- from: (.*?) -->")
_TABLE = re.compile(r"(<!-- table: (\w+).*? -->\n).*?(<!-- table end -->)", re.DOTALL)
_TABLES = {**figure_tables.TABLES, **comparison_tables.TABLES}
_EXPRESSIONS = jinja2.Environment(undefined=jinja2.StrictUndefined)
_EXPRESSIONS.filters |= {"of_ideal": of_ideal, "of_gain": of_gain}


@cache
def documents() -> Mapping[str, Any]:
    """Every committed JSON file with figures, by its name in an expression; run.json in the present version."""
    found = {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in ROOT.glob("docs/*.json")}
    found |= {
        file.parent.name: json.loads(file.read_text("utf-8")) for file in ROOT.glob("reports/example/*/results.json")
    }
    found |= {file.parent.name: read_run(file.parent) for file in ROOT.glob("reports/example/*/run.json")}
    return {name.replace("-", "_"): document for name, document in found.items()}


def text(page: Path) -> str:
    """A page with today's figures."""
    with_tables = _TABLE.sub(_table, page.read_text(encoding="utf-8"))
    return FIGURE.sub(lambda found: shown_as(found["shown"], evaluated(found["query"])) + found["mark"], with_tables)


def _table(found: re.Match[str]) -> str:
    return f"{found[1]}\n{_TABLES[found[2]](documents())}\n{found[3]}"


def evaluated(query: str) -> float:
    """The value of an expression over the documents. Raises jinja2.UndefinedError for a name that is not there."""
    expression = _EXPRESSIONS.compile_expression(query, undefined_to_none=False)
    value: Any = expression(masks=masks, pick=pick, speeds=speeds, **documents())
    return float(value)


def shown_as(shown: str, value: float) -> str:
    """A value with the decimals, the sign and the separators of the figure that it replaces."""
    decimals = len(shown.partition(".")[2])
    sign, comma = "+" if shown[0] in "+-" else "", "," if "," in shown else ""
    return f"{round(value, decimals) + 0.0:{sign}{comma}.{decimals}f}"


def reports() -> dict[Path, str]:
    """The committed reports in Markdown, as today's code makes them from the run.json beside them."""
    found = sorted(ROOT.glob("reports/example/*/report.md"))
    return {page: _report(page.parent) for page in found if (page.parent / "run.json").exists()}


def _report(folder: Path) -> str:
    run = read_run(folder)
    return markdown(run, sections(run), folder.relative_to(ROOT))


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(text(page), encoding="utf-8")
    for page, content in reports().items():
        page.write_text(content, encoding="utf-8")
