"""The stages in their order; each is skipped when it has run on the same inputs and its outputs are still there."""

from __future__ import annotations

import functools
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from harness import engine, models, scoring
from harness.config import RunConfig
from harness.engine import Engines
from harness.errors import MeasurementError, UsageError
from harness.progress import say, stage
from harness.results import build_run, calibration_summary, compare, neuron_summary, read_eval, read_serving, variant, write_run
from harness.scoring import CalibrationRequest, ScoreRequest
from harness.similarity import need_packages
from harness.statistics import SIMILARITY
from harness.store import RunDirectory, locked, need_disk, write_json
from harness.types import Checkpoint, ModelShape, PruningPlan, RunResult, digest
from pruning import compensation, score_file
from pruning.checkpoint import describe, fingerprint, need_one_width, read_config
from pruning.export import export
from pruning.families import shape_of
from pruning.plan import PlanRequest, check_request, choose_metric, default_alignment, load_plan, make_plan, pruned_width, save_plan
from tasks.registry import Task, find_task

DENSE = "dense"
_SHORTEST_PROMPT = 64


@dataclass(frozen=True)
class RunSpec:
    """A RunConfig with every default resolved, before any work is done."""

    config: RunConfig
    model: str
    tasks: tuple[Task, ...]  # the target first, then what else is evaluated
    shape: ModelShape
    plan_request: PlanRequest
    width: int

    @property
    def alignment(self) -> int:
        return self.plan_request.alignment

    @property
    def metric(self) -> str | None:
        return self.plan_request.metric

    @property
    def compensated(self) -> bool:
        return self.plan_request.compensated

    @property
    def target(self) -> Task:
        return self.tasks[0]

    @property
    def variant(self) -> str:
        """The pruned variant's name, such as selective-rms-0.2."""
        config = self.config
        parts = [
            config.method, self.metric, self._refit, "global" if config.allocation == "global" else None,
            f"{config.ratio:g}", f"seed{config.seed}" if config.method == "random" else None,
        ]  # fmt: skip
        return "-".join(part for part in parts if part)

    @property
    def _refit(self) -> str | None:
        return ("sequential" if self.config.sequential else "refit") if self.compensated else None

    @property
    def score_request(self) -> ScoreRequest:
        config = self.config
        metrics = (self.metric,) if self.metric else ()
        return ScoreRequest(metrics, self.compensated and not config.sequential, config.retain, config.threads, config.sequential)

    @property
    def calibration_request(self) -> CalibrationRequest:
        config = self.config
        return CalibrationRequest(
            config.calibration_samples, config.tokens, config.answers == "generated", config.frame == "raw", config.threads
        )

    @property
    def settings(self) -> dict[str, Any]:
        """What a run directory is bound to."""
        named = {
            "model": self.model,
            "task": [task.name for task in self.tasks],
            "align": self.alignment,
            "metric": self.metric,
            "compensate": self.compensated,
        }
        return {**json.loads(self.config.model_dump_json()), **named}

    @property
    def default_out(self) -> Path:
        model = Path(self.config.model).name.lower()
        return Path("runs") / f"{model}-{self.target.name}-{self.variant}"


def resolve(config: RunConfig, chat: bool = True) -> RunSpec:
    """Checks everything that can be checked without weights; raises UsageError for the first thing that is wrong.

    `chat`: whether the model has a chat template, which decides what a family name like gsm8k means.
    """
    chosen = [find_task(name, chat) for name in task_names(config)]
    if len(chosen) == 1:
        chosen += [find_task(name, chat) for name in chosen[0].off_target]
    kind = chosen[0].kind
    shape = models.shape(config.model, kind)
    check_tasks(chosen, shape)
    request = plan_request(config, shape.intermediate_size)
    width = pruned_width(shape.intermediate_size, config.ratio, request.alignment)
    spec = RunSpec(config, models.model_id(config.model, kind), tuple(chosen), shape, request, width)
    check_request(request, shape.intermediate_size)
    return spec


def plan_request(config: RunConfig, intermediate_size: int) -> PlanRequest:
    metric, compensated = choose_metric(config.method, config.metric, config.compensate)
    return PlanRequest(
        config.ratio, config.method, metric, config.seed, config.align or default_alignment(intermediate_size), config.allocation,
        config.min_width, config.protect, compensated, config.sequential,
    )  # fmt: skip


def task_names(config: RunConfig) -> tuple[str, ...]:
    """The tasks asked for, else what the model's alias is for."""
    alias = models.find_model(config.model)
    return config.task or ((alias.task,) if alias else ("gsm8k",))


def check_tasks(tasks: Sequence[Task], shape: ModelShape) -> None:
    """Raises UsageError where an answer does not fit the model's context."""
    for task in tasks:
        if task.generates and shape.max_position_embeddings < task.max_new_tokens + _SHORTEST_PROMPT:
            raise UsageError(
                f"{task.name} asks for answers of {task.max_new_tokens} tokens and the model's context is "
                f"{shape.max_position_embeddings}; choose another --task or model"
            )


def run(config: RunConfig, out: Path | None, fresh: bool) -> tuple[RunResult, Path]:
    """The main job; returns the result and the run directory."""
    spec = resolve(config)
    engine.prepare_environment(config.threads)
    model = models.locate(config.model, spec.target.kind)
    need_one_width(model)
    spec = resolve(config, scoring.has_chat_template(scoring.load_tokenizer(model)))
    folder = out or spec.default_out
    need_tools(spec.tasks)
    need_disk(folder, spec.shape.pruned_parameters((spec.width,) * spec.shape.num_hidden_layers) * spec.shape.dtype_bytes)
    with locked(folder):
        directory = RunDirectory(folder)
        directory.open({**spec.settings, "fingerprint": fingerprint(model)}, fresh)
        write_json(folder / "config.json", json.loads(config.model_dump_json()))
        return Run(spec, model, directory).everything(), folder


