"""The result of a run, read from the files that its stages wrote."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.core.bounded_read import read_json_object
from harness.core.chat import ChatFormat
from harness.core.run_directory import RunDirectory
from harness.core.types.engine import EngineFacts
from harness.core.types.evaluation import LIKELIHOOD_METRICS, Comparison, is_mean_score
from harness.core.types.run import RunResult, Variant
from harness.core.types.serving import ServingResult, SpeedRatio
from harness.core.types.training import Recovery, TrainingResult
from harness.evaluation.paired import compare, recovered_fraction
from harness.pipeline import scoring
from harness.pipeline.arms import FineTuning
from harness.pipeline.resolve import DENSE, ResolvedRun
from harness.pipeline.run_context import VariantState
from harness.pipeline.run_files import (
    calibration_file,
    engine_file,
    eval_file,
    plan_file,
    scores_file,
    serving_file,
    training_folder,
)
from harness.pipeline.run_json import (
    build_run,
    calibration_summary,
    curve_end,
    neuron_summary,
    read_eval,
    read_serving,
    read_training,
    variant,
)
from pruning.checkpoint import ModelFolder
from pruning.plan_file import load_plan


def collect(
    directory: RunDirectory, spec: ResolvedRun, variants: Sequence[VariantState], chat: ChatFormat | None
) -> RunResult:
    """The result of a run or of a sweep.

    Args:
        directory: The run directory; every figure is read from its files.
        spec: What the run was asked to do.
        variants: The variants that were made and evaluated, the base first, in the order of the report.
        chat: How prompts were put into the chat template.
    """
    run, names = directory.path, {state.name for state in variants}
    serving, speed_ratios = _serving(run, spec)
    rows = [_row(run, spec, state, serving.get(state.name)) for state in variants]
    calibration, neurons = _scoring(run, spec, names)
    return replace(
        build_run(spec.model, spec.target.name, rows, directory.command, chat),
        comparisons=tuple(_comparisons(run, spec, names)),
        recoveries=tuple(_recoveries(run, spec, names)),
        speed_ratios=tuple(speed_ratios),
        calibration=calibration,
        neurons=neurons,
        model_hash=variants[0].identity,
        engine=engine_facts_of(run),
    )


def engine_facts_of(run: Path) -> EngineFacts | None:
    """As the last engine of the evaluation was; None for a directory whose evaluations are older than the file."""
    file = engine_file(run)
    return EngineFacts(**read_json_object(file)) if file.exists() else None


def _scoring(run: Path, spec: ResolvedRun, names: Set[str]) -> tuple[Mapping[str, Any], Mapping[str, Any] | None]:
    """The summaries of calibration and neurons, by the first arm that was made; empty without one."""
    arm = next((arm for arm in spec.arms if arm.name in names), None)
    if arm is None:
        return {}, None
    calibration = scoring.load_calibration(calibration_file(run))
    metrics = {arm.request.metric for arm in spec.arms if arm.request.metric}
    plan = load_plan(plan_file(run, spec, arm))
    return (
        calibration_summary(calibration, arm.request.metric, spec.config.general_weight),
        neuron_summary(scores_file(run), plan, metrics),
    )


def _row(run: Path, spec: ResolvedRun, state: VariantState, serving: ServingResult | None) -> Variant:
    path = state.checkpoint.path if isinstance(state.checkpoint, ModelFolder) and state.name != DENSE else None
    fine_tuning = next((one for one in spec.fine_tunings if one.name == state.name), None)
    return replace(
        variant(state.name, state.checkpoint, os.path.relpath(path, run) if path else None),
        eval=read_eval(eval_file(run, state.name)),
        serving=serving,
        training=_training(run, spec, fine_tuning) if fine_tuning else None,
    )


def _serving(run: Path, spec: ResolvedRun) -> tuple[Mapping[str, ServingResult], Sequence[SpeedRatio]]:
    file = serving_file(run)
    return read_serving(file) if spec.served and file.exists() else ({}, [])


def _training(run: Path, spec: ResolvedRun, fine_tuning: FineTuning) -> TrainingResult:
    """Its curve begins and ends with the finished variants, on the same items as the points between them."""
    training, target = read_training(training_folder(run, fine_tuning.label)), spec.target
    if not training.curve:
        return training
    n = training.curve[0].n
    first = curve_end(run, fine_tuning.before, target.name, target.metric, n, step=0, tokens=0)
    last = curve_end(run, fine_tuning.name, target.name, target.metric, n, step=training.steps, tokens=training.tokens)
    return replace(training, curve=(first, *training.curve, last))


def _comparisons(run: Path, spec: ResolvedRun, names: Set[str]) -> Iterator[Comparison]:
    for before, after in _pairs(spec):
        if {before, after} <= names:
            for task in spec.tasks:
                yield compare(run, before, after, task.name, task.metric)


def _pairs(spec: ResolvedRun) -> Iterator[tuple[str, str]]:
    """(baseline, variant): pruned against the base; recovered against what it was before, against the recovered base
    and against the base.
    """
    of_arms = [one for one in spec.fine_tunings if one.before != spec.base]
    yield from ((spec.base, arm.name) for arm in spec.arms)
    yield from ((one.before, one.name) for one in spec.fine_tunings)
    if spec.base in spec.recovered:
        yield from ((replace(one, before=spec.base).name, one.name) for one in of_arms)
    yield from ((spec.base, one.name) for one in of_arms)


def _recoveries(run: Path, spec: ResolvedRun, names: Set[str]) -> Iterator[Recovery]:
    """Of every recovered arm, by seeds with which the base was recovered too, on tasks that have right answers."""
    tasks = [t for t in spec.tasks if t.metric not in LIKELIHOOD_METRICS and not is_mean_score(t.metric)]
    for name in (name for name in spec.recovered if name != spec.base):
        pairs = [(FineTuning(name, seed).name, FineTuning(spec.base, seed).name) for seed in range(spec.recovery_seeds)]
        if done := [pair for pair in pairs if {*pair} <= names]:
            variants, controls = zip(*done, strict=True)
            yield from (recovered_fraction(run, name, variants, controls, task.name) for task in tasks)
