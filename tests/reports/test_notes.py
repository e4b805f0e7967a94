"""What the notes say of a sweep's intervals and means: over which masks, and over what else."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from reports.parts import Table
from reports.sections import accuracy, failures
from reports.sections.accuracy import curve_table
from reports.sections.claims import threshold_table
from reports.sections.failures import ratios_table
from reports.sections.recovery import recovery_tables
from tests.support.runs import EXAMPLE


@pytest.fixture
def run() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(EXAMPLE.read_text(encoding="utf-8"))
    return found


def gap(run: Mapping[str, Any]) -> Table:
    return recovery_tables(run)[0]


@pytest.mark.parametrize(
    ("table", "says"),
    [
        (curve_table, "of random pruning over masks and items (of one mask: that mask alone)"),
        (curve_table, "by the same rule elsewhere; of random pruning every mask's own interval"),
        (threshold_table, "for random pruning by one of 97.5 % over masks and items"),
        (ratios_table, "Of random pruning means over all its masks."),
        (
            ratios_table,
            "trap: the paper's count, answers of at least 1024 tokens; it and the charts of first kinds are ",
        ),
        (gap, "Means over seeds of fine-tuning, of one mask of random pruning; the interval is over seeds and items"),
    ],
)
def test_a_note_says_over_what(run: dict[str, Any], table: Callable[[Mapping[str, Any]], Table], says: str) -> None:
    assert says in table(run).note


def test_failures_are_means_of_all_masks_and_traps_and_first_kinds_of_those_of_seeds(run: dict[str, Any]) -> None:
    """Of 20 masks three are variants of the run, of which the first has a trap and loops in all answers."""
    for v in run["variants"]:
        first = v["name"] == "random-0.1-seed7"
        v["eval"][run["task"]] |= {"trap_rate": float(first), "wrong_by_kind": {"loop": float(first)}}
    p = next(
        p for p in run["sweep"]["points"] if (p["arm"], p["ratio_requested"], p["task"]) == ("random", 0.1, run["task"])
    )
    p |= {"failure_rate": 0.45, "masks": [*p["variants"], *(f"random-{i}" for i in range(17))]}
    table = ratios_table(run)
    row = next(row for row in table.rows if row[:2] == ("random", "10.0 %"))
    assert (row[2], row[-1]) == ("45.0 %", "33.3 %")
    loops = next(
        r["share"]
        for r in failures.kind_rows(run)
        if (r["arm"], r["removed"], r["kind"]) == ("random", 100 * p["ratio_neurons"], "loop")
    )
    assert loops == pytest.approx(100 / 3)
    described = {chart.title: chart.description for chart in failures.section(run).charts}
    told = {title.rpartition(": ")[2] for title, text in described.items() if "over the masks of --seeds" in text}
    assert told == {"random"}


@pytest.mark.parametrize(("low", "axis"), [(0.9, "log"), (0.0, "linear")])
def test_a_band_that_goes_down_to_0_is_on_no_logarithmic_axis(run: dict[str, Any], low: float, axis: str) -> None:
    points = [p for p in run["sweep"]["points"] if p["task"] == run["task"]]
    for found in (*points, *(v["eval"][run["task"]] for v in run["variants"])):
        found |= {"metric": "bits_per_byte", "value": 1.0, "ci_low": low, "ci_high": 1.1}
    made = next(chart for chart in accuracy.section(run).charts if "(target)" in chart.title)
    scales = {layer["encoding"]["y"].get("scale", {}).get("type") for layer in made.spec.to_dict()["layer"]}
    assert scales - {None} == {axis}
