"""The stages in their order; each is skipped when it has run on the same inputs and its outputs are still there."""

from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from harness.config.settings import RunConfig, config_yaml, environment_settings
from harness.core.errors import MeasurementError
from harness.core.files import check_disk, write_json, write_text
from harness.core.hashing import digest
from harness.core.progress import say, stage
from harness.core.run_directory import RunDirectory, locked
from harness.core.types.evaluation import LIKELIHOOD_METRICS, SIMILARITY, Comparison, EvalResult
from harness.core.types.run import RunResult, Variant
from harness.core.types.serving import ServingResult, SpeedRatio
from harness.core.types.training import Recovery, TrainingResult
from harness.engine.vllm_engine import Engines, engines_for, fit_together
from harness.evaluation.lm_eval_requests import EvalSpec, VariantEval
from harness.evaluation.paired import compare, recovered_fraction
from harness.evaluation.similarity import check_packages
from harness.models import registry
from harness.models.tokenizer import has_chat_template, load_tokenizer
from harness.pipeline import scoring
from harness.pipeline.resolve import DENSE, Arm, ResolvedRun, recovered_name, resolve, resolve_recovery
from harness.pipeline.run_json import (
    build_run,
    calibration_summary,
    curve_end,
    neuron_summary,
    read_eval,
    read_serving,
    read_training,
    save_serving,
    variant,
    write_run,
)
from harness.serving.bench import offline_targets, results
from harness.serving.timing import interleaved
from harness.serving.workload import Workload, check_context, make_workload
from harness.training import fine_tuning
from pruning import compensation, score_file
from pruning.checkpoint import check_uniform_width, describe, fingerprint, read_config, shards
from pruning.export import export
from pruning.families import shape_of
from pruning.plan import load_plan, make_plan, save_plan
from recovery.trainer import Job
from tasks.registry import Task

_SEQUENCES = 128  # at a time, in an evaluation
_LEAST_SECONDS = 0.5  # of a timed pass: a look beside the evaluation; `harness bench` takes its time


def run(config: RunConfig, out: Path | None, fresh: bool, command: str | None = None) -> tuple[RunResult, Path]:
    """The main job; returns the result and the run directory."""
    return start(config, out, fresh, command, resolve, Run.run_all)


def recover(config: RunConfig, out: Path | None, fresh: bool, command: str | None = None) -> tuple[RunResult, Path]:
    """Fine-tunes a model as it is, or what pruning makes of it, and evaluates before and after."""
    return start(config, out, fresh, command, resolve_recovery, Run.run_all)


def start(
    config: RunConfig,
    out: Path | None,
    fresh: bool,
    command: str | None,
    resolver: Callable[[RunConfig, bool], ResolvedRun],
    work: Callable[[Run], RunResult],
) -> tuple[RunResult, Path]:
    """Refuses early what cannot be done, then does `work` in a locked run directory."""
    spec = resolver(config, True)
    model = registry.locate(config.model, spec.target.kind)
    if spec.arms:
        check_uniform_width(model)
    spec = resolver(config, has_chat_template(load_tokenizer(model)))
    folder = out or spec.default_out
    check_tools(spec.tasks)
    if spec.recovered:
        fine_tuning.check_dependencies(config.recovery, defaults_of(spec), spec.target)
    copies = len(spec.arms if spec.exported is None else spec.exported) + len(spec.recovered)
    check_disk(folder, copies * spec.shape.parameters * spec.shape.dtype_bytes)
    with locked(folder):
        directory = RunDirectory(folder)
        directory.open({**spec.settings, "fingerprint": fingerprint(model)}, fresh, command, environment_settings())
        with directory.working():
            write_text(folder / "config.yaml", config_yaml(config))
            return work(Run(spec, model, directory)), folder


def defaults_of(spec: ResolvedRun) -> fine_tuning.Defaults:
    return fine_tuning.Defaults(spec.shape, spec.target.kind, spec.config.preset, spec.config.seed)


def check_tools(tasks: Sequence[Task]) -> None:
    """Says before any work is done that model-written code cannot be run here, or that a package is missing."""
    from tasks import sandbox

    if any(task.metric == SIMILARITY for task in tasks):
        check_packages()
    if any(task.kind == "code" for task in tasks) and (reason := sandbox.available()):
        raise MeasurementError(reason)


