"""The stages of a run. The manifest records each; one that has run on the same inputs is skipped if its outputs are
still what it wrote.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from harness.core.files import write_json
from harness.core.hashing import digest
from harness.core.labels import width_text
from harness.core.progress import progress_bar
from harness.core.safetensors_stream import data_hash
from harness.core.types.calibration import CalibrationSet
from harness.core.types.evaluation import EvalResult
from harness.core.types.pruning import NeuronScores
from harness.engine.engine_facts import engine_facts
from harness.engine.engine_settings import engine_settings
from harness.engine.vllm_engine import Engines, engines_for
from harness.evaluation.evaluate import evaluate as evaluate_tasks
from harness.evaluation.lm_eval_requests import EvalSpec, VariantEval
from harness.pipeline import scoring
from harness.pipeline.arms import Arm, FineTuning
from harness.pipeline.dry_run import scoring_place
from harness.pipeline.resolve import ResolvedRun
from harness.pipeline.run_context import RunContext, VariantState, defaults_of
from harness.pipeline.run_files import (
    calibration_file,
    engine_file,
    eval_file,
    plan_file,
    samples_folder,
    scores_file,
    serving_file,
    training_data_folder,
    training_folder,
)
from harness.pipeline.run_json import save_serving
from harness.pipeline.width_search import Scored, find_widths
from harness.serving.bench import offline_targets, results
from harness.serving.timing import interleaved
from harness.training import fine_tuning
from harness.training.original import original_of
from pruning import compensation, score_file
from pruning.checkpoint import ModelFolder, open_model
from pruning.export import export as write_checkpoint
from pruning.export import predict_size
from pruning.plan import make_plan, uniform_width
from pruning.plan_file import load_plan, save_plan
from pruning.structure_plan import structure_text
from pruning.structures import count_of
from recovery.trainer import Job

AGAIN = "dense-again"  # the first model against itself: what a speed ratio shows by chance
_SEQUENCES = 128  # at a time, in an evaluation


def score(run: RunContext) -> None:
    """Scores every FFN neuron of the model; writes the scores and the calibration set."""
    spec, calibration, scores = run.spec, calibration_file(run.path), scores_file(run.path)
    request = spec.score_request
    inputs = digest([_content(spec), request.metrics, request.moments, run.base.identity])
    if not run.directory.finished("score", inputs):
        scoring_place(replace(spec, shape=run.model.shape))
        _calibrate(run)
    with run.directory.stage("score", inputs, [calibration, scores]) as work:
        if work:
            scoring.score_model(run.model, scoring.load_calibration(calibration), request, scores)


def _calibrate(run: RunContext) -> None:
    """A stage of its own: a scoring that is resumed does not generate the model's own answers again."""
    spec, file = run.spec, calibration_file(run.path)
    with run.directory.stage("calibrate", digest([_content(spec), run.base.identity]), [file]) as work:
        if work:
            prompts = scoring.calibrate(run.model, spec.model, spec.target, spec.calibration_request)
            scoring.save_calibration(prompts, file)


def _content(spec: ResolvedRun) -> dict[str, Any]:
    """The settings that results depend on; of the model that is its fingerprint, wherever it lies."""
    return {key: value for key, value in spec.settings.items() if key != "model"}


def plan(run: RunContext, arm: Arm) -> VariantState:
    """Decides which neurons an arm keeps; its sizes are known from then on, its checkpoint is not written."""
    file = plan_file(run.path, run.spec, arm)
    columns = compensation.columns_file(file) if arm.request.compensated else None
    whole = count_of(run.spec.structure, run.spec.shape)
    width = uniform_width(arm.request, whole)  # one ratio gave another width before
    inputs = digest([run.directory.output_hash("score"), asdict(arm.request), width])
    with run.directory.stage(f"plan {arm.name}", inputs, [file, *([columns] if columns else [])]) as work:
        if work:
            scores = score_file.load(scores_file(run.path))
            calibration = scoring.load_calibration(calibration_file(run.path)) if columns else None
            save_plan(make_plan(scores, arm.request, _found_widths(run, arm, scores, calibration)), file)
            if calibration:
                scoring.compensate_plan(run.model, calibration, run.spec.score_request, scores_file(run.path), file)
    made = load_plan(file)
    identity = digest([run.base.identity, data_hash(file), data_hash(columns) if columns else None])
    return VariantState(arm.name, predict_size(run.model, made), identity, file)


def _found_widths(
    run: RunContext, arm: Arm, scores: NeuronScores, calibration: CalibrationSet | None
) -> Sequence[int] | None:
    """Of an arm whose widths are searched."""
    if arm.request.allocation != "search" or calibration is None:
        return None
    scored = Scored(run.model, calibration, run.spec.score_request, scores)
    return find_widths(scored, arm.request, run.spec.target, run.spec.calibration_request).widths


def delete_second_moments(run: RunContext) -> None:
    """They take much disk and are not needed once the plans are made."""
    shutil.rmtree(scoring.moments_folder(scores_file(run.path)), ignore_errors=True)


def export(run: RunContext, planned: VariantState) -> VariantState:
    """Writes the checkpoint of a planned variant, beside its plan."""
    file = planned.plan
    assert file is not None, f"{planned.name} has no plan"
    out = file.parent / "checkpoint"
    with run.directory.stage(f"export {planned.name}", planned.identity, [out]) as work:
        if work:
            made = load_plan(file)
            sizes = structure_text(made) or f"width {made.intermediate_size} -> {width_text(made.widths)}"
            title = f"Writing {planned.name}, {sizes}"
            with progress_bar(title, len(run.model.shards)) as advance:
                write_checkpoint(run.model, made, out, file, advance, repair=True)
    return replace(planned, checkpoint=open_model(out))


