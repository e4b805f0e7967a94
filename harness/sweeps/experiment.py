"""`harness sweep`: score once, plan all arms, evaluate them on live engines, time, fine-tune, and judge the claims.

A cell that fails is recorded with its reason and the rest goes on. A finished one is not done again as long as what it
is made of is the same, so that a killed sweep goes on and a grid can grow.
"""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from harness.config.settings import RunConfig
from harness.core.errors import HarnessError, MeasurementError, UsageError, first_line
from harness.core.files import write_json
from harness.core.hashing import digest
from harness.core.labels import arm_label
from harness.core.progress import say, stage
from harness.core.safetensors_stream import data_hash
from harness.core.types.evaluation import SIMILARITY
from harness.core.types.run import RunResult, Variant
from harness.core.types.sweep import FailedCell, SweepSummary
from harness.engine import vllm_engine
from harness.pipeline.resolve import DENSE, Arm, recovered_name
from harness.pipeline.run import Run, start
from harness.serving.workload import check_context
from harness.sweeps import ray_workers as launch_ray
from harness.sweeps.cells import Cell, CellContext
from harness.sweeps.claims import Evidence, collapse_below, judge
from harness.sweeps.curves import GridPoint, has_right_answers, read_outcomes, sweep_points, thresholds
from harness.sweeps.grid import resolve_sweep
from harness.sweeps.speed import measure_speed
from harness.sweeps.workers import LocalWorker, Outcome, Worker, run_cells
from pruning import compensation
from pruning.export import predict_size, record_of
from pruning.plan import load_plan


def sweep(config: RunConfig, out: Path | None, fresh: bool, command: str | None = None) -> tuple[RunResult, Path]:
    """The whole experiment on one model; returns the result and the run directory. Raises HarnessError where the dense
    model fails.
    """
    return start(config, out, fresh, command, resolve_sweep, lambda run: _Sweep(run).run_all())


_DATA = "recovery data"
_SEQUENCES = 256  # at a time, in a worker's engine


