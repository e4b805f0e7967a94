"""One stage at a time: scores, plan, checkpoint, evaluation, timing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from harness.core.errors import UsageError
from harness.core.types.evaluation import EvalResult
from harness.core.types.pruning import Method, NeuronScores, PruningPlan
from harness.core.types.run import RunResult
from harness.engine.engine_settings import engine_settings
from harness.engine.library_settings import import_effects, library_settings
from harness.pipeline.python_arguments import Config, Model, Names, Place, model_name, out_path, settings_from
from harness.serving import BENCH_DEFAULTS
from pruning.checkpoint import ModelFolder


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
    model: Model,
    plan: PruningPlan | str | Path,
    out: Place = None,
    *,
    verify: bool = False,
    threads: int | None = None,
    tensor_parallel: int | None = None,
    engine_arg: Mapping[str, Any] | str | None = None,
) -> ModelFolder:
    """Writes the smaller checkpoint of a model, a folder that transformers and vLLM load.

    Args:
        model: The dense model that was scored.
        plan: From `plan`, or its file.
        out: The folder to write.
        verify: Compare it, in transformers and in vLLM, with the dense model whose other neurons are masked.
        threads, tensor_parallel, engine_arg: Settings of that comparison.

    Returns:
        The checkpoint: its path, widths, parameters and weight_bytes.

    Raises:
        UsageError: The plan is another model's, or a setting of the comparison is given without it.
        MeasurementError: Logits or tokens differ by more than rounding.

    Example: `checkpoint = harness.prune("tiny-math", plan, out="checkpoint")`
    """
    from harness.pipeline.prune import prune as prune_model
    from pruning.plan_file import load_plan

    given = {"threads": threads, "tensor_parallel": tensor_parallel, "engine_arg": engine_arg}
    if not verify and (unused := [name for name, value in given.items() if value is not None]):
        raise UsageError(f"argument {unused[0]} is a setting of verify=True; add it or leave this out")
    found = engine_settings(settings_from(None, given, check_names=False))
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
        settings: concurrency, repeats, output_tokens, input_tokens, requests, stop_at_eos, dtype, threads, engine_arg,
            trust_data.

    Returns:
        variants[i].serving and speed_ratios.

    Raises:
        UsageError: Requests that do not fit a model's context.

    Example: `harness.bench(["tiny-math", checkpoint], concurrency=(1, 8)).speed_ratios`
    """
    from harness.pipeline.single_stage import bench_checkpoints

    names = [model_name(model) for model in (models if isinstance(models, list | tuple) else [cast(Model, models)])]
    if not names:
        raise UsageError("there is no model to time; give one or more")
    found = settings_from(config, {"task": task, **settings}, BENCH_DEFAULTS).model_copy(update={"model": names[0]})
    folder = out_path(out, "run")
    with library_settings(found.threads, found.trust_data):
        return replace(bench_checkpoints(found, names, folder, fresh, online, command), folder=folder)
