"""One stage at a time, on the same code as a run: score, plan, prune, eval, bench and serve."""

from __future__ import annotations

import itertools
import os
import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from harness.config.settings import RunConfig, environment_settings
from harness.core import out_place
from harness.core.chat import ChatFormat
from harness.core.errors import UnsupportedModelError, UsageError
from harness.core.files import check_replaceable_arrays
from harness.core.labels import asked_and_done
from harness.core.progress import progress_bar, say
from harness.core.run_directory import RunDirectory, check_run_directory, locked
from harness.core.secrets import redacted
from harness.core.types.calibration import CalibrationSet
from harness.core.types.engine import EngineFacts
from harness.core.types.evaluation import EvalResult, GroupResult
from harness.core.types.pruning import NeuronScores, PruningPlan
from harness.core.types.run import RunResult, Variant
from harness.core.types.serving import SpeedRatio
from harness.engine.devices import check_divides, check_gpus, device_name
from harness.engine.engine_facts import engine_facts
from harness.engine.engine_settings import engine_settings
from harness.engine.library_settings import library_settings
from harness.engine.memory_budget import STEP_OPTIONS, EngineSettings, with_kv_cache
from harness.engine.vllm_engine import engines_for
from harness.evaluation.evaluate import evaluate
from harness.evaluation.lm_eval_requests import EvalSpec, VariantEval
from harness.evaluation.lm_eval_tasks import evaluate_builtin, find_builtin
from harness.models import registry
from harness.models.recorded import locate_recorded
from harness.models.skeleton import check_buildable
from harness.models.tokenizer import load_chat
from harness.pipeline import scoring
from harness.pipeline.arms import plan_request
from harness.pipeline.data_check import check_data, check_tools
from harness.pipeline.named_tasks import check_metric_choices, check_not_hidden, named_task, task_names
from harness.pipeline.resolve import check_tasks, resolve
from harness.pipeline.run_context import context_length, longest_context
from harness.pipeline.run_json import build_run, publish, variant
from harness.pipeline.scoring import ScoreRequest
from harness.serving import server
from harness.serving.bench import bench, online_engine, serving_result
from harness.serving.lora_adapters import check_adapters
from harness.serving.vllm_options import allowed_options, given_options
from harness.serving.workload import Workload, check_context, in_vocabulary_of, make_workload
from pruning import score_file
from pruning.checkpoint import ModelFolder
from pruning.plan import choose_metric, make_plan, real_ratio, why_rounded
from pruning.plan_file import save_plan
from pruning.structures import STRUCTURES
from tasks.lm_eval_task import metric_choices
from tasks.registry import find_task, is_task

_Model = TypeVar("_Model")
_PLAN = {"scores_hash", "ratio"}  # in the metadata of a plan


def score(config: RunConfig, out: Path, metrics: Sequence[str] = ()) -> NeuronScores:
    """Scores one model's FFN neurons on one task.

    Args:
        config: Model, task, and what the calibration prompts are.
        out: The scores.safetensors to write; the calibration lies beside it, and the layers' second moments where a
            metric or the re-fitting needs them.
        metrics: What `plan` may be asked for later, "best" among them; empty: the metric of `config`.

    Returns:
        The scores of these metrics and of those that come with every scoring.
    """
    scoring.check_scores_file(out)
    spec = resolve(config, off_target=False)
    check_data(spec, evaluated=False)
    request = _score_request(metrics, spec.score_request)
    model = registry.locate(config.model, spec.target.kind)
    check_buildable(model)
    spec = resolve(config, load_chat(model, config.template_args)[1] is not None, off_target=False)
    scoring.check_room(model, spec.calibration_request.samples, out)
    scoring.placement_of(model.shape, spec.calibration_request.samples, request.needs)
    calibration = scoring.calibrate(model, spec.model, spec.target, spec.calibration_request)
    with _nothing_left(out):
        scoring.score_model(model, calibration, request, out)
    scoring.save_calibration(calibration, scoring.calibration_file(out))
    return score_file.load(out)


