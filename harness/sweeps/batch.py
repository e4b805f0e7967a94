"""Evaluates a batch of cells on live engines, whose weights are swapped; what fails is noted and the rest continues."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from harness.core.errors import HarnessError, MeasurementError, first_line
from harness.core.hashing import digest
from harness.core.memory import release_memory
from harness.core.progress import progress_bar, say
from harness.core.types.evaluation import EvalResult
from harness.engine.devices import device_name, gpus, worker_environment
from harness.engine.engine_settings import engine_settings
from harness.engine.memory_budget import side_by_side, with_kv_cache, working_dtype
from harness.pipeline import stages
from harness.pipeline.resolve import DENSE
from harness.pipeline.run_context import RunContext
from harness.pipeline.run_files import eval_file, samples_folder
from harness.sweeps import ray_workers
from harness.sweeps.cells import Cell, CellContext
from harness.sweeps.workers import LocalWorker, Outcome, Worker, WorkerDied, run_cells
from harness_prune.vllm_name import vllm_version
from reports.figures import count_text

_SEQUENCES = 256  # at a time, in a worker's engine


@dataclass
class Failures:
    """Why cells failed: cell -> reason."""

    reasons: dict[str, str] = field(default_factory=dict)

    @contextmanager
    def attempt(self, cell: str) -> Iterator[None]:
        """An error inside fails this cell only, not the sweep."""
        try:
            yield
        except Exception as error:
            self.note(cell, error)

    def note(self, cell: str, error: Exception) -> None:
        expected = isinstance(error, HarnessError)
        self.reasons[cell] = first_line(error) if expected else f"{type(error).__name__}: {first_line(error)}"
        say(f"{cell} failed: {self.reasons[cell]}")


def cell_key(run: RunContext, identity: str, *more: str) -> str:
    """A hash of what a variant's answers depend on, besides the settings that the directory is bound to.

    identity: a hash of what its weights are made from.
    """
    dtype = working_dtype(run.model, run.config.dtype)
    return digest([identity, run.max_model_len, device_name(), dtype, vllm_version(), *more])


def evaluate_cells(run: RunContext, cells: Sequence[Cell], failures: Failures, eager: bool = False) -> None:
    """Evaluates cells side by side and records each as it ends; one that fails is noted.

    eager: engines compile nothing, so that a variant may change more than weights; such variants are many, and their
    distance to the dense model is not measured.
    """
    sweep = run.config.sweep
    release_memory()
    if sweep.launcher == "ray":
        ray_workers.connect()
    default = ray_workers.default_workers if sweep.launcher == "ray" else _default_workers
    wanted = sweep.workers or default(run.config.tensor_parallel)
    context, workers = cell_context(run, wanted, eager), min(wanted, len(cells))
    run.directory.begin(f"eval of {count_text(len(cells), 'variant')}")
    tasks = ", ".join(task.name for task in run.spec.tasks)
    title = f"Evaluating {count_text(len(cells), 'variant')} on {tasks}, {workers} at a time"
    with progress_bar(title, len(cells)) as advance:

        def done(cell: Cell, outcome: Outcome) -> None:
            advance(1)
            if isinstance(outcome, Exception):
                failures.note(cell.stage, outcome)
                return
            _record(run, cell, outcome)

        run_cells(cells, _worker_starter(context, sweep.launcher), workers, done)


def _record(run: RunContext, cell: Cell, results: Mapping[str, EvalResult]) -> None:
    file = eval_file(run.path, cell.name)
    stages.save_eval(results, file)
    run.directory.finish(cell.stage, cell.key, [samples_folder(run.path, cell.name), file])


class LiveCells:
    """Evaluates one cell after the other on one engine, for a search whose next cell depends on the last. The engine is
    started when it is first needed, and again after `release`.
    """

    def __init__(self, run: RunContext) -> None:
        self.run = run
        self._worker: Worker | None = None

    def evaluate(self, cell: Cell) -> None:
        """Evaluates a cell and records it, unless that was done before.

        Raises:
            MeasurementError: It could not be evaluated.
        """
        run = self.run
        if run.directory.finished(cell.stage, cell.key):
            say(f"{cell.stage}: done before, skipped")
            return
        run.directory.begin(cell.stage)
        try:
            worker = self._started()
            worker.ask(cell).result()
            _record(run, cell, worker.collect(cell).result())
        except WorkerDied as error:
            raise MeasurementError(f"{cell.stage}: {error}; the same command goes on from here") from error

    def release(self) -> None:
        """Ends the engine, so that its memory is free for other work."""
        if self._worker:
            self._worker.stop()
            self._worker = None

    def _started(self) -> Worker:
        if self._worker is None:
            release_memory()
            self._worker = _worker_starter(cell_context(self.run, 1), "local")(0)
            self._worker.started.result()
        return self._worker


def cell_context(run: RunContext, workers: int, eager: bool = False) -> CellContext:
    """What the workers need; `workers` share the threads."""
    config = run.config
    threads = config.threads or max(1, (os.cpu_count() or 1) // workers)
    settings = replace(engine_settings(config, run.max_model_len, _SEQUENCES), threads=threads)
    if eager:
        settings = replace(settings, options={**settings.options, "enforce_eager": True})
    alone = side_by_side({DENSE: run.model}, {DENSE: with_kv_cache(run.model, settings)})
    return CellContext(
        model=run.model,
        eval_spec=run.eval_spec,
        settings=alone[DENSE],
        run=run.path.absolute(),
        reference=DENSE,
        measures_kl=not eager,
    )


def _worker_starter(context: CellContext, launcher: str) -> Callable[[int], Worker]:
    if launcher == "ray":
        return lambda _number: ray_workers.RayWorker(context)
    parallel = context.settings.tensor_parallel
    return lambda number: LocalWorker(context, worker_environment(number, parallel))


def _default_workers(tensor_parallel: int) -> int:
    """One per set of GPUs; on a CPU one, since every engine holds the model."""
    return max(1, gpus() // tensor_parallel)
