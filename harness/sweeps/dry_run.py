"""What a sweep would do, from the model's config alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from harness.core.labels import is_as_asked
from harness.core.power import mcnemar_power
from harness.core.run_directory import check_run_directory
from harness.core.types.evaluation import has_right_answers
from harness.pipeline.cpu_time import time_text
from harness.pipeline.data_check import check_data
from harness.pipeline.dry_run import (
    RecoveryForecast,
    SecondMoments,
    estimated_seconds,
    generated_answers,
    own_answer_rows,
    recovery_cost,
    recovery_rows,
    scoring_place,
    second_moment_rows,
    second_moments,
)
from harness.pipeline.resolve import ResolvedRun
from harness.sweeps.curves import planned_loss
from harness.sweeps.grid import GridRow, grid_rows
from harness.training.fine_tuning import check_files
from harness.training.original import check_original
from pruning.placement import Placement
from reports.figures import mebibytes, percent
from reports.parts import Table


@dataclass(frozen=True)
class SweepForecast:
    """What a sweep would do. `harness sweep --dry-run --json` prints these fields.

    Attributes:
        task: The tasks, the target first.
        methods: Arm -> seeds.
        variants: How many are evaluated on every task, the dense model among them, those that are fine-tuned not.
        masks: Further random masks, evaluated on the target alone.
        margin: The loss on the target that counts as none.
        power: Task with right answers -> how often its items would show a loss of the margin, and the loss that they
            show in four of five runs, where twice the margin of them changes.
        fine_tuned: The variants that fine-tuning makes.
        parameters: Of the dense model.
        intermediate_size: FFN width of the dense model.
        scoring: Where the model's weights are while it is scored; None where nothing is pruned.
        second_moments: None where no metric and no re-fitting needs them.
        disk_bytes: Of all checkpoints that would be written, at most.
        recovery: None where nothing is fine-tuned.
        out: The run directory.
        own_answers: That the dense model gives to calibration prompts, at most.
        seconds: Upper bound for this CPU with one engine at a time; None where a GPU would be used.
    """

    model: str
    task: tuple[str, ...]
    methods: Mapping[str, int]
    grid: tuple[GridRow, ...]
    variants: int
    fine_tuned: tuple[str, ...]
    parameters: int
    intermediate_size: int
    scoring: Placement | None
    second_moments: SecondMoments | None
    disk_bytes: int
    recovery: RecoveryForecast | None
    out: str
    seconds: float | None
    own_answers: int = 0
    masks: int = 0
    margin: float = 0.0
    power: Mapping[str, tuple[float, float | None]] = field(default_factory=dict)


def forecast_sweep(spec: ResolvedRun, out: Path | None = None) -> SweepForecast:
    """Everything by formula from the model's config.json; no weights are read. `out`: the run directory, None for the
    default.
    """
    check_run_directory(out or spec.default_out)
    check_data(spec)
    if spec.recovered:
        check_files(spec.config.recovery)
        check_original(spec.config.recovery, Path(spec.config.model))
    return SweepForecast(
        model=spec.model,
        task=tuple(task.name for task in spec.tasks),
        methods={arm.kind: len({a.request.seed for a in spec.arms if a.kind == arm.kind}) for arm in spec.arms},
        grid=tuple(grid_rows(spec)),
        variants=1 + len(spec.arms),
        fine_tuned=tuple(one.name for one in spec.fine_tunings),
        parameters=spec.shape.parameters,
        intermediate_size=spec.shape.intermediate_size,
        scoring=scoring_place(spec),
        second_moments=second_moments(spec),
        disk_bytes=(spec.exports + len(spec.fine_tunings)) * spec.shape.parameters * spec.shape.dtype_bytes,
        recovery=recovery_cost(spec),
        out=str(out or spec.default_out),
        seconds=estimated_seconds(spec),
        own_answers=generated_answers(spec),
        masks=len(spec.masks),
        margin=spec.config.sweep.margin,
        power=dict(_power(spec)),
    )


def _power(spec: ResolvedRun) -> Iterator[tuple[str, tuple[float, float | None]]]:
    margin = spec.config.sweep.margin
    for task in spec.tasks:
        if has_right_answers(task.metric):
            n = spec.items_of(task)
            yield task.name, (mcnemar_power(n, margin, min(1.0, 2 * margin)), planned_loss(n, margin))


def grid_table(expected: SweepForecast) -> Table:
    """The forecast for a terminal."""
    methods = (f"{arm} ({seeds} seeds)" if seeds > 1 else arm for arm, seeds in expected.methods.items())
    rows = (
        ("model", f"{expected.model}, {expected.parameters:,} parameters, FFN width {expected.intermediate_size}"),
        ("tasks", ", ".join(expected.task)),
        ("methods", ", ".join(methods)),
        *((percent(row.ratio_neurons, 2), _grid_text(row)) for row in expected.grid),
        ("variants evaluated", str(expected.variants + len(expected.fine_tuned))),
        ("random masks beside", f"{expected.masks} more, on {expected.task[0]} alone" if expected.masks else "none"),
        *([("scoring", expected.scoring.text)] if expected.scoring else []),
        *second_moment_rows(expected.second_moments),
        *own_answer_rows(expected.own_answers),
        ("fine-tuned", ", ".join(expected.fine_tuned) or "none"),
        *((f"power on {task}", _power_text(expected.margin, *found)) for task, found in expected.power.items()),
        *recovery_rows(expected.recovery),
        *([("disk needed", f"{mebibytes(expected.disk_bytes)} for checkpoints")] if expected.disk_bytes else []),
        ("time", f"{time_text(expected.seconds)}, one engine at a time"),
        ("would write to", expected.out),
    )
    return Table("What this sweep would do", ("what", "value"), rows)


def _grid_text(row: GridRow) -> str:
    asked = "" if is_as_asked(row.ratio, row.ratio_neurons) else f"; asked {100 * row.ratio:g} %"
    return f"width {row.intermediate_size}, {row.parameters:,} parameters{asked}"


def _power_text(margin: float, power: float, loss: float | None) -> str:
    least = "no loss at all is" if loss is None else f"a loss of {100 * loss:.1f} points is"
    return (
        f"a loss of {100 * margin:g} points is found in {percent(power, 0)} of runs, {least} in four of five, "
        f"where {percent(2 * margin, 0)} of the items change"
    )
