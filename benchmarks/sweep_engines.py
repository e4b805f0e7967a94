"""Ten points of a sweep on one engine with live swaps, beside an engine each: `python benchmarks/sweep_engines.py`.

All evaluate the same plans on the same items with the same number of threads, one at a time: a sweep's worker, from the
start of its process to the last verdict; a process and an engine for each exported checkpoint, as `harness eval` does;
and an engine each within one process that is warm.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from harness.core.chat import ChatFormat
from harness.engine.devices import worker_environment
from harness.engine.library_settings import prepare_environment
from harness.engine.memory_budget import EngineSettings, with_kv_cache
from harness.engine.vllm_engine import engine
from harness.evaluation.evaluate import evaluate
from harness.evaluation.lm_eval_requests import EvalSpec, VariantEval
from harness.evaluation.paired import read_samples
from harness.models import registry
from harness.pipeline import scoring
from harness.sweeps.cells import Cell, CellContext
from harness.sweeps.workers import LocalWorker, run_cells
from pruning import score_file
from pruning.checkpoint import ModelFolder
from pruning.export import export
from pruning.plan import PlanRequest, make_plan
from pruning.plan_file import load_plan, save_plan
from tasks.registry import find_task


@click.command()
@click.option("--model", default="tiny-math", show_default=True)
@click.option("--task", default="mini_math", show_default=True)
@click.option("--points", default=10, show_default=True)
@click.option("--limit", default=16, show_default=True)
@click.option("--threads", default=2, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="JSON file to write.")
def main(model: str, task: str, points: int, limit: int, threads: int, out: Path | None) -> None:
    prepare_environment(threads)
    path, chosen = registry.locate(model, "math"), find_task(task)
    eval_spec = EvalSpec(model, (chosen,), 512, chat=ChatFormat(), limit=limit)
    settings = with_kv_cache(path, EngineSettings(max_model_len=512, threads=threads))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plans = make_plans(path, model, chosen, points, threads, folder)
        live = timed(
            lambda: by_swap(
                CellContext(model=path, eval_spec=eval_spec, settings=settings, run=folder / "live", reference="dense"),
                plans,
            )
        )
        processes = timed(lambda: by_process(path, task, limit, threads, plans, folder / "processes"))
        with engine(path, settings) as llm:  # imports, and the operating system's cache of the files
            evaluate(llm, eval_spec, VariantEval(folder, "warm"))
        engines = timed(lambda: by_export(path, eval_spec, settings, plans, folder / "engines"))
        same = [texts(folder / "live", plan.stem, task) == texts(folder / "engines", plan.stem, task) for plan in plans]
    found = {"model": model, "task": task, "points": points, "items": limit, "threads": threads}
    seconds = {"live_seconds": live, "process_each_seconds": processes, "engine_each_in_one_process_seconds": engines}
    factors = {"faster_than_processes": processes / live, "faster_than_engines_in_one_process": engines / live}
    document = {**found, **seconds, **factors, "points_with_the_same_answers": sum(same)}
    click.echo(json.dumps(document, indent=1))
    if out:
        out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def make_plans(path: ModelFolder, model: str, task: Any, points: int, threads: int, folder: Path) -> list[Path]:
    calibration = scoring.calibrate(path, model, task, scoring.CalibrationRequest(24))
    scoring.score_model(path, calibration, scoring.ScoreRequest(threads=threads), folder / "scores.safetensors")
    scores, files = score_file.load(folder / "scores.safetensors"), []
    for i in range(points):
        files.append(folder / "plans" / f"rms-{0.3 * (i + 1) / points:.2f}.safetensors")
        save_plan(make_plan(scores, PlanRequest(0.3 * (i + 1) / points)), files[-1])
    return files


def by_swap(bench: CellContext, plans: list[Path]) -> None:
    failed: list[Any] = []
    cells = [Cell(plan.stem, plan, plan.stem) for plan in plans]
    start = lambda number: LocalWorker(bench, worker_environment(number, 1))  # noqa: E731
    run_cells(cells, start, 1, lambda _, outcome: failed.append(outcome) if isinstance(outcome, Exception) else None)
    assert not failed, failed


def by_process(path: ModelFolder, task: str, limit: int, threads: int, plans: list[Path], folder: Path) -> None:
    for plan in plans:
        made = export(path, load_plan(plan), folder / "checkpoint", plan)
        command = [sys.executable, "-m", "harness", "eval", str(made.path), "--task", task, "--limit", str(limit)]
        subprocess.run(
            [*command, "--threads", str(threads), "--out", str(folder / plan.stem)], check=True, capture_output=True
        )


def by_export(path: ModelFolder, eval_spec: EvalSpec, settings: Any, plans: list[Path], folder: Path) -> None:
    for plan in plans:
        made = export(path, load_plan(plan), folder / "checkpoint", plan)
        with engine(made, settings) as llm:
            evaluate(llm, eval_spec, VariantEval(folder, plan.stem))


def timed(work: Callable[[], None]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def texts(folder: Path, variant: str, task: str) -> list[str]:
    return [row["text"] for _, row in sorted(read_samples(folder / "samples" / variant / f"{task}.jsonl").items())]


if __name__ == "__main__":
    main()