@dataclass
class _Sweep:
    """A run directory at work on a grid of arms. sizes: variant -> (parameters, bytes) by formula."""

    run: Run
    failed: dict[str, str] = field(default_factory=dict)
    plans: dict[str, Path] = field(default_factory=dict)
    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)

    def run_all(self) -> RunResult:
        run, spec = self.run, self.run.spec
        self._check_devices()
        check_context(run.model, run.workload)
        if spec.recovered:
            with self._attempt(_DATA):  # first: data that is refused should not cost a sweep
                run.gather_training_data()
        run.score()
        for arm in spec.arms:
            with self._attempt(f"plan {arm.name}"):
                self._plan(arm)
        run.delete_second_moments()
        self._evaluate()
        with self._attempt("serving"):
            timed = {name: self.plans[name] for name in spec.served if name in self.plans and name in run.variants}
            measure_speed(run, timed, self._attempt)
        for arm in spec.arms:
            if arm.name in (spec.exported or ()) and arm.name in run.variants:
                with self._attempt(f"export {arm.name}"):
                    run.export(arm)
        for name in spec.recovered:
            self._recover(name)
        return self._collect()

    def _recover(self, name: str) -> None:
        run = self.run
        if name not in run.variants or _DATA in self.failed:
            return  # noted already
        with self._attempt(f"recover {name}"):
            if name in run.records:
                raise MeasurementError("its checkpoint was not written")
            run.recover(name)
            run.evaluate_alone(recovered_name(name))
        if f"recover {name}" in self.failed:
            run.variants.pop(recovered_name(name), None)

    def _check_devices(self) -> None:
        """Raises UsageError for more engines than there are GPUs for; Ray counts its own."""
        config, gpus = self.run.config.sweep, vllm_engine.gpus()
        if gpus and config.launcher == "local" and (config.workers or 1) * config.tensor_parallel > gpus:
            raise UsageError(
                f"--workers and --tensor-parallel ask for more than the {gpus} GPUs that are here; give less"
            )

    @contextmanager
    def _attempt(self, cell: str) -> Iterator[None]:
        """What goes wrong inside is the cell's fate, not the sweep's."""
        try:
            yield
        except Exception as error:
            self._note(cell, error)

    def _note(self, cell: str, error: Exception) -> None:
        self.failed[cell] = (
            first_line(error) if isinstance(error, HarnessError) else f"{type(error).__name__}: {first_line(error)}"
        )
        say(f"{cell} failed: {self.failed[cell]}")

    def _plan(self, arm: Arm) -> None:
        run = self.run
        file = run.plan(arm)
        plan = load_plan(file)
        run.records[arm.name] = record_of(plan, run.model)
        run.variants[arm.name] = predicted = predict_size(run.model, plan)
        columns = compensation.columns_file(file)
        run.identity[arm.name] = digest(
            [run.identity[DENSE], data_hash(file), data_hash(columns) if arm.request.compensated else None]
        )
        self.plans[arm.name], self.sizes[arm.name] = file, (predicted.parameters, predicted.weight_bytes)

    def _evaluate(self) -> None:
        """Every variant that is planned and was not evaluated yet; those that fail are no variants."""
        run = self.run
        cells = [Cell(name, self._absolute_plan(name), self._key(name)) for name in run.variants]
        left = [cell for cell in cells if not run.directory.finished(_stage(cell), cell.key)]
        if len(left) < len(cells):
            say(f"{len(cells) - len(left)} of {len(cells)} variants: evaluated before, skipped")
        compared = any(task.metric == SIMILARITY for task in run.spec.tasks)
        first = (
            [cell for cell in left if cell.name == DENSE] if compared else []
        )  # its answers are what others are compared with
        for batch in (first, [cell for cell in left if cell not in first]):
            if batch:
                self._run_batch(batch)
        for cell in cells:
            if _stage(cell) in self.failed:
                del run.variants[cell.name]
        if DENSE not in run.variants:
            raise MeasurementError(f"the dense model could not be evaluated: {self.failed[_stage(cells[0])]}")

    def _absolute_plan(self, name: str) -> Path | None:
        """A worker may have another current folder."""
        return self.plans[name].absolute() if name in self.plans else None

    def _key(self, name: str) -> str:
        """What a variant's answers hang on, beside the exam that the directory is bound to."""
        config, versions = self.run.config, importlib.metadata.version("vllm")
        return digest([self.run.identity[name], self.run.context, vllm_engine.device_name(), config.dtype, versions])

    def _run_batch(self, cells: Sequence[Cell]) -> None:
        run, config = self.run, self.run.config.sweep
        vllm_engine.release_device()
        if config.launcher == "ray":
            launch_ray.connect()
        count = launch_ray.default_workers if config.launcher == "ray" else _default_workers
        wanted = config.workers or count(config.tensor_parallel)
        bench, workers = self._bench(wanted), min(wanted, len(cells))
        run.directory.begin(f"eval of {len(cells)} variants")
        title = (
            f"Evaluating {len(cells)} variants on "
            f"{', '.join(task.name for task in run.spec.tasks)}, {workers} at a time"
        )
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

    def _bench(self, workers: int) -> CellContext:
        run, config = self.run, self.run.config
        threads = config.threads or max(1, (os.cpu_count() or 1) // workers)
        settings = vllm_engine.config_for(
            run.model, config.dtype, threads, run.context, _SEQUENCES, tensor_parallel=config.sweep.tensor_parallel
        )
        return CellContext(
            model=run.model,
            eval_spec=run.eval_spec(run.context),
            config=settings,
            run=run.path.absolute(),
            reference=DENSE,
        )

    def _starter(self, bench: CellContext) -> Callable[[int], Worker]:
        if self.run.config.sweep.launcher == "ray":
            return lambda _number: launch_ray.RayWorker(bench)
        return lambda number: LocalWorker(bench, vllm_engine.worker_environment(number, bench.config.tensor_parallel))

    def _collect(self) -> RunResult:
        run, config = self.run, self.run.config.sweep
        result = run.result()
        rows = {row.name: row for row in result.variants}
        metrics = {task.name: task.metric for task in run.spec.tasks}
        planned: dict[str, list[float]] = {}
        for arm in run.spec.arms:
            planned.setdefault(arm.kind, []).append(arm.request.ratio)
        outcomes = replace(read_outcomes(run.path, metrics, rows[DENSE], self._places(rows)), planned=planned)
        written = {
            name: (rows[name].parameters, rows[name].weight_bytes)
            for name in self.sizes
            if name in rows and rows[name].checkpoint
        }
        evidence = Evidence(
            outcomes=outcomes,
            speed_ratios=result.speed_ratios,
            recoveries=result.recoveries,
            sizes={name: (self.sizes[name], found) for name, found in written.items()},
            chance=config.chance,
            collapse_share=config.collapse_share,
            margin=config.margin,
            roles={_role(arm): arm.kind for arm in run.spec.arms},
        )
        judged = has_right_answers(run.spec.target.metric)
        summary = SweepSummary(
            points=sweep_points(outcomes, config.chance, config.collapse_share),
            thresholds=thresholds(outcomes, config.margin),
            failed=tuple(FailedCell(cell, reason) for cell, reason in self.failed.items()),
            collapse_below=collapse_below(evidence) if judged else 0.0,
            seconds=run.directory.seconds,
        )
        return run.publish(replace(result, claims=judge(evidence) if judged else (), sweep=summary))

    def _places(self, rows: dict[str, Variant]) -> list[GridPoint]:
        """Arms that differ in the seed alone are one place; a seed that failed is left out."""
        found: dict[tuple[str, float], list[Variant]] = {}
        for arm in self.run.spec.arms:
            if arm.name in rows:
                found.setdefault((arm.kind, arm.request.ratio), []).append(rows[arm.name])
        return [GridPoint(kind, ratio, tuple(variants)) for (kind, ratio), variants in found.items()]


def _role(arm: Arm) -> str:
    """The name by which the claims know an arm, however its widths are allotted."""
    return arm_label(arm.request.method, arm.request.metric, arm.request.compensated)


def _stage(cell: Cell) -> str:
    return f"eval {cell.name}"


def _default_workers(tensor_parallel: int) -> int:
    """One per set of GPUs; on a CPU one, as every engine holds the model."""
    return max(1, vllm_engine.gpus() // tensor_parallel)