def gather_training_data(run: RunContext) -> None:
    folder, spec, config = training_data_folder(run.path), run.spec, run.config
    rows = fine_tuning.data_hash(config.recovery, defaults_of(spec))
    inputs = digest([_content(spec), config.seed, rows, run.base.identity])
    with run.directory.stage("recovery data", inputs, [folder]) as work:
        if work:
            fine_tuning.gather(run.model, spec.tasks, config.recovery, defaults_of(spec), folder, config)


def recover(run: RunContext, before: VariantState, seed: int = 0) -> VariantState:
    """Fine-tunes a variant whose checkpoint is written, and measures accuracy during training.

    seed: Added to the run's.
    """
    new, label = FineTuning(before.name, seed).name, FineTuning(before.name, seed).label
    folder, out = training_folder(run.path, label), run.path / "recovered" / label
    job = _training_job(run, before.folder, folder, seed)
    trained, measured = f"recover {label}", f"curve {label}"
    inputs = digest([before.identity, run.directory.output_hash("recovery data"), job.recipe.hash])
    with run.directory.stage(trained, inputs, [out, folder / "training.json"]) as work:
        if work:
            fine_tuning.recover(job, before.folder, out, run.config, inputs)
    with run.directory.stage(measured, run.directory.output_hash(trained), [folder / "curve.json"]) as work:
        if work:
            points = fine_tuning.curve(
                job, before.folder, lambda model, step: _curve_point(run, model, f"{new}-step-{step}")
            )
            write_json(folder / "curve.json", points)
    shutil.rmtree(job.states, ignore_errors=True)
    return VariantState(new, open_model(out), run.directory.output_hash(trained))


def _training_job(run: RunContext, before: ModelFolder, folder: Path, seed: int) -> Job:
    """Its paths are absolute, since training runs in a process of its own."""
    data, defaults = training_data_folder(run.path), defaults_of(run.spec)
    recipe = fine_tuning.recipe_for(run.config.recovery, replace(defaults, seed=defaults.seed + seed), data)
    return Job(
        folder=folder.absolute(),
        model=before.path.absolute(),
        data=data.absolute(),
        recipe=recipe,
        teacher=original_of(run.model).path if recipe.distill else None,
    )


def _curve_point(run: RunContext, checkpoint: ModelFolder, name: str) -> EvalResult:
    """The target's accuracy of a checkpoint during training; its samples are not kept."""
    target = run.spec.target
    limit = min(run.config.limit or fine_tuning.CURVE_ITEMS, fine_tuning.CURVE_ITEMS)
    with engines_for({name: checkpoint}, engine_settings(run.config, run.max_model_len)) as engines:
        eval_spec = replace(run.eval_spec, tasks=(target,), limit=limit, items=run.spec.items[:limit])
        result = _evaluated(run, engines, name, eval_spec)[target.name]
    shutil.rmtree(samples_folder(run.path, name))
    return result


def open_engines(run: RunContext, variants: Sequence[VariantState]) -> Engines:
    """One engine per variant, side by side, with room for the evaluation and for the timed requests."""
    models = {state.name: state.folder for state in variants}
    sequences = max(_SEQUENCES, *run.config.concurrency)
    return engines_for(models, engine_settings(run.config, run.max_model_len, sequences))


def evaluate(run: RunContext, variant: VariantState, engines: Engines) -> None:
    samples, result = samples_folder(run.path, variant.name), eval_file(run.path, variant.name)
    with run.directory.stage(f"eval {variant.name}", variant.identity, [samples, result]) as work:
        if work:
            facts = engine_facts(engines[variant.name], run.config.engine_arg)
            write_json(engine_file(run.path), asdict(facts))
            save_eval(_evaluated(run, engines, variant.name, run.eval_spec, run.base.identity), result)


def evaluate_alone(run: RunContext, variant: VariantState) -> None:
    with open_engines(run, [variant]) as engines:
        evaluate(run, variant, engines)


def save_eval(result: Mapping[str, EvalResult], file: Path) -> None:
    write_json(file, {task: asdict(value) for task, value in result.items()})


def _evaluated(
    run: RunContext, engines: Engines, name: str, eval_spec: EvalSpec, dense: str = ""
) -> dict[str, EvalResult]:
    reference = None if name == run.spec.base else run.spec.base
    variant_eval = VariantEval(run.path, name, engines.models[name].fingerprint, reference, dense)
    return evaluate_tasks(engines[name], eval_spec, variant_eval)


def serve(run: RunContext, variants: Sequence[VariantState], engines: Engines) -> None:
    """Times the variants side by side on the same requests, the first a second time on its own engine; writes
    serving.json.
    """
    file, config, workload = serving_file(run.path), run.config, run.workload
    with run.directory.stage("serving", digest([state.identity for state in variants]), [file]) as work:
        if work:
            targets = offline_targets(engines, {state.name: workload for state in variants})
            if len(variants) > 1:
                targets[AGAIN] = targets[variants[0].name]
            runners = {name: target.round for name, target in targets.items()}
            passes = interleaved(runners, config.concurrency, config.repeats, workload)
            timed, ratios = results(targets, passes, config, workload)
            timed.pop(AGAIN, None)
            save_serving(timed, ratios, file)
