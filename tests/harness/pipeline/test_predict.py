"""`harness plan --predict` against a run that exports and evaluates the same variant."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.cli import harness, invoke

HOW = [
    "--method",
    "reverse",
    "--ratio",
    "0.2",
    "--limit",
    "24",
    "--calibration-samples",
    "24",
    "--threads",
    "1",
    "--json",
]


@pytest.mark.slow
@pytest.mark.long
def test_the_distance_is_that_of_the_exported_checkpoint(tmp_path: Path) -> None:
    found = json.loads(harness("plan", "tiny-math", "--predict", *HOW, cwd=tmp_path).stdout)
    assert list(tmp_path.iterdir()) == [], "nothing is written"
    measure = ["--task", "mini_math", "--task", "mini_facts", "--repeats", "1", "--output-tokens", "8"]
    run, _ = invoke("run", "--model", "tiny-math", *HOW, *measure, "--out", str(tmp_path / "run"))
    dense, pruned = (v["eval"]["mini_math"] for v in run["variants"])
    (row,) = found["rows"]
    assert (found["n"], found["dense"]) == (24, dense["value"])
    assert row["ratio_neurons"] == run["variants"][1]["ratio_neurons"]
    assert row["kl"]["nats_per_token"] == pytest.approx(pruned["kl_to_dense"]["nats_per_token"], rel=1e-3)
    assert row["kl"]["agreement"] == pytest.approx(pruned["kl_to_dense"]["agreement"], abs=0.01)
    assert row["forecast"]["low"] <= pruned["value"] <= row["forecast"]["high"] < dense["value"]
