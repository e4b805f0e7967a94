"""`harness dissociate`: measures the neurons of every task, intervenes on sets of them in a running engine, and judges
what explains the effect.

An intervention that fails is recorded with its reason and the rest continues; a finished one is not repeated.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from harness.config.settings import RunConfig
from harness.core.bounded_read import read_json
from harness.core.errors import MeasurementError
from harness.core.files import write_json
from harness.core.hashing import digest
from harness.core.memory import release_memory
from harness.core.types.dissociation import Dissociation, Intervention
from harness.core.types.run import RunResult
from harness.evaluation.paired import compare, read_samples
from harness.pipeline.collect import engine_facts_of
from harness.pipeline.resolve import DENSE
from harness.pipeline.run import start
from harness.pipeline.run_context import RunContext
from harness.pipeline.run_files import eval_file, samples_folder
from harness.pipeline.run_json import build_run, publish, read_eval, variant
from harness.sweeps.batch import Failures, cell_key, evaluate_cells
from harness.sweeps.cells import Cell
from harness.sweeps.dissociation.explanations import RULES, double_dissociations, explanations
from harness.sweeps.dissociation.live_plans import PlanWriter, identity, plan_file
from harness.sweeps.dissociation.resolve import default_out, resolve_dissociation, set_request
from harness.sweeps.dissociation.sets import (
    ON_TARGET_ALONE,
    ChosenSet,
    SetRequest,
    contribution_share,
    controls,
    overlap,
    random_sets,
    reverse_sets,
)
from harness.sweeps.dissociation.sources import GENERAL, Statistics, examples, measure, shuffled, tokenised
from pruning.export import predict_size
from pruning.plan_file import load_plan

_SETS = "sets"


def dissociate(config: RunConfig, out: Path | None, fresh: bool, command: str | None = None) -> tuple[RunResult, Path]:
    """Whether a model's tasks have neurons of their own, and what else explains what their removal does.

    Args:
        config: All settings; the sets are in `config.dissociate`.
        out: The run directory; None: runs/dissociate-MODEL.
        fresh: Start over, rather than resume what is in the directory.
        command: The command line, for run.json; None where Python code calls.

    Returns:
        The result, as in run.json, and the run directory. What failed is in `result.dissociation.failed`.

    Raises:
        HarnessError: The settings are wrong, or the dense model could not be evaluated.
    """
    folder = out or default_out(resolve_dissociation(config))
    return start(config, folder, fresh, command, resolve_dissociation, run_all)


def run_all(run: RunContext) -> RunResult:
    """Every stage in its order."""
    failures = Failures()
    interventions = _choose(run)
    _evaluate(run, interventions, failures)
    result = _collected(run, interventions, failures)
    publish(result, run.path)
    return result


def _choose(run: RunContext) -> list[Intervention]:
    """Writes every set and what the engine needs for it, and returns them without outcomes."""
    folder, request = run.path / _SETS, set_request(run.spec)
    settings = [asdict(request), run.config.dissociate.model_dump(), run.spec.config.score_tokens, run.base.identity]
    with run.directory.stage("sets", digest(settings), [folder]) as work:
        if work:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            made = list(_write_sets(run, request, folder))
            shutil.rmtree(folder / "general.moments", ignore_errors=True)
            write_json(folder / "sets.json", [asdict(one) for one in made])
    found = TypeAdapter(list[Intervention]).validate_json(json.dumps(read_json(folder / "sets.json")))
    release_memory()
    return found


def _write_sets(run: RunContext, request: SetRequest, folder: Path) -> Iterator[Intervention]:
    """One draw of prompts after the other; the controls are from the first."""
    writer: PlanWriter | None = None
    for number in range(run.config.dissociate.calibration_seeds):
        texts = examples(run.spec.tasks, request.samples, number)
        if number == 0:
            texts |= shuffled(texts, request.tasks)
        sources = tokenised(run.model, run.spec.model, texts, run.spec.calibration_request, run.chat)
        writer = writer or PlanWriter(run.model, sources[GENERAL], folder, run.config.threads)
        title = f"Prompts, draw {number + 1} of {run.config.dissociate.calibration_seeds}"
        found = measure(run.model, sources, run.config.threads, title)
        chosen = list(reverse_sets(request, found, number))
        reverse = {one.target: one for one in chosen if one.kind == "reverse"}
        if number == 0:
            first = reverse
            chosen += random_sets(request, len(run.model.widths))
            chosen += [one for task in request.tasks for one in controls(request, found, task, reverse[task])]
        for one in chosen:
            writer.write(one, found)
            yield _described(one, found, first)


def _described(chosen: ChosenSet, found: Statistics, first: Mapping[str | None, ChosenSet]) -> Intervention:
    """`first`: the reverse sets of the first draw."""
    names = ("name", "kind", "target", "number", "distractors", "held_out", "samples", "factor")
    own = chosen.target is not None
    return Intervention(
        **{name: getattr(chosen, name) for name in names},
        neurons=int(chosen.neurons.sum()),
        ratio=float(chosen.neurons.mean()),
        contribution=contribution_share(chosen, found) if own else None,
        overlap=overlap(chosen, first[chosen.target]) if own else None,
        outcomes={},
    )


def _evaluate(run: RunContext, interventions: Sequence[Intervention], failures: Failures) -> None:
    """The dense model and every intervention that was not evaluated yet, on running engines."""
    folder = (run.path / _SETS).absolute()
    cells = [Cell(DENSE, None, cell_key(run, run.base.identity))]
    for one in interventions:
        tasks = (str(one.target),) if one.kind in ON_TARGET_ALONE else ()
        key = cell_key(run, identity(run.model, folder, one.name), *tasks)
        cells.append(Cell(one.name, plan_file(folder, one.name), key, tasks))
    if left := [cell for cell in cells if not run.directory.finished(cell.stage, cell.key)]:
        evaluate_cells(run, left, failures, eager=True)
    if reason := failures.reasons.get(cells[0].stage):
        raise MeasurementError(f"the dense model could not be evaluated: {reason}")


def _collected(run: RunContext, interventions: Sequence[Intervention], failures: Failures) -> RunResult:
    """The result; its variants are the dense model and the reverse sets of the first draw."""
    tasks = [task.name for task in run.spec.tasks]
    items = {task: tuple(sorted(_right(run, DENSE, task))) for task in tasks}
    done = [one for one in interventions if f"eval {one.name}" not in failures.reasons]
    answered = [replace(one, outcomes=_outcomes(run, one.name, items)) for one in done]
    dense = _outcomes(run, DENSE, items)
    config = run.config
    found = Dissociation(
        tasks=tuple(tasks),
        ratio=next(one.ratio for one in interventions if one.kind == "reverse"),
        samples=config.calibration_samples,
        margin=config.sweep.margin,
        items=items,
        dense=dense,
        interventions=tuple(answered),
        explanations=explanations(tasks, dense, answered, config.sweep.margin),
        double=double_dissociations(tasks, dense, answered, config.sweep.margin),
        failed={cell.removeprefix("eval "): reason for cell, reason in failures.reasons.items()},
        seconds=run.directory.seconds,
        rules=RULES,
    )
    shown = [one.name for one in answered if one.kind == "reverse" and one.number == 0]
    rows = [variant(DENSE, run.model, None), *(_row(run, name) for name in shown)]
    rows = [replace(row, eval=read_eval(eval_file(run.path, row.name))) for row in rows]
    built = build_run(run.spec.model, run.spec.target.name, rows, run.directory.command, run.chat)
    compared = [compare(run.path, DENSE, name, t.name, t.metric) for name in shown for t in run.spec.tasks]
    return replace(
        built,
        comparisons=tuple(compared),
        model_hash=run.base.identity,
        engine=engine_facts_of(run.path),
        dissociation=found,
    )


def _row(run: RunContext, name: str) -> Any:
    plan = load_plan(plan_file(run.path / _SETS, name))
    return variant(name, predict_size(run.model, plan), None)


def _right(run: RunContext, name: str, task: str) -> dict[int, bool]:
    rows = read_samples(samples_folder(run.path, name) / f"{task}.jsonl")
    return {item: bool(row["correct"]) for item, row in rows.items()}


def _outcomes(run: RunContext, name: str, items: Mapping[str, Sequence[int]]) -> dict[str, str]:
    """Task -> one character per item, of the tasks that were asked."""
    asked = [task for task in items if (samples_folder(run.path, name) / f"{task}.jsonl").exists()]
    right = {task: _right(run, name, task) for task in asked}
    return {task: "".join("01"[right[task][item]] for item in items[task]) for task in asked}
