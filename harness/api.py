"""The Python API: `import harness`, then `harness.run(...)` or one stage at a time; the command line calls the same.

Models are aliases (`harness models`), Hub ids, paths, or what `prune` returned; scores and plans are what the stage
before returned, or their files. Settings that are not named here are given as keywords too: they are the fields of
`harness.config.settings.RunConfig`, those of `recovery` and `sweep` by their bare names. One that is not given comes
from HARNESS_<FIELD> in the environment, then from the default, as on the command line. Keywords that several share:

    out: the file or the run directory to write. None: in a temporary folder that is deleted when the process ends.
    fresh: start over, rather than resume what is in the run directory.
    config: settings as a RunConfig or a YAML file; keywords win.
    command: the command line, for run.json; None from Python.
    settings: any further field, as include_path="my_tasks", preset="paper", threads=4, steps=300 or workers=2.

Errors are HarnessErrors (`harness.core.errors`): UsageError for a wrong argument, before any work; MeasurementError and
StorageError for what failed later. After a call the process is as it was (`harness.engine.library_settings`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from harness.config.settings import RunConfig
from harness.core.types.evaluation import EvalResult
from harness.core.types.pruning import Method, NeuronScores, PruningPlan
from harness.core.types.run import RunResult
from harness.engine.engine_settings import engine_settings
from harness.engine.library_settings import import_effects, library_settings
from harness.pipeline.python_arguments import Config, Model, Place, model_name, out_path, settings_from
from harness.serving import BENCH_DEFAULTS
from harness.sweeps.dissociation import DISSOCIATE_DEFAULTS
from pruning.checkpoint import ModelFolder

Names = str | Sequence[str]
AUTO = "auto"  # as `out`: the folder below ./runs that the command line takes


@import_effects()
def score(
    model: Model | None = None,
    task: Names | None = None,
    *,
    metrics: Names = ("best",),
    out: Place = None,
    config: Config | None = None,
    **settings: Any,
) -> NeuronScores:
    """Scores every FFN neuron of a model on a task.

    Args:
        model: The dense model. Default: the embedded tiny-math.
        task: The task whose prompts are the target. Default: the one that the model's alias is for.
        metrics: What `plan` may be asked for later; those that need no more than activations always come along.
        out: The scores.safetensors to write; calibration and second moments lie beside it.

    Returns:
        metric -> float32 [layers, intermediate_size]; higher means more worth keeping.

    Raises:
        UsageError: A name that does not exist, or a setting that does not fit the model.

    Example: `scores = harness.score("tiny-math", task="mini_math", metrics=("smd",))`
    """
    from harness.pipeline import single_stage

    found = settings_from(config, {"model": model, "task": task, **settings})
    wanted = [metrics] if isinstance(metrics, str) else list(metrics)
    with library_settings(found.threads, found.trust_data):
        return single_stage.score(found, out_path(out, "scores.safetensors"), wanted)


@import_effects()
def plan(
    scores: NeuronScores | str | Path,
    ratio: float | None = None,
    *,
    method: Method | None = None,
    metric: str | None = None,
    out: Place = None,
    config: Config | None = None,
    **settings: Any,
) -> PruningPlan:
    """Decides which neurons stay in every layer.

    Args:
        scores: From `score`, or their file.
        ratio: Fraction of FFN neurons to remove, in [0, 1). Default: 0.2.
        method: selective, random or reverse. Default: selective.
        metric: The ranking. Default: best for selective, which also re-fits the columns that remain.
        out: The plan.safetensors to write.

    Returns:
        keep: one sorted int32 array of indices per layer.

    Raises:
        UsageError: The scores lack the metric, or the widths are impossible.

    Example: `plan = harness.plan(scores, ratio=0.2, metric="smd")`
    """
    from harness.pipeline import single_stage
    from pruning import score_file

    found = settings_from(config, {"ratio": ratio, "method": method, "metric": metric, **settings})
    loaded = scores if isinstance(scores, NeuronScores) else score_file.load(Path(scores))
    return single_stage.plan(loaded, found, out_path(out, "plan.safetensors"))


@import_effects()
def prune(
    model: Model, plan: PruningPlan | str | Path, out: Place = None, *, verify: bool = False, **settings: Any
) -> ModelFolder:
    """Writes the smaller checkpoint of a model, a folder that transformers and vLLM load.

    Args:
        model: The dense model that was scored.
        plan: From `plan`, or its file.
        out: The folder to write.
        verify: Compare it, in transformers and in vLLM, with the dense model whose other neurons are masked.
        settings: Of that comparison: threads, tensor_parallel and engine_arg.

    Returns:
        The checkpoint: its path, widths, parameters and weight_bytes.

    Raises:
        UsageError: The plan is another model's.
        MeasurementError: Logits or tokens differ by more than rounding.

    Example: `checkpoint = harness.prune("tiny-math", plan, out="checkpoint")`
    """
    from harness.pipeline.prune import prune as prune_model
    from pruning.plan_file import load_plan

    found = engine_settings(settings_from(None, settings, check_names=False))
    loaded = plan if isinstance(plan, PruningPlan) else load_plan(Path(plan))
    return prune_model(model_name(model), loaded, out_path(out, "checkpoint"), found if verify else None)[0]


@import_effects()
def evaluate(
    model: Model | None = None,
    tasks: Names | None = None,
    *,
    limit: int | None = None,
    out: Place = None,
    fresh: bool = False,
    config: Config | None = None,
    command: str | None = None,
    **settings: Any,
) -> dict[str, EvalResult]:
    """Evaluates one model, dense or pruned, through lm-eval on a vLLM engine.

    Args:
        model: Default: the embedded tiny-math.
        tasks: Ours (`harness tasks`), or any task, group or leaderboard of lm-eval.
        limit: Items per task. Default: all.
        out: Where the answers, run.json and the report are kept.

    Returns:
        task -> accuracy with its 95 % interval, and how often each kind of failure was seen.

    Raises:
        UsageError: A task that does not exist, or that does not fit the model's context.

    Example: `harness.evaluate(checkpoint, tasks=["mini_math"], limit=100)["mini_math"].value`
    """
    from harness.pipeline.single_stage import evaluate_checkpoint

    found = settings_from(config, {"model": model, "task": tasks, "limit": limit, **settings}, check_names=False)
    folder = out_path(out, "run")
    with library_settings(found.threads, found.trust_data):
        return dict(evaluate_checkpoint(found, folder, fresh, command).variants[0].eval)


@import_effects()
def bench(
    models: Model | Sequence[Model],
    task: str | None = None,
    *,
    online: bool = False,
    out: Place = None,
    fresh: bool = False,
    config: Config | None = None,
    command: str | None = None,
    **settings: Any,
) -> RunResult:
    """Times models side by side on the same requests: throughput, latency and memory.

    Args:
        models: One or more; ratios are against the first. The same model twice shows what noise does.
        task: Whose prompts are sent. Default: the one that the first model's alias is for.
        online: Over HTTP through vLLM's server, rather than within the process.
        settings: concurrency, repeats, output_tokens, input_tokens, requests, stop_at_eos, dtype, threads, engine_arg.

    Returns:
        variants[i].serving and speed_ratios.

    Raises:
        UsageError: Requests that do not fit a model's context.

    Example: `harness.bench(["tiny-math", checkpoint], concurrency=(1, 8)).speed_ratios`
    """
    from harness.pipeline.single_stage import bench_checkpoints

    names = [model_name(model) for model in (models if isinstance(models, list | tuple) else [cast(Model, models)])]
    found = settings_from(config, {"task": task, **settings}, BENCH_DEFAULTS).model_copy(update={"model": names[0]})
    folder = out_path(out, "run")
    with library_settings(found.threads):
        return replace(bench_checkpoints(found, names, folder, fresh, online, command), folder=folder)


@import_effects()
def run(
    model: Model | None = None,
    task: Names | None = None,
    *,
    ratio: float | None = None,
    method: Method | None = None,
    metric: str | None = None,
    limit: int | None = None,
    out: Place = None,
    fresh: bool = False,
    config: Config | None = None,
    command: str | None = None,
    **settings: Any,
) -> RunResult:
    """Scores, prunes, evaluates and times one model, as `harness run` does.

    With a goal in place of the ratio (max_loss, off_target_loss, params, fits, speedup) it searches the model that
    meets it.

    Args:
        model: The dense model. Default: the embedded tiny-math.
        task: The target task, or several, the target first. Default: the one that the model's alias is for.
        ratio: Fraction of FFN neurons to remove, in [0, 1). Default: 0.2.
        method: selective, random or reverse. Default: selective.
        metric: The ranking. Default: best.
        limit: Items per task. Default: all.
        out: "auto": ./runs/MODEL-TASK-VARIANT.

    Returns:
        What run.json holds; `folder` is the run directory, with checkpoint, answers and report. With a goal,
        `goal.found` names the model that meets it, None where none does.

    Raises:
        UsageError: A name that does not exist, or a setting that does not fit the model.
        MeasurementError: A stage failed; the same call resumes.

    Example: `result = harness.run("tiny-math", task="mini_math", ratio=0.2)`
    """
    from harness.pipeline.run import run as run_pipeline
    from harness.sweeps.goal.experiment import run_goal

    given = {"ratio": ratio, "method": method, "metric": metric, "limit": limit}
    found = settings_from(config, {"model": model, "task": task, **given, **settings})
    return _started(run_goal if found.goal.given else run_pipeline, found, out, fresh, command)


@import_effects()
def recover(
    model: Model | None = None,
    task: Names | None = None,
    *,
    arms: Names | None = None,
    ratio: float | None = None,
    out: Place = None,
    fresh: bool = False,
    config: Config | None = None,
    command: str | None = None,
    **settings: Any,
) -> RunResult:
    """Fine-tunes a checkpoint and evaluates it before and after, as `harness recover` does.

    Args:
        model: A dense model or a checkpoint. Default: the embedded tiny-math.
        task: The task whose training split is used. Default: the one that the model's alias is for.
        arms: Ways of pruning the model first: selective, random, reverse; dense: the model itself, the control.
        ratio: Fraction of FFN neurons to remove, with arms. Default: 0.2.
        out: "auto": ./runs/MODEL-TASK-recovered.

    Returns:
        What run.json holds; `recoveries` says how much of the loss came back.

    Raises:
        UsageError: A name that does not exist, or data that cannot be used.
        MeasurementError: The training failed; the same call resumes.

    Example: `harness.recover(checkpoint, task="mini_math", steps=300)`
    """
    from harness.pipeline.run import recover as recover_pipeline

    given = {"arms": arms, "ratio": ratio}
    found = settings_from(config, {"model": model, "task": task, **given, **settings})
    found = found.model_copy(update={"recover": True})
    return _started(recover_pipeline, found, out, fresh, command)


@import_effects()
def sweep(
    model: Model | None = None,
    task: Names | None = None,
    *,
    methods: Names | None = None,
    ratios: Sequence[float] | None = None,
    seeds: Sequence[int] | None = None,
    out: Place = None,
    fresh: bool = False,
    config: Config | None = None,
    command: str | None = None,
    **settings: Any,
) -> RunResult:
    """Methods x ratios x seeds on one model, as `harness sweep` does: curves, thresholds, and the claims judged.

    Args:
        model: The dense model. Default: the embedded tiny-math.
        task: The target task, or several, the target first. Default: the one that the model's alias is for.
        methods: random, reverse, or a metric for selective pruning. Default: S, best, random, reverse.
        ratios: Fractions of FFN neurons to remove. Default: by the model's width.
        seeds: Of random pruning. Default: 33, 42, 7.
        out: "auto": ./runs/sweep-MODEL-TASK.

    Returns:
        What run.json holds; `sweep.points` are the curves, `sweep.failed` the cells that failed.

    Raises:
        UsageError: A name that does not exist, or a setting that does not fit the model.
        MeasurementError: The dense model could not be evaluated.

    Example: `harness.sweep("tiny-math", methods=["smd", "random"], ratios=[0.1, 0.2]).sweep.points`
    """
    from harness.sweeps.experiment import sweep as sweep_experiment

    given = {"methods": methods, "ratios": ratios, "seeds": seeds}
    found = settings_from(config, {"model": model, "task": task, **given, **settings})
    return _started(sweep_experiment, found, out, fresh, command)


@import_effects()
def dissociate(
    model: Model | None = None,
    task: Names | None = None,
    *,
    out: Place = None,
    fresh: bool = False,
    config: Config | None = None,
    command: str | None = None,
    **settings: Any,
) -> RunResult:
    """Tests whether tasks have neurons of their own, as `harness dissociate` does.

    Args:
        task: Two tasks or more. Default: the model's, with its off-target tasks.
        out: "auto": ./runs/dissociate-MODEL.

    Returns:
        What run.json holds; `dissociation.explanations` are the verdicts.

    Raises:
        UsageError: A setting that does not fit the model, or fewer than two tasks.
        MeasurementError: The dense model could not be evaluated.

    Example: `harness.dissociate("tiny-math", limit=50).dissociation.explanations`
    """
    from harness.sweeps.dissociation.experiment import dissociate as dissociate_tasks

    found = settings_from(config, {"model": model, "task": task, **settings}, DISSOCIATE_DEFAULTS)
    return _started(dissociate_tasks, found, out, fresh, command)


@import_effects()
def load_run(path: str | Path) -> RunResult:
    """Reads a run directory, or its run.json, of any version.

    Args:
        path: The directory, or the file in it.

    Returns:
        What the run returned; `to_rows()` makes it a table.

    Raises:
        UsageError: There is no run.json that can be read.

    Example: `pandas.DataFrame(harness.load_run("runs/mine").to_rows())`
    """
    from harness.pipeline.run_json import load_run as load

    return load(Path(path))


def _started(work: Callable[..., tuple[RunResult, Path]], config: RunConfig, out: Place, *how: Any) -> RunResult:
    with library_settings(config.threads, config.trust_data):
        result, folder = work(config, None if out == AUTO else out_path(out, "run"), *how)
    return replace(result, folder=folder)
