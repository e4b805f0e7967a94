"""Each tracker in its own local mode: what it keeps is what run.json says."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from harness.core.errors import MeasurementError, UsageError
from harness.publish import trackers
from harness.publish.trackers import TRACKERS, series, track, where_to_look
from tests.support.cli import PATIENCE
from tests.support.runs import EXAMPLE, EXAMPLES, RUN, VARIANT


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "my-run"
    made.mkdir()
    pruned = {**VARIANT, "name": "p", "method": "selective", "ratio_neurons": 0.25, "weight_bytes": 1500}
    (made / "run.json").write_text(json.dumps({**RUN, "variants": [VARIANT, pruned]}))
    return made


def test_a_sweep_is_curves_over_what_was_removed() -> None:
    run = json.loads(EXAMPLE.read_text(encoding="utf-8"))
    found = dict(series(run))
    assert list(found) == sorted(found) and 0 in found and 500 in found
    for p in run["sweep"]["points"]:
        figures = found[round(1000 * p["ratio_neurons"])]
        assert figures[f"{p['task']}/{p['metric']}/{p['arm']}".replace("@", "_at_")] == p["value"]
    assert found[0]["mini_math/exact_match/dense"] == run["variants"][0]["eval"]["mini_math"]["value"]


@pytest.mark.slow
def test_mlflow_keeps_it(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert track(folder, "mlflow", "prunings") == 4
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("prunings")
    (run,) = client.search_runs([experiment.experiment_id])
    assert (
        run.info.run_name == "my-run" and run.info.status == "FINISHED" and run.data.params["command"] == "harness run"
    )
    assert (tmp_path / "mlruns").is_dir()
    kept = {
        name: [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, name)] for name in run.data.metrics
    }
    assert kept == {
        "mini_math/exact_match/dense": [(0, 0.9)],
        "mini_math/exact_match/p": [(250, 0.9)],
        "weight_bytes/dense": [(0, 2000.0)],
        "weight_bytes/p": [(250, 1500.0)],
    }


@pytest.mark.slow
def test_a_tracking_that_breaks_off_is_no_finished_run(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def broken(_: Any) -> Any:
        yield 0, {"a": 1.0}
        raise RuntimeError("the disk is full")

    monkeypatch.setattr(trackers, "series", broken)
    with pytest.raises(MeasurementError, match="the disk is full"):
        track(folder, "mlflow", "prunings")
    client = mlflow.MlflowClient()
    (run,) = client.search_runs([client.get_experiment_by_name("prunings").experiment_id])
    assert run.info.status == "FAILED"


@pytest.mark.parametrize("example", ["laptop", "serving-tiny-math"])
def test_no_figure_takes_the_place_of_another(example: str) -> None:
    run = json.loads((EXAMPLES / example / "run.json").read_text(encoding="utf-8"))
    found = dict(series(run))
    for v in run["variants"]:
        step = found[round(1000 * v["ratio_neurons"])]
        assert v["weight_bytes"] in [value for name, value in step.items() if name.startswith("weight_bytes/")]
        for row in v["serving"]["concurrency"] if v["serving"] else ():
            rates = [value for name, value in step.items() if name.startswith(f"output_tok_s/{row['concurrency']}/")]
            assert row["output_tok_s"] in rates


def test_names_are_in_letters_that_every_tracker_takes() -> None:
    named = {**RUN, "variants": [{**VARIANT, "name": "my-model(1)+x ü"}]}
    names = [name for _, figures in series(named) for name in figures]
    assert names and all(re.fullmatch(r"[A-Za-z0-9_./ -]+", name) for name in names)


@pytest.mark.slow
def test_trackio_keeps_it(folder: Path, tmp_path: Path) -> None:
    """By the command, as the package reads where to keep things once, when it is imported."""
    pytest.importorskip("trackio")
    command = [
        sys.executable,
        "-m",
        "harness",
        "track",
        str(folder),
        "--with",
        "trackio",
        "--project",
        "prunings",
        "--json",
    ]
    environment = {**os.environ, "TRACKIO_DIR": str(tmp_path / "kept")}
    found = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, env=environment)
    assert found.returncode == 0 and json.loads(found.stdout)["figures"] == 4, found.stderr
    with sqlite3.connect(tmp_path / "kept" / "prunings.db") as database:
        rows = database.execute("select step, metrics from metrics order by step").fetchall()
    kept = {step: json.loads(metrics) for step, metrics in rows}
    assert kept[250] == {"mini_math/exact_match/p": 0.9, "weight_bytes/p": 1500.0}


@pytest.mark.slow
@pytest.mark.parametrize("kind", TRACKERS)
def test_it_is_said_where_to_look(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://there:5000")
    assert {"trackio": "--project pruning", "wandb": "wandb sync", "mlflow": "http://there:5000"}[
        kind
    ] in where_to_look(kind, "pruning")


@pytest.mark.slow
def test_wandb_keeps_it_offline(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_SILENT", "true")
    assert track(folder, "wandb", "prunings") == 4
    kept = (b"weight_bytes", b"mini_math/exact_match/p", b"1500")
    deadline = time.monotonic() + 300  # wandb's own process makes the file and writes it, on a busy machine later
    while not all(part in _written(tmp_path) for part in kept):
        assert time.monotonic() < deadline, f"{len(_written(tmp_path))} bytes and not all of {kept}"
        time.sleep(0.1)


def _written(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in folder.rglob("*.wandb"))


@pytest.mark.parametrize("kind", TRACKERS)
def test_a_package_that_is_missing_is_said(kind: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, kind, None)
    with pytest.raises(UsageError, match=f"pip install {kind}"):
        track(folder, kind)


def test_what_a_tracker_refuses_is_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Refuses:
        def start(self, *_: Any) -> None:
            raise RuntimeError("no project\nmore")

    monkeypatch.setitem(TRACKERS, "mlflow", Refuses)  # type: ignore[misc]
    with pytest.raises(MeasurementError, match=r"^mlflow did not take the run: no project$"):
        track(folder, "mlflow")
