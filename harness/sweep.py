"""`harness sweep`: score once, plan all arms, evaluate them on live engines, time, fine-tune, and judge the claims.

A cell that fails is recorded with its reason and the rest goes on. A finished one is not done again as long as what it is made of is
the same, so that a killed sweep goes on and a grid can grow.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from harness import engine
from harness.bench import need_context
from harness.cells import Bench, Cell
from harness.claims import Evidence, collapse_below, judge
from harness.config import RunConfig
from harness.curves import Place, has_right_answers, read_outcomes, sweep_points, thresholds
from harness.errors import HarnessError, MeasurementError
from harness.launch import LocalWorker, Outcome, Worker, run_cells
from harness.pipeline import Run, start
from harness.progress import say, stage
from harness.spec import DENSE, Arm, recovered_name
from harness.statistics import SIMILARITY
from harness.store import write_json
from harness.stream import data_hash
from harness.sweep_spec import resolve_sweep
from harness.sweep_speed import measure_speed
from harness.sweep_types import FailedCell, SweepSummary
from harness.types import RunResult, Variant, digest
from pruning import compensation
from pruning.export import foretell, record_of
from pruning.plan import load_plan


def sweep(config: RunConfig, out: Path | None, fresh: bool) -> tuple[RunResult, Path]:
    """The whole experiment on one model; returns the result and the run directory. Raises HarnessError where the dense model fails."""
    return start(config, out, fresh, resolve_sweep, lambda run: _Sweep(run).everything())


@dataclass
class _Sweep:
    """A run directory at work on a grid of arms. sizes: variant -> (parameters, bytes) by formula."""

    run: Run
    failed: dict[str, str] = field(default_factory=dict)
    plans: dict[str, Path] = field(default_factory=dict)
    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)

    def everything(self) -> RunResult:
        run, spec = self.run, self.run.spec
        need_context(run.model, run.workload)
        if spec.recovered:
            run.gather_training_data()
        run.score()
        for arm in spec.arms:
            with self._attempt(f"plan {arm.name}"):
                self._plan(arm)
        run.planned()
        self._evaluate()
        with self._attempt("serving"):
            timed = {name: self.plans[name] for name in spec.served if name in self.plans and name in run.variants}
            measure_speed(run, timed, self._attempt)
        for arm in spec.arms:
            if arm.name in (spec.exported or ()) and arm.name in run.variants:
                with self._attempt(f"export {arm.name}"):
                    run.export(arm)
        for name in spec.recovered:
            if name in run.variants:
                with self._attempt(f"recover {name}"):
                    run.recover(name)
                    run.evaluate_alone(recovered_name(name))
        return self._collect()

    @contextmanager
    def _attempt(self, cell: str) -> Iterator[None]:
        """What goes wrong inside is the cell's fate, not the sweep's."""
        try:
            yield
        except Exception as error:
            self._note(cell, error)

    def _note(self, cell: str, error: Exception) -> None:
        line = next(iter(str(error).splitlines()), "")
        self.failed[cell] = line if isinstance(error, HarnessError) and line else f"{type(error).__name__}: {line}"
        say(f"{cell} failed: {self.failed[cell]}")

    def _plan(self, arm: Arm) -> None:
        run = self.run
        file = run.plan(arm)
        plan = load_plan(file)
        run.records[arm.name] = record_of(plan, run.model)
        run.variants[arm.name] = foretold = foretell(run.model, plan)
        columns = compensation.columns_file(file)
        parts = [data_hash(file), data_hash(columns) if arm.request.compensated else None]
        run.identity[arm.name] = digest([run.identity[DENSE], parts])
        self.plans[arm.name], self.sizes[arm.name] = file, (foretold.parameters, foretold.weight_bytes)

    def _evaluate(self) -> None:
        """Every variant that is planned and was not evaluated yet; those that fail are no variants."""
        run = self.run
        cells = [Cell(name, self.plans.get(name), run.identity[name]) for name in run.variants]
        left = [cell for cell in cells if not run.directory.finished(_stage(cell), cell.key)]
        if len(left) < len(cells):
            say(f"{len(cells) - len(left)} of {len(cells)} variants: evaluated before, skipped")
        compared = any(task.metric == SIMILARITY for task in run.spec.tasks)
        first = [cell for cell in left if cell.name == DENSE] if compared else []  # its answers are what others are compared with
        for batch in (first, [cell for cell in left if cell not in first]):
            if batch:
                self._run_batch(batch)
        for cell in cells:
            if _stage(cell) in self.failed:
                del run.variants[cell.name]
        if DENSE not in run.variants:
            raise MeasurementError(f"the dense model could not be evaluated: {self.failed[_stage(cells[0])]}")

    def _run_batch(self, cells: Sequence[Cell]) -> None:
        run, config = self.run, self.run.config.sweep
        workers = min(config.workers or _default_workers(config.tensor_parallel), len(cells))
        engine.release_device()
        bench = self._bench(workers)
        title = f"Evaluating {len(cells)} variants on {', '.join(task.name for task in run.spec.tasks)}, {workers} at a time"
        with stage(title, len(cells)) as advance:

            def done(cell: Cell, outcome: Outcome) -> None:
                advance(1)
                if isinstance(outcome, Exception):
                    self._note(_stage(cell), outcome)
                    return
                result = run.path / "eval" / f"{cell.name}.json"
                write_json(result, {task: asdict(value) for task, value in outcome.items()})
                run.directory.finish(_stage(cell), cell.key, [run.path / "samples" / cell.name, result])

            run_cells(cells, self._starter(bench), workers, done)

    def _bench(self, workers: int) -> Bench:
        run, config = self.run, self.run.config
        threads = config.threads or max(1, (os.cpu_count() or 1) // workers)
        settings = engine.config_for(run.model, config.dtype, threads, run.context)
        exam = run.exam(run.context)
        return Bench(run.model, exam, replace(settings, tensor_parallel=config.sweep.tensor_parallel), run.path.absolute(), DENSE)

    def _starter(self, bench: Bench) -> Callable[[int], Worker]:
        size = bench.config.tensor_parallel
        if self.run.config.sweep.launcher == "local":
            return lambda number: LocalWorker(bench, engine.worker_environment(number, size))
        from harness.launch_ray import RayWorker, connect

        connect()
        return lambda _number: RayWorker(bench)

    def _collect(self) -> RunResult:
        run, config = self.run, self.run.config.sweep
        result = run.result()
        rows = {row.name: row for row in result.variants}
        metrics = {task.name: task.metric for task in run.spec.tasks}
        outcomes = read_outcomes(run.path, metrics, rows[DENSE], self._places(rows))
        written = {name: (rows[name].parameters, rows[name].weight_bytes) for name in self.sizes if name in rows and rows[name].checkpoint}
        evidence = Evidence(
            outcomes, result.speed_ratios, result.recoveries, {name: (self.sizes[name], found) for name, found in written.items()},
            config.chance, config.collapse_share, config.margin,
        )  # fmt: skip
        judged = has_right_answers(run.spec.target.metric)
        summary = SweepSummary(
            sweep_points(outcomes, config.chance, config.collapse_share), thresholds(outcomes, config.margin),
            tuple(FailedCell(cell, reason) for cell, reason in self.failed.items()), collapse_below(evidence) if judged else 0.0,
            run.directory.seconds,
        )  # fmt: skip
        return run.publish(replace(result, claims=judge(evidence) if judged else (), sweep=summary))

    def _places(self, rows: dict[str, Variant]) -> list[Place]:
        """Arms that differ in the seed alone are one place; a seed that failed is left out."""
        found: dict[tuple[str, float], list[Variant]] = {}
        for arm in self.run.spec.arms:
            if arm.name in rows:
                found.setdefault((arm.kind, arm.request.ratio), []).append(rows[arm.name])
        return [Place(kind, ratio, tuple(variants)) for (kind, ratio), variants in found.items()]


def _stage(cell: Cell) -> str:
    return f"eval {cell.name}"


def _default_workers(tensor_parallel: int) -> int:
    """One per set of GPUs; on a CPU one, as every engine holds the model."""
    return max(1, engine.gpus() // tensor_parallel)
