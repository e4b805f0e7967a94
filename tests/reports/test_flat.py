"""Every figure of run.json is a row of the CSV, and no cell is a formula to a spreadsheet."""

from __future__ import annotations

import csv
import io
import json

import pytest

from reports.flat import HEAD, csv_text
from tests.support.runs import EXAMPLE, RUN, VARIANT


def test_a_sweeps_figures_are_all_there_unrounded() -> None:
    run = json.loads(EXAMPLE.read_text(encoding="utf-8"))
    rows = list(csv.DictReader(io.StringIO(csv_text(run))))
    assert tuple(rows[0]) == HEAD
    found = {(row["variant"], row["task"], row["quantity"]): row for row in rows}
    for v in run["variants"]:
        for task, e in v["eval"].items():
            row = found[v["name"], task, e["metric"]]
            assert (float(row["value"]), float(row["ci_low"]), int(row["n"])) == (e["value"], e["ci_low"], e["n"])
            assert float(found[v["name"], task, "failure:no_answer"]["value"]) == e["failures"]["no_answer"]
    for p in run["sweep"]["points"]:
        mean = next(
            r
            for r in rows
            if (r["variant"], r["task"], r["ratio_neurons"]) == (p["arm"], p["task"], str(p["ratio_neurons"]))
            and r["quantity"] == f"{p['metric']}, mean over seeds"
        )
        assert (float(mean["value"]), float(mean["ci_low"])) == (p["value"], p["ci_low"])
    for c in run["claims"]:
        assert any(r["variant"] == c["claim"] and r["quantity"].endswith(f": {c['verdict']}") for r in rows)
    for c in run["comparisons"]:
        assert float(found[c["variant"], c["task"], f"difference from {c['baseline']}"]["value"]) == c["difference"]


@pytest.mark.parametrize("name", ["=1+1", "@SUM(A1)", "+1", "-1"])
def test_a_name_is_no_formula(name: str) -> None:
    rows = list(csv.reader(io.StringIO(csv_text({**RUN, "variants": [{**VARIANT, "name": name}]}))))
    assert rows[1][0] == f"'{name}"


@pytest.mark.parametrize(("seeds", "over"), [(1, ""), (3, ", mean over 3 seeds")])
def test_figures_over_seeds_of_fine_tuning_say_so(seeds: int, over: str) -> None:
    run = json.loads(EXAMPLE.read_text(encoding="utf-8"))
    run["recoveries"] = [{**recovery, "seeds": seeds} for recovery in run["recoveries"]]
    made = [row for row in csv.DictReader(io.StringIO(csv_text(run))) if row["variant"].endswith("-recovered")]
    rows = [row for row in made if row["quantity"].startswith("margin over half")]
    assert rows and {row["quantity"] for row in rows} == {f"margin over half{over}"}
    assert {float(row["value"]) for row in rows} == {r["margin_over_half"] for r in run["recoveries"]}
