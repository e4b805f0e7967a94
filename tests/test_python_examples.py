"""What the documentation shows of the Python API does what it says: docs/python.md and the notebook, cell by cell."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE, NOTEBOOK = ROOT / "docs" / "python.md", ROOT / "examples" / "quickstart.ipynb"
SMALL = {"LIMIT": "12", "CALIBRATION_SAMPLES": "16", "REPEATS": "1", "OUTPUT_TOKENS": "8", "THREADS": "1"}


@pytest.fixture()
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty folder, and the same on less where nothing else is said."""
    monkeypatch.chdir(tmp_path)
    for name, value in SMALL.items():
        monkeypatch.setenv(f"HARNESS_{name}", value)


def run_cell(source: str, names: dict[str, Any]) -> Any:
    """As a notebook does: the value of the last line, where that is an expression."""
    tree = ast.parse(source)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "<cell>", "exec"), names)
    return eval(compile(ast.Expression(last.value), "<cell>", "eval"), names) if last else None


def cells() -> list[dict[str, Any]]:
    return list(json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"])


def test_the_notebook_is_valid_and_without_outputs() -> None:
    nbformat.validate(nbformat.read(NOTEBOOK, as_version=4))
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in cells() if "outputs" in cell)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.usefixtures("small")
def test_every_cell_of_the_notebook_runs_and_its_plots_are_drawn() -> None:
    import altair as alt
    import vl_convert

    names: dict[str, Any] = {}
    shown = [run_cell("".join(cell["source"]), names) for cell in cells() if cell["cell_type"] == "code"]
    charts = [value for value in shown if isinstance(value, alt.TopLevelMixin)]
    assert len(charts) == 3
    for chart in charts:
        assert vl_convert.vegalite_to_svg(chart.to_dict()).count("<path") > 3
    assert names["results"]["pruned"].n == names["LIMIT"] and not names["sweep"].sweep.failed


@pytest.mark.slow
@pytest.mark.usefixtures("small")
@pytest.mark.thorough
def test_every_block_of_the_page_runs(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    said = []
    for block in blocks:
        run_cell(block, names)
        said.append(capsys.readouterr().out)
    assert len(blocks) == 7 and "unknown metric 'smdd'" in said[-1]
    assert Path("runs/mine/report.html").exists() and len(names["accuracy"]) >= 2
    assert {v.name for v in names["recovered"].variants} == {"pruned", "pruned-recovered"}
    quantities = [(r.concurrency, r.quantity) for r in names["timed"].speed_ratios]
    assert len(quantities) == len(set(quantities)) == 4  # two quantities at each of two concurrencies
    assert not names["sweep"].sweep.failed