@contextmanager
def _nothing_left(out: Path) -> Iterator[None]:
    """Removes what lies beside scores that were refused: a scoring that is resumed would be refused again."""
    moments = scoring.moments_folder(out)
    older = moments.exists()
    try:
        yield
    except (UsageError, UnsupportedModelError):
        shutil.rmtree(scoring.partial_folder(out), ignore_errors=True)
        if not older:
            shutil.rmtree(moments, ignore_errors=True)
        raise


def _score_request(metrics: Sequence[str], request: ScoreRequest) -> ScoreRequest:
    chosen = [choose_metric("selective", metric, None, request.structure) for metric in metrics]
    if not chosen:
        return request
    names = tuple(sorted({str(name) for name, _ in chosen}))
    return replace(request, metrics=names, moments=request.moments or any(refit for _, refit in chosen))


def plan(scores: NeuronScores, config: RunConfig, out: Path) -> PruningPlan:
    """Decides which neurons stay, and re-fits the columns that remain where the metric or `config` asks for it.

    Args:
        scores: As read from their file.
        config: Ratio, method, metric, seed and what else concerns the plan.
        out: The plan.safetensors to write; re-fitted columns lie beside it.

    Raises:
        UsageError: The scores lack the metric, or what re-fitting needs.
    """
    out_place.check_file(out)
    check_replaceable_arrays(out, _PLAN, "plan")
    layers, units = next(iter(scores.scores.values())).shape
    whole = units if STRUCTURES[scores.structure].in_layers else layers
    request = plan_request(config.model_copy(update={"structure": scores.structure}), whole)
    if line := asked_and_done([(request.ratio, real_ratio(request, whole))], why_rounded(request, whole)):
        say(line)
    made = replace(make_plan(scores, request), path=out)
    scored = _scored(scores) if request.compensated else None  # before a plan is written that needs columns beside it
    save_plan(made, out)
    if scored:
        with library_settings(config.threads):
            _compensate(*scored, scores, out, config)
    return made


def _scored(loaded: NeuronScores) -> tuple[ModelFolder, CalibrationSet]:
    """The model that was scored, by the name that the scores carry, and the prompts that were scored."""
    scores = loaded.path
    if scores is None:
        raise UsageError("these scores are in no file, and re-fitting needs what lies beside it; score the model again")
    file = scoring.calibration_file(scores)
    calibration = scoring.load_calibration(file) if file.exists() else None
    if calibration is None or calibration.hash != loaded.calibration_hash:
        raise UsageError(f"{file} is missing or not what {scores} was made from; score again, or give --no-compensate")
    return locate_recorded(loaded.model, loaded.model_kind, loaded.model_hash, scores), calibration


def _compensate(
    model: ModelFolder, calibration: CalibrationSet, loaded: NeuronScores, out: Path, config: RunConfig
) -> None:
    request = ScoreRequest(
        metrics=(),
        moments=True,
        general_weight=loaded.general_weight,
        threads=config.threads,
        sequential=config.sequential,
    )
    scoring.compensate_plan(model, calibration, request, Path(str(loaded.path)), out)


