"""A sweep's cells on a real Ray of two workers on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.core.errors import MeasurementError
from harness.core.types.evaluation import EvalResult
from harness.sweeps.cells import Cell
from harness.sweeps.ray_workers import RayWorker, connect, default_workers
from harness.sweeps.workers import run_cells
from tests.support.cli import PATIENCE, invoke
from tests.support.sweeps import bench_in

pytestmark = [pytest.mark.slow, pytest.mark.long]
ray = pytest.importorskip("ray", reason="the extra [ray] is not installed")


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    ray.init(
        num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR", object_store_memory=100 << 20
    )
    connect()  # joins the one that is there
    yield
    ray.shutdown()


@pytest.mark.thorough
def test_cells_are_shared_by_two_actors_and_a_dead_ones_cell_is_done_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    workers: list[RayWorker] = []
    outcomes: dict[str, Any] = {}
    cells = [Cell(name, None, name) for name in ("dense", *"bcdefgh")]

    def start(_number: int) -> RayWorker:
        worker = RayWorker(bench_in(tmp_path))
        workers.append(worker)
        return worker

    def done(cell: Cell, found: Any) -> None:
        if not outcomes:
            ray.kill(workers[0].actor)  # between two of its cells or within one
        outcomes[cell.name] = found

    run_cells(cells, start, 2, done)
    assert sorted(outcomes) == sorted(cell.name for cell in cells) and len(workers) >= 3, "the dead one is replaced"
    assert all(isinstance(found["mini_facts"], EvalResult) for found in outcomes.values())
    texts = {(tmp_path / "samples" / cell.name / "mini_facts.jsonl").read_text() for cell in cells}
    assert len(texts) == 1


@pytest.mark.thorough
def test_a_node_that_does_not_see_the_run_directory_says_so(tmp_path: Path) -> None:
    worker = RayWorker(bench_in(tmp_path / "elsewhere"))
    error = worker.started.exception(timeout=PATIENCE)
    worker.stop()
    assert isinstance(error, MeasurementError) and "is not seen on this node" in str(error) and "\n" not in str(error)


def test_what_no_node_has_is_refused(tmp_path: Path) -> None:
    bench = bench_in(tmp_path)
    with pytest.raises(MeasurementError, match="no node of the Ray cluster has 64 CPUs"):
        RayWorker(replace(bench, settings=replace(bench.settings, threads=64)))
    with pytest.raises(MeasurementError, match="no node of the Ray cluster has 2 GPUs"):
        RayWorker(replace(bench, settings=replace(bench.settings, tensor_parallel=2)))
    assert default_workers(1) == 1


def test_a_sweep_runs_on_ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a run directory that is given relative to the current folder."""
    monkeypatch.chdir(tmp_path)
    short = [
        "--limit",
        "8",
        "--calibration-samples",
        "8",
        "--align",
        "1",
        "--repeats",
        "1",
        "--output-tokens",
        "4",
        "--concurrency",
        "2",
    ]
    grid = ["--methods", "smd", "--ratios", "0.3", "--threads", "1", "--workers", "1", "--launcher", "ray"]
    run, _ = invoke(
        "sweep", "-m", "tiny-math", "-t", "mini_facts", "-t", "mini_math", *short, *grid, "--out", "run", "--json"
    )
    assert [v["name"] for v in run["variants"]] == ["dense", "selective-S-0.3"]
    assert run["sweep"]["failed"] == [] and all(v["eval"]["mini_facts"]["n"] == 8 for v in run["variants"])
