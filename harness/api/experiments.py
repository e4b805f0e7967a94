"""Whole experiments: runs, sweeps, fine-tuning, dissociation, and their results read again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.config.settings import RunConfig
from harness.core.types.pruning import Method
from harness.core.types.run import RunResult
from harness.engine.library_settings import import_effects, library_settings
from harness.pipeline.python_arguments import Config, Model, Names, Place, out_path, settings_from
from harness.sweeps.dissociation import DISSOCIATE_DEFAULTS

AUTO = "auto"  # as `out`: the folder below ./runs that the command line takes


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
        methods: random, reverse, its control matched, or a metric for selective pruning. Default: S, best, random,
            reverse, matched.
        ratios: Fractions of FFN neurons to remove. Default: the preset's, else 0.05 to 0.35 in steps of 0.05.
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