def evaluate_checkpoint(
    config: RunConfig,
    out: Path,
    fresh: bool,
    command: str | None = None,
) -> RunResult:
    """Evaluates one model, dense or pruned, on the tasks of `config`; a name that is none of ours is a task, group or
    leaderboard of its include_path or of lm-eval.
    """
    check_run_directory(out)
    names = task_names(config)
    ours = [name for name in names if is_task(name)]
    theirs = [name for name in names if name not in ours]
    for name in ours:
        check_not_hidden(name, config.include_path)
    choices = metric_choices(config.metric_of)
    if wrong := [name for name in choices if name in ours]:
        raise UsageError(f"--metric-of: {wrong[0]} is not a task of lm-eval's own; it has one metric")
    check_gpus(config.tensor_parallel)
    builtin = find_builtin(theirs, config.include_path, choices) if theirs else None
    model = registry.locate(config.model, find_task(ours[0]).kind if ours else "general")
    check_divides(config.model, model.shape, model.widths, config.tensor_parallel)
    check_buildable(model)
    chat = load_chat(model, config.template_args)[1]
    tasks = [find_task(name, chat is not None) for name in ours]
    check_tasks(tasks, model.shape, config)
    check_tools(tasks)
    row = _row(config.model, model, out)
    with _opened("evaluation", out, config, [model], fresh, command) as directory:
        longest = longest_context(model) if theirs else context_length(model, tasks)
        with engines_for({row.name: model}, engine_settings(config, longest)) as engines:
            llm = engines[row.name]
            results: dict[str, EvalResult] = {}
            groups: Mapping[str, GroupResult] = {}
            eval_spec = EvalSpec(
                model_name=config.model, tasks=tuple(tasks), max_model_len=longest, chat=chat, limit=config.limit
            )
            variant_eval = VariantEval(out, row.name, model.fingerprint)
            if builtin:
                with progress_bar(f"Evaluating {row.name} on {', '.join(theirs)}"):
                    found = evaluate_builtin(llm, builtin, eval_spec, variant_eval)
                results, groups = dict(found.eval), found.groups
            if ours:
                results |= evaluate(llm, eval_spec, variant_eval)
            engine = engine_facts(llm, config.engine_arg)
        first = tasks[0].name if names[0] in ours else next(iter(results))
        return _finish(directory, config.model, first, [replace(row, eval=results, groups=groups)], chat, engine=engine)


def bench_checkpoints(
    config: RunConfig,
    names: Sequence[str],
    out: Path,
    fresh: bool,
    online: bool = False,
    command: str | None = None,
) -> RunResult:
    """Throughput, latency and memory of several models on the same requests, interleaved.

    Args:
        names: Models; one that is named twice shows what noise does.
        online: Ask vLLM's servers over HTTP rather than engines of this process.

    Raises:
        UsageError: A model cannot take the requests.
        MeasurementError: An engine gave shorter answers than requested.
    """
    check_run_directory(out)
    check_gpus(config.tensor_parallel)
    check_metric_choices(config)
    task = named_task(config, task_names(config)[0])
    found = [registry.locate(name, task.kind) for name in names]
    models = apart([(row_name(name), model) for name, model in zip(names, found, strict=True)])
    given = dict(zip(models, names, strict=True))
    for name, model in models.items():
        check_buildable(model)
        check_divides(name, model.shape, model.widths, config.tensor_parallel)
    first = next(iter(models.values()))
    chat = None if config.input_tokens else load_chat(first, config.template_args)[1]
    rows = {name: replace(_row(given[name], model, out), name=name) for name, model in models.items()}
    with _opened("measuring", out, config, list(models.values()), fresh, command, online=online) as directory:
        workload = make_workload(config, first, task)
        workloads = {name: in_vocabulary_of(model, workload, first) for name, model in models.items()}
        for name, model in models.items():
            check_context(model, workloads[name])
        serving, ratios = bench(models, config, workloads, out, online)
        measured = [replace(row, serving=serving[name]) for name, row in rows.items()]
        engine = next(iter(serving.values())).engine
        return _finish(directory, names[0], task.name, measured, chat, ratios, engine)


@contextmanager
def serving_checkpoint(
    config: RunConfig, options: server.ServerOptions, out: Path, fresh: bool, command: str | None = None
) -> Iterator[server.Server]:
    """vLLM's server on one checkpoint, stopped on leaving.

    Args:
        config: model, dtype, threads.
        options: the address, and what goes to vLLM.
        out: the run directory; run.json there says how much memory the server takes.
        fresh: overwrite what is in the run directory.
        command: the command line, for run.json.

    Yields:
        The server, ready for requests.

    Raises:
        UsageError: the address cannot be used, or one of vLLM's own options is not allowed.
        MeasurementError: the server does not start.
    """
    model = _served_model(config, options, out)
    command = command and redacted(command, options.address.api_key)
    row, settings = _row(config.model, model, out), _server_settings(config, model, options)
    with (
        library_settings(config.threads),
        _opened("serving", out, config, [model], fresh, command) as directory,
        _started(model, row.name, settings, options, out / "server.log") as running,
    ):
        serving = serving_result(online_engine(running, model, settings, options.extra), (), Workload("none", (), 0))
        forecast = {} if options.extra else serving.forecast  # the formulas do not know vLLM's own options
        measured = replace(row, serving=replace(serving, prompts=None, forecast=forecast))
        _finish(directory, config.model, task_names(config)[0], [measured], None, (), serving.engine)
        yield running


