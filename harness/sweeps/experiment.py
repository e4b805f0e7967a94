"""`harness sweep`: score once, plan all arms, evaluate them on live engines, time, fine-tune, and judge the claims.

A cell that fails is recorded with its reason and the rest continues. A finished cell is not repeated as long as what it
depends on is the same, so a killed sweep resumes and a grid can grow.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from harness.config.settings import RunConfig
from harness.core.errors import MeasurementError
from harness.core.labels import arm_label
from harness.core.progress import say
from harness.core.types.evaluation import SIMILARITY, has_right_answers
from harness.core.types.run import RunResult, Variant
from harness.core.types.sweep import FailedCell, SweepSummary
from harness.pipeline import stages
from harness.pipeline.arms import Arm
from harness.pipeline.collect import collect
from harness.pipeline.resolve import DENSE
from harness.pipeline.run import start
from harness.pipeline.run_context import RunContext, VariantState
from harness.pipeline.run_files import eval_file
from harness.pipeline.run_json import publish, read_eval, variant
from harness.serving.workload import check_context
from harness.sweeps.batch import Failures, cell_key, evaluate_cells
from harness.sweeps.cells import Cell
from harness.sweeps.claims import RULES, judge
from harness.sweeps.curves import GridPoint, item_outcomes, read_outcomes, sweep_points, thresholds
from harness.sweeps.evidence import Evidence, collapse_below
from harness.sweeps.grid import resolve_sweep
from harness.sweeps.specificity import with_specificity
from harness.sweeps.speed import measure_speed

_DATA = "recovery data"
_SEQUENCES = 256  # at a time, in a worker's engine


def sweep(config: RunConfig, out: Path | None, fresh: bool, command: str | None = None) -> tuple[RunResult, Path]:
    """Methods x ratios x seeds on one model.

    Args:
        config: All settings; the grid is in `config.sweep`.
        out: The run directory; None: runs/sweep-MODEL-TASK.
        fresh: Start over, rather than resume what is in the directory.
        command: The command line, for run.json; None where Python code calls.

    Returns:
        The result, as in run.json, and the run directory. Cells that failed are in `result.sweep.failed`.

    Raises:
        HarnessError: The settings are wrong, or the dense model could not be evaluated.
    """
    return start(config, out, fresh, command, resolve_sweep, run_all)


def run_all(run: RunContext) -> RunResult:
    """Every stage in its order, each cell for itself."""
    spec, failures = run.spec, Failures()
    check_context(run.model, run.workload)
    if spec.recovered:
        with failures.attempt(_DATA):  # first: data that is refused should not cost a sweep
            stages.gather_training_data(run)
    planned = _plan_all(run, failures)
    masks = _plan_masks(run, failures)
    evaluated = _evaluate(run, planned, masks, failures)
    with failures.attempt("serving"):
        timed = [state for state in evaluated if state.plan and state.name in spec.served]
        measure_speed(run, timed, failures.attempt)
    written = [_export(run, state, failures) for state in evaluated]
    variants = [*written, *_recover(run, written, failures)]
    result = collect(run.directory, spec, variants, run.chat)
    result = _judged(run, result, planned, _mask_rows(run, masks, failures), failures)
    publish(result, run.path)
    return result


def _plan_all(run: RunContext, failures: Failures) -> list[VariantState]:
    """The dense model and every arm that can be planned."""
    stages.score(run)
    planned = [run.base]
    for arm in run.spec.arms:
        with failures.attempt(f"plan {arm.name}"):
            planned.append(stages.plan(run, arm))
    stages.delete_second_moments(run)
    return planned


def _plan_masks(run: RunContext, failures: Failures) -> list[VariantState]:
    """The random masks that are evaluated on the target alone."""
    planned = []
    for arm in run.spec.masks:
        with failures.attempt(f"plan {arm.name}"):
            planned.append(stages.plan(run, arm))
    return planned


def _mask_rows(run: RunContext, masks: Sequence[VariantState], failures: Failures) -> dict[str, Variant]:
    """The masks that were evaluated, as rows like those of run.json."""
    done = [state for state in masks if f"eval {state.name}" not in failures.reasons]
    return {
        state.name: replace(
            variant(state.name, state.checkpoint, None), eval=read_eval(eval_file(run.path, state.name))
        )
        for state in done
    }


def _export(run: RunContext, state: VariantState, failures: Failures) -> VariantState:
    """Writes the checkpoints that the sweep needs; every other variant stays a plan."""
    if state.name in (run.spec.exported or ()):
        with failures.attempt(f"export {state.name}"):
            return stages.export(run, state)
    return state


def _recover(run: RunContext, written: Sequence[VariantState], failures: Failures) -> list[VariantState]:
    """The variants that were fine-tuned and evaluated."""
    if _DATA in failures.reasons:
        return []
    by_name, recovered = {state.name: state for state in written}, []
    for one in (one for one in run.spec.fine_tunings if one.before in by_name):
        with failures.attempt(f"recover {one.label}"):
            state = stages.recover(run, by_name[one.before], one.seed)
            stages.evaluate_alone(run, state)
            recovered.append(state)
    return recovered


def _evaluate(
    run: RunContext, planned: Sequence[VariantState], masks: Sequence[VariantState], failures: Failures
) -> list[VariantState]:
    """Evaluates every planned variant that was not evaluated yet, and `masks` on the target alone.

    Returns:
        The planned variants without those that failed.

    Raises:
        MeasurementError: The dense model failed, to which every other one is compared.
    """
    alone = (run.spec.target.name,)
    cells = [Cell(s.name, s.plan and s.plan.absolute(), cell_key(run, s.identity)) for s in planned]
    cells += [Cell(s.name, s.plan and s.plan.absolute(), cell_key(run, s.identity, *alone), alone) for s in masks]
    left = [cell for cell in cells if not run.directory.finished(cell.stage, cell.key)]
    if len(left) < len(cells):
        say(f"{len(cells) - len(left)} of {len(cells)} variants: evaluated before, skipped")
    compared = any(task.metric == SIMILARITY for task in run.spec.tasks)
    first = [cell for cell in left if compared and cell.name == DENSE]  # others are compared with its answers
    for batch in (first, [cell for cell in left if cell not in first]):
        if batch:
            evaluate_cells(run, batch, failures)
    failed = {cell.name: failures.reasons[cell.stage] for cell in cells if cell.stage in failures.reasons}
    if DENSE in failed:
        raise MeasurementError(f"the dense model could not be evaluated: {failed[DENSE]}")
    return [state for state in planned if state.name not in failed]


def _judged(
    run: RunContext,
    result: RunResult,
    planned: Sequence[VariantState],
    masks: Mapping[str, Variant],
    failures: Failures,
) -> RunResult:
    """The result with curves, thresholds and claims."""
    config, rows = run.config.sweep, {row.name: row for row in result.variants}
    evidence = _evidence(run, result, {**rows, **masks}, planned)
    judged = has_right_answers(run.spec.target.metric)
    points = sweep_points(evidence.outcomes, config.chance, config.collapse_share, config.margin)
    gone, elsewhere = (config.chance, config.collapse_share), config.off_target_margin
    items, outcomes = item_outcomes(run.path, evidence.outcomes.metrics, [*result.variants, *masks.values()])
    summary = SweepSummary(
        points=with_specificity(evidence, points),
        thresholds=thresholds(evidence.outcomes, config.margin, gone, elsewhere),
        failed=tuple(FailedCell(cell, reason) for cell, reason in failures.reasons.items()),
        collapse_below=collapse_below(evidence) if judged else 0.0,
        seconds=run.directory.seconds,
        rules=RULES,
        items=items,
        outcomes=outcomes,
    )
    return replace(result, claims=judge(evidence) if judged else (), sweep=summary)


def _evidence(
    run: RunContext, result: RunResult, rows: Mapping[str, Variant], planned: Sequence[VariantState]
) -> Evidence:
    config, arms = run.config.sweep, run.spec.arms
    metrics = {task.name: task.metric for task in run.spec.tasks}
    ratios = {
        kind: [arm.request.ratio for arm in arms if arm.kind == kind] for kind in {arm.kind: None for arm in arms}
    }
    outcomes = read_outcomes(run.path, metrics, rows[DENSE], _grid_points(arms, run.spec.masks, rows))
    return Evidence(
        outcomes=replace(outcomes, planned=ratios),
        speed_ratios=result.speed_ratios,
        recoveries=result.recoveries,
        sizes=_sizes(planned, rows),
        chance=config.chance,
        collapse_share=config.collapse_share,
        margin=config.margin,
        roles={_role(arm): arm.kind for arm in arms},
        distractors=_distractors(result, metrics),
        items=run.spec.target.items,
    )


def _distractors(result: RunResult, tasks: Collection[str]) -> frozenset[str]:
    """The tasks among the sources of the distractors, which go by the name of a task or of its data set."""
    sources = {_plain(source) for source in result.calibration.get("distractors", ())}
    return frozenset(task for task in tasks if any(source.startswith(_plain(task)) for source in sources))


def _plain(name: str) -> str:
    plain = "".join(letter for letter in name.lower() if letter.isalnum())
    return plain.replace("bigbenchhard", "bbhgeneral")


def _sizes(
    planned: Sequence[VariantState], rows: Mapping[str, Variant]
) -> dict[str, tuple[tuple[int, int], tuple[int, int]]]:
    """Arm -> (parameters, bytes) by formula and as written, of the arms whose checkpoint was written."""
    return {
        state.name: (
            (state.checkpoint.parameters, state.checkpoint.weight_bytes),
            (rows[state.name].parameters, rows[state.name].weight_bytes),
        )
        for state in planned
        if state.plan and state.name in rows and rows[state.name].checkpoint
    }


def _grid_points(arms: Sequence[Arm], masks: Sequence[Arm], rows: Mapping[str, Variant]) -> list[GridPoint]:
    """Arms that differ only in the seed are one point; a seed that failed is left out."""
    points, further = _by_point(arms, rows), _by_point(masks, rows)
    return [GridPoint(*point, variants, further.get(point, ())) for point, variants in points.items()]


def _by_point(arms: Sequence[Arm], rows: Mapping[str, Variant]) -> dict[tuple[str, float], tuple[Variant, ...]]:
    points: dict[tuple[str, float], tuple[Variant, ...]] = {}
    for arm in arms:
        if arm.name in rows:
            point = arm.kind, arm.request.ratio
            points[point] = (*points.get(point, ()), rows[arm.name])
    return points


def _role(arm: Arm) -> str:
    """The name by which the claims know an arm, whatever its allocation of widths."""
    request = arm.request
    return arm_label(request.method, request.metric, request.compensated, reconstructed=request.reconstructed)