class Run:
    """One run directory at work: the stages share the model's path and, once needed, the running engines."""

    def __init__(self, spec: ResolvedRun, model: Path, directory: RunDirectory) -> None:
        self.spec, self.model, self.directory = spec, model, directory
        self.path, self.config = directory.path, spec.config
        self.variants = {spec.base: describe(model)}  # in the order of the report
        self.identity = {spec.base: fingerprint(model)}  # what a variant's measurements hang on
        self.records: dict[
            str, dict[str, Any]
        ] = {}  # what pruning would write beside the weights, of variants that are not on disk

    def run_all(self) -> RunResult:
        if self.spec.served:
            check_context(self.model, self.workload)
        if self.spec.recovered:
            self.gather_training_data()  # first: data that is refused should not cost a scoring
        if self.spec.arms:
            self.score()
        for arm in self.spec.arms:
            self.plan(arm)
            self.export(arm)
        self.delete_second_moments()
        for name in self.spec.recovered:
            self.recover(name)
        self.measure()
        return self.collect()

    def delete_second_moments(self) -> None:
        """The second moments are large, and of no use once the plans are made."""
        shutil.rmtree(scoring.moments_folder(self._scores), ignore_errors=True)

    @property
    def _scores(self) -> Path:
        return self.path / "scores.safetensors"

    @property
    def _calibration(self) -> Path:
        return self.path / "calibration.json"

    def _place(self, arm: Arm) -> Path:
        """Where an arm's plan and checkpoint lie: in the run directory itself where there is only one."""
        alone = len(self.spec.arms) == 1 and not self.spec.sweep
        return self.path if alone else self.path / "arms" / arm.name

    def score(self) -> None:
        spec = self.spec
        inputs = digest(
            [spec.settings, spec.score_request.metrics, spec.score_request.moments, fingerprint(self.model)]
        )
        with self.stage("score", inputs, [self._calibration, self._scores]) as work:
            if work:
                found = scoring.calibrate(self.model, spec.model, spec.target, spec.calibration_request)
                scoring.save_calibration(found, self._calibration)
                scoring.score_model(self.model, found, spec.score_request, self._scores)

    def plan(self, arm: Arm) -> Path:
        file = self._place(arm) / "plan.safetensors"
        outputs = [file, *([compensation.columns_file(file)] if arm.request.compensated else [])]
        with self.stage(
            f"plan {arm.name}", digest([self.directory.output_hash("score"), asdict(arm.request)]), outputs
        ) as work:
            if work:
                save_plan(make_plan(score_file.load(self._scores), arm.request), file)
                if arm.request.compensated:
                    calibration = scoring.load_calibration(self._calibration)
                    scoring.compensate_plan(self.model, calibration, self.spec.score_request, self._scores, file)
        return file

    def export(self, arm: Arm) -> None:
        """The checkpoint that an arm's plan makes."""
        file, out = self._place(arm) / "plan.safetensors", self._place(arm) / "checkpoint"
        made_of = self.identity.get(arm.name) or self.directory.output_hash(f"plan {arm.name}")
        with self.stage(f"export {arm.name}", made_of, [out]) as work:
            if work:
                plan = load_plan(file)
                title = f"Writing {arm.name}, width {plan.intermediate_size} -> {width_text(plan.widths)}"
                with stage(title, len(shards(self.model))) as advance:
                    export(self.model, plan, out, file, advance)
        self._register_checkpoint(arm.name, out, f"export {arm.name}")

    def _register_checkpoint(self, name: str, checkpoint: Path, by_stage: str) -> None:
        self.variants[name] = describe(checkpoint)
        self.identity.setdefault(name, self.directory.output_hash(by_stage))
        self.records.pop(name, None)

    def gather_training_data(self) -> None:
        folder, spec = self.path / "recovery" / "data", self.spec
        inputs = digest(
            [spec.settings, self.config.seed, fine_tuning.data_hash(self.config.recovery), fingerprint(self.model)]
        )
        with self.stage("recovery data", inputs, [folder]) as work:
            if work:
                fine_tuning.gather(self.model, spec.tasks, self.config.recovery, defaults_of(spec), folder, self.config)

    def recover(self, name: str) -> None:
        """The variant `name` fine-tuned, and its accuracy on the way."""
        place, out, new = self.path / "recovery" / name, self.path / "recovered" / name, recovered_name(name)
        data = self.path / "recovery" / "data"
        recipe = fine_tuning.recipe_for(self.config.recovery, defaults_of(self.spec), data)
        teacher = fine_tuning.original_of(self.model) if recipe.distill else None
        job = Job(
            folder=place.absolute(),
            model=self.variants[name].path.absolute(),
            data=data.absolute(),
            recipe=recipe,
            teacher=teacher,
        )
        inputs = digest([self.identity[name], self.directory.output_hash("recovery data"), recipe.hash])
        with self.stage(f"recover {name}", inputs, [out, place / "training.json"]) as work:
            if work:
                fine_tuning.recover(job, self.variants[name], out, self.config, inputs)
        with self.stage(f"curve {name}", self.directory.output_hash(f"recover {name}"), [place / "curve.json"]) as work:
            if work:
                points = fine_tuning.curve(job, lambda folder, step: self._point(folder, f"{new}-step-{step}"))
                write_json(place / "curve.json", points)
        shutil.rmtree(job.states, ignore_errors=True)
        self._register_checkpoint(new, out, f"recover {name}")

    def _point(self, checkpoint: Path, name: str) -> EvalResult:
        """The target's accuracy of a checkpoint on the way; its samples are not kept."""
        limit = min(self.config.limit or fine_tuning.CURVE_ITEMS, fine_tuning.CURVE_ITEMS)
        parallel = self.config.sweep.tensor_parallel
        with engines_for(
            {name: checkpoint}, self.config.dtype, self.config.threads, self.context, tensor_parallel=parallel
        ) as engines:
            eval_spec = replace(
                self.eval_spec(engines.max_model_len),
                tasks=(self.spec.target,),
                limit=limit,
                items=self.spec.items[:limit],
            )
            found = self._evaluated(engines, name, eval_spec)[self.spec.target.name]
        shutil.rmtree(self.path / "samples" / name)
        return found

    def measure(self) -> None:
        """Evaluates every variant; those that are timed run side by side, the others one after the other."""
        served = {name: self.variants[name].path for name in self.spec.served}
        if not fit_together(served):
            served = dict(list(served.items())[:2])
            say(f"only {' and '.join(served)} are timed side by side; the device has no room for more")
        with self._engines(served) as engines:
            for name in served:
                self.evaluate(name, engines)
            if served:
                self.serve(engines, list(served))
        for name in [name for name in self.variants if name not in served]:
            self.evaluate_alone(name)

    def evaluate_alone(self, name: str) -> None:
        with self._engines({name: self.variants[name].path}) as engines:
            self.evaluate(name, engines)

    def _engines(self, paths: dict[str, Path]) -> Engines:
        sequences, parallel = max(_SEQUENCES, *self.config.concurrency), self.config.sweep.tensor_parallel
        return engines_for(paths, self.config.dtype, self.config.threads, self.context, sequences, parallel)

    @functools.cached_property
    def context(self) -> int:
        """Enough for the tasks, and for the requests that are timed."""
        return max(context_length(self.model, self.spec.tasks), self.workload.context if self.spec.served else 0)

    @functools.cached_property
    def workload(self) -> Workload:
        return replace(make_workload(self.config, self.model, self.spec.target), least_seconds=_LEAST_SECONDS)

    def evaluate(self, name: str, engines: Engines) -> None:
        samples, result = self.path / "samples" / name, self.path / "eval" / f"{name}.json"
        with self.stage(f"eval {name}", self.identity[name], [samples, result]) as work:
            if work:
                found = self._evaluated(engines, name, self.eval_spec(engines.max_model_len))
                write_json(result, {task: asdict(value) for task, value in found.items()})

    def eval_spec(self, max_model_len: int) -> EvalSpec:
        return EvalSpec(
            model_name=self.spec.model,
            tasks=self.spec.tasks,
            max_model_len=max_model_len,
            chat=self.chat,
            limit=self.config.limit,
            items=self.spec.items,
        )

    def _evaluated(self, engines: Engines, name: str, eval_spec: EvalSpec) -> dict[str, EvalResult]:
        from harness.evaluation.evaluate import evaluate

        llm, reference = engines[name], None if name == self.spec.base else self.spec.base
        return evaluate(llm, eval_spec, VariantEval(self.path, name, fingerprint(engines.models[name]), reference))

    def serve(self, engines: Engines, names: list[str]) -> None:
        result, config, workload = self.path / "serving.json", self.config, self.workload
        with self.stage("serving", digest([self.identity[name] for name in names]), [result]) as work:
            if work:
                targets = offline_targets(engines, names, workload)
                passes = interleaved(
                    {name: s.round for name, s in targets.items()}, config.concurrency, config.repeats, workload
                )
                found, ratios = results(
                    {name: engines.models[name] for name in names}, targets, passes, config, workload, "offline"
                )
                save_serving(found, ratios, result)

    def collect(self) -> RunResult:
        return self.publish(self.result())

    def publish(self, result: RunResult) -> RunResult:
        """run.json and the reports."""
        from reports.build import write_reports

        write_run(result, self.path)
        write_reports(self.path)
        with suppress(OSError):  # of an evaluation that was not finished
            (self.path / "generations").rmdir()
        return result

    def result(self) -> RunResult:
        spec, calibration, neurons = self.spec, {}, None
        if arm := next((arm for arm in spec.arms if arm.name in self.variants), None):
            found = scoring.load_calibration(self._calibration)
            calibration = calibration_summary(found, arm.request.metric, self.config.general_weight)
            metrics = {arm.request.metric for arm in spec.arms if arm.request.metric}
            neurons = neuron_summary(self._scores, load_plan(self._place(arm) / "plan.safetensors"), metrics)
        rows = [self._row(name) for name in self.variants]
        return build_run(
            spec.model,
            spec.target.name,
            rows,
            self._comparisons(),
            calibration,
            neurons,
            self._recoveries(),
            self._serving[1],
            self.identity[spec.base],
            self.directory.command,
        )

    def _row(self, name: str) -> Variant:
        checkpoint = self.variants[name]
        record = self.records.get(name)
        row = variant(
            name, checkpoint, None if name == DENSE or record else os.path.relpath(checkpoint.path, self.path), record
        )
        serving = self._serving[0].get(name)
        before = next((b for b in self.spec.recovered if recovered_name(b) == name), None)
        training = self._training(before) if before else None
        return replace(row, eval=read_eval(self.path / "eval" / f"{name}.json"), serving=serving, training=training)

    @functools.cached_property
    def _serving(self) -> tuple[dict[str, ServingResult], list[SpeedRatio]]:
        file = self.path / "serving.json"
        return read_serving(file) if self.spec.served and file.exists() else ({}, [])

    def _training(self, before: str) -> TrainingResult:
        """With the curve's ends, on the same items as the points between them."""
        found, task = read_training(self.path / "recovery" / before), self.spec.target.name
        if not found.curve:
            return found
        n, after = found.curve[0].n, recovered_name(before)
        ends = [
            curve_end(self.path, v, task, n, *at) for v, at in ((before, (0, 0)), (after, (found.steps, found.tokens)))
        ]
        return replace(found, curve=(ends[0], *found.curve, ends[1]))

    def _comparisons(self) -> list[Comparison]:
        """Pruned against the base, recovered against what it was before and against the base fine-tuned the same
        way.
        """
        spec = self.spec
        pairs = [(spec.base, arm.name) for arm in spec.arms]
        pairs += [(name, recovered_name(name)) for name in spec.recovered]
        if spec.base in spec.recovered:
            pairs += [(recovered_name(spec.base), recovered_name(name)) for name in self._recovered_arms]
        pairs += [(spec.base, recovered_name(name)) for name in self._recovered_arms]
        made = [(before, after) for before, after in pairs if {before, after} <= self.variants.keys()]
        return [
            compare(self.path, before, after, task.name, task.metric) for before, after in made for task in spec.tasks
        ]

    @property
    def _recovered_arms(self) -> list[str]:
        return [
            name for name in self.spec.recovered if name != self.spec.base and recovered_name(name) in self.variants
        ]

    def _recoveries(self) -> list[Recovery]:
        """Of every arm with a control, on the tasks that have right answers."""
        if recovered_name(self.spec.base) not in self.variants:
            return []
        control = recovered_name(self.spec.base)
        tasks = [task for task in self.spec.tasks if task.metric not in (*LIKELIHOOD_METRICS, SIMILARITY)]
        return [
            recovered_fraction(self.path, name, recovered_name(name), control, task.name)
            for name in self._recovered_arms
            for task in tasks
        ]

    @functools.cached_property
    def chat(self) -> bool:
        return has_chat_template(load_tokenizer(self.model))

    @contextmanager
    def stage(self, name: str, inputs: str, outputs: list[Path]) -> Iterator[bool]:
        """Yields whether there is work to do, and notes the stage as finished where there was."""
        if self.directory.finished(name, inputs):
            say(f"{name}: done before, skipped")
            yield False
            return
        self.directory.begin(name)
        yield True
        self.directory.finish(name, inputs, outputs)


def width_text(widths: Sequence[int]) -> str:
    return str(widths[0]) if len(set(widths)) == 1 else f"{min(widths)} to {max(widths)}"


def context_length(model: Path, tasks: Sequence[Task]) -> int:
    """Tokens of prompt and answer that the tasks need, within what the model can take."""
    return min(longest_context(model), max(task.max_new_tokens for task in tasks) + 1024)


def longest_context(model: Path, most: int = 4096) -> int:
    """What the model can take, up to what tasks ask for."""
    return min(most, shape_of(read_config(model)).max_position_embeddings)