def _served_model(config: RunConfig, options: server.ServerOptions, out: Path) -> ModelFolder:
    """The model, after every check that comes before the run directory is changed."""
    allowed = allowed_options(options.extra)  # before a model is looked for
    server.check_address(options.address)
    check_run_directory(out)
    check_gpus(config.tensor_parallel)
    model = registry.locate(config.model, find_task(task_names(config)[0]).kind)
    check_divides(config.model, model.shape, model.widths, config.tensor_parallel)
    check_adapters(model, allowed)
    if (options.max_model_len or 0) > model.shape.max_position_embeddings:
        raise UsageError(
            f"--max-model-len {options.max_model_len} is more than the {model.shape.max_position_embeddings} tokens "
            f"that {config.model} can take"
        )
    return model


def _server_settings(config: RunConfig, model: ModelFolder, options: server.ServerOptions) -> EngineSettings:
    """On a GPU the cache takes what vLLM finds free; on a CPU as much as all sequences need."""
    on_gpu = device_name() == "cuda"
    longest = options.max_model_len or (model.shape.max_position_embeddings if on_gpu else longest_context(model))
    settings = engine_settings(config, longest)
    if on_gpu:
        return replace(settings, kv_cache_bytes=None)
    own = given_options(allowed_options(options.extra))
    return with_kv_cache(model, replace(settings, whole_prompts=STEP_OPTIONS.isdisjoint(own)))  # for clients' seeds


@contextmanager
def _started(
    model: ModelFolder, name: str, settings: EngineSettings, options: server.ServerOptions, log: Path
) -> Iterator[server.Server]:
    """The server once it is ready; its command line is said first."""
    say(shlex.join(server.command(model, name, settings, options.address, options.extra)))
    with ExitStack() as stack:
        with progress_bar("Starting vLLM's server"):
            running = stack.enter_context(server.running(model, name, settings, options.address, log, options.extra))
        yield running


def apart(named: Sequence[tuple[str, _Model]]) -> dict[str, _Model]:
    """A name that is given again gets the next free number."""
    models: dict[str, _Model] = {}
    for name, model in named:
        candidates = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
        models[next(candidate for candidate in candidates if candidate not in models)] = model
    return models


def row_name(name: str) -> str:
    """A path's last two parts where the last says little, as in runs/x/checkpoint."""
    path = Path(name).resolve() if Path(name).is_dir() else Path(name)
    return f"{path.parent.name}-{path.name}" if path.name == "checkpoint" else path.name


def _row(name: str, model: ModelFolder, out: Path) -> Variant:
    return variant(row_name(name), model, os.path.relpath(model.path, out) if Path(name).is_dir() else None)


@contextmanager
def _opened(
    what: str,
    out: Path,
    config: RunConfig,
    models: Sequence[ModelFolder],
    fresh: bool,
    command: str | None,
    **more: Any,
) -> Iterator[RunDirectory]:
    """Opens and locks the run directory, and records how the work in it ends."""
    settings = {**config.model_dump(mode="json"), **more, "fingerprints": [model.fingerprint for model in models]}
    with locked(out):
        directory = RunDirectory(out)
        directory.open(settings, fresh, command, environment_settings())
        with directory.working():
            directory.begin(what)
            yield directory


def _finish(
    directory: RunDirectory,
    model: str,
    task: str,
    rows: Sequence[Variant],
    chat: ChatFormat | None,
    ratios: Sequence[SpeedRatio] = (),
    engine: EngineFacts | None = None,
) -> RunResult:
    name = registry.model_id(model, find_task(task).kind if is_task(task) else "general")
    built = build_run(name, task, rows, directory.command, chat)
    result = replace(built, speed_ratios=tuple(ratios), engine=engine)
    publish(result, directory.path)
    return result