def need_tools(tasks: Sequence[Task]) -> None:
    """Says before any work is done that model-written code cannot be run here, or that a package is missing."""
    from tasks import sandbox

    if any(task.metric == SIMILARITY for task in tasks):
        need_packages()
    if any(task.kind == "code" for task in tasks) and (reason := sandbox.available()):
        raise MeasurementError(reason)


class Run:
    """One run directory at work: the stages share the model's path and, once needed, the running engines."""

    def __init__(self, spec: RunSpec, model: Path, directory: RunDirectory) -> None:
        self.spec, self.model, self.directory = spec, model, directory
        self.path = directory.path

    def everything(self) -> RunResult:
        plan = self.plan()
        checkpoints = {DENSE: describe(self.model), self.spec.variant: self.export(plan)}
        paths = {name: checkpoint.path for name, checkpoint in checkpoints.items()}
        with Engines(paths, self.spec.config.dtype, self.spec.config.threads, context_length(self.model, self.spec.tasks)) as engines:
            for name in checkpoints:
                self.evaluate(name, engines)
            self.serve(checkpoints, engines)
        return self.collect(checkpoints)

    def plan(self) -> PruningPlan:
        calibration, scores, plan = (self.path / name for name in ("calibration.json", "scores.safetensors", "plan.safetensors"))
        spec = self.spec
        with self._stage("score", digest([spec.settings, fingerprint(self.model)]), [calibration, scores]) as work:
            if work:
                found = scoring.calibrate(self.model, spec.model, spec.target, spec.calibration_request)
                scoring.save_calibration(found, calibration)
                scoring.score_model(self.model, found, spec.score_request, scores)
        outputs = [plan, *([compensation.columns_file(plan)] if spec.compensated else [])]
        with self._stage("plan", self.directory.output_hash("score"), outputs) as work:
            if work:
                save_plan(make_plan(score_file.load(scores), spec.plan_request), plan)
                if spec.compensated:
                    scoring.compensate_plan(self.model, scoring.load_calibration(calibration), spec.score_request, scores, plan)
        shutil.rmtree(scoring.moments_folder(scores), ignore_errors=True)  # large, and of no use once the plan is made
        return load_plan(plan)

    def export(self, plan: PruningPlan) -> Checkpoint:
        out = self.path / "checkpoint"
        with self._stage("export", self.directory.output_hash("plan"), [out]) as work:
            if work:
                with stage(f"Writing the checkpoint, width {plan.intermediate_size} -> {width_text(plan.widths)}"):
                    export(self.model, plan, out, self.path / "plan.safetensors")
        return describe(out)

    def evaluate(self, name: str, engines: Engines) -> None:
        from harness.evaluate import evaluate

        samples, result = self.path / "samples" / name, self.path / "eval" / f"{name}.json"
        with self._stage(f"eval {name}", self.directory.output_hash("export"), [samples, result]) as work:
            if work:
                llm = engines[name]
                titles = ", ".join(task.name for task in self.spec.tasks)
                with stage(f"Evaluating {name} on {titles}"):
                    found = evaluate(
                        llm, self.spec.model, self.spec.tasks, self.path, name, self.spec.config.limit, engines.max_model_len, self.chat,
                        identity=fingerprint(engines.models[name]), reference=None if name == DENSE else DENSE,
                    )  # fmt: skip
                write_json(result, {task: asdict(value) for task, value in found.items()})

    def serve(self, checkpoints: dict[str, Checkpoint], engines: Engines) -> None:
        from harness.serving import measure

        result, config = self.path / "serving.json", self.spec.config
        with self._stage("serving", self.directory.output_hash("export"), [result]) as work:
            if work:
                prompts = scoring.task_prompts(self.model, self.spec.target, max(config.concurrency))
                weights = {name: checkpoint.weight_bytes for name, checkpoint in checkpoints.items()}
                running = {name: engines[name] for name in checkpoints}
                with stage("Measuring throughput and latency, dense and pruned in turns"):
                    found = measure(running, prompts, config.concurrency, config.repeats, config.output_tokens, weights)
                write_json(result, {name: asdict(value) for name, value in found.items()})

    def collect(self, checkpoints: dict[str, Checkpoint]) -> RunResult:
        from reports.build import write_reports

        servings = read_serving(self.path / "serving.json")
        variants = []
        for name, checkpoint in checkpoints.items():
            relative = None if name == DENSE else os.path.relpath(checkpoint.path, self.path)
            row = variant(name, checkpoint, relative)
            variants.append(replace(row, eval=read_eval(self.path / "eval" / f"{name}.json"), serving=servings[name]))
        calibration = calibration_summary(
            scoring.load_calibration(self.path / "calibration.json"), self.spec.metric, self.spec.config.retain
        )
        comparisons = [compare(self.path, DENSE, self.spec.variant, task.name, task.metric) for task in self.spec.tasks]
        neurons = neuron_summary(self.path / "scores.safetensors", load_plan(self.path / "plan.safetensors"))
        result = build_run(self.spec.model, self.spec.target.name, variants, comparisons, calibration, neurons)
        write_run(result, self.path)
        write_reports(self.path)
        return result

    @functools.cached_property
    def chat(self) -> bool:
        return scoring.has_chat_template(scoring.load_tokenizer(self.model))

    @contextmanager
    def _stage(self, name: str, inputs: str, outputs: list[Path]) -> Iterator[bool]:
        """Yields whether there is work to do, and notes the stage as finished where there was."""
        if self.directory.finished(name, inputs):
            say(f"{name}: done before, skipped")
            yield False
            return
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
