"""lm-eval's own tasks, groups and leaderboards on our engine: passed through as they are, results in both formats."""

from __future__ import annotations

import difflib
import math
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from harness.core.errors import MeasurementError, UsageError, first_line
from harness.core.jsonl import write_rows
from harness.core.progress import progress_bar
from harness.core.statistics import wilson
from harness.core.types.evaluation import EvalResult, GroupResult, MetricValue
from harness.engine.generation_cache import GenerationCache
from harness.engine.lm_eval_model import ResponseCallbacks, make_language_model
from harness.evaluation.evaluate import save_lm_eval
from harness.evaluation.lm_eval_requests import EvalSpec, VariantEval, identity_of, lm_eval_caches
from harness.evaluation.samples import builtin_record, by_doc_id
from harness.evaluation.summary import summarise_failures
from tasks.lm_eval_files import check_files
from tasks.registry import FAMILY_NAMES, TASKS

_Z = 1.959963984540054
_BOOTSTRAPS = 100_000  # as lm-eval's own command: its standard errors of means need none


@dataclass(frozen=True)
class BuiltinTasks:
    """Tasks, groups or leaderboards of lm-eval by name, and the TaskManager that knows them.

    Attributes:
        metric_of: Task -> the figure that counts as its result: a metric, or a metric and a filter.
    """

    names: tuple[str, ...]
    manager: Any
    metric_of: Mapping[str, tuple[str, str | None]] = field(default_factory=dict)


@dataclass(frozen=True)
class BuiltinResults:
    """Results by task, and lm-eval's groups by name."""

    eval: Mapping[str, EvalResult]
    groups: Mapping[str, GroupResult]


def find_builtin(
    names: Sequence[str], include_path: Path | None, metric_of: Mapping[str, tuple[str, str | None]] | None = None
) -> BuiltinTasks:
    """Finds tasks among lm-eval's own and those in the folder `include_path`.

    Args:
        names: Tasks, groups or leaderboards.
        include_path: A folder with YAML files of the user's own.
        metric_of: As in BuiltinTasks. The tasks' data are read to see whether they have these metrics.

    Raises:
        UsageError: lm-eval does not know a name either, a file of that folder cannot be read, or a task has no such
            metric.
    """
    if include_path:
        check_files(include_path)
    with progress_bar("Reading lm-eval's task list"):
        try:
            manager = _task_manager(names, include_path)
        except Exception as error:  # of YAML, of its tags, of what the files import
            raise UsageError(f"lm-eval cannot read the files in {include_path} ({first_line(error)})") from error
    if unknown := sorted(set(names) - set(manager.all_tasks)):
        known = [*TASKS, *FAMILY_NAMES, *manager.all_tasks]
        near = difflib.get_close_matches(unknown[0], known, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else "see `harness tasks` and `lm_eval ls tasks`"
        raise UsageError(f"neither harness nor lm-eval has a task {unknown[0]!r}; {hint}")
    if metric_of:
        _check_metrics(_load(manager, names), metric_of)
    return BuiltinTasks(tuple(names), manager, metric_of or {})


def _task_manager(names: Sequence[str], include_path: Path | None) -> Any:
    """Knows lm-eval's own tasks only where the folder does not hold all of `names`: reading them takes seconds."""
    from lm_eval.tasks import TaskManager

    if include_path:
        alone = TaskManager(include_path=str(include_path), include_defaults=False)
        if set(names) <= set(alone.all_subtasks):
            return alone
    return TaskManager(include_path=str(include_path) if include_path else None)


def _load(manager: Any, names: Sequence[str]) -> Mapping[str, Any]:
    """The leaf tasks by name, with their data."""
    try:
        return dict(manager.load(list(names))["tasks"])
    except Exception as error:  # every data set and task has errors of its own
        raise MeasurementError(f"lm-eval cannot load {', '.join(names)}: {first_line(error)}") from error


def _check_metrics(tasks: Mapping[str, Any], metric_of: Mapping[str, tuple[str, str | None]]) -> None:
    for name, (metric, filter_name) in metric_of.items():
        if name not in tasks:
            raise UsageError(f"--metric-of: {name} is not among the tasks ({', '.join(tasks)})")
        config = tasks[name].dump_config()
        metrics, filters = _listed(config)
        if metric not in metrics or filter_name not in (None, *filters):
            raise UsageError(
                f"--metric-of: {name} has the metrics {', '.join(metrics)} and the filters {', '.join(filters)}"
            )


def _listed(config: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """The metrics and the filters of a task's configuration, in its order."""
    metrics = [getattr(each["metric"], "__name__", str(each["metric"])) for each in config.get("metric_list") or ()]
    return metrics, [str(each["name"]) for each in config.get("filter_list") or ({"name": "none"},)]


def evaluate_builtin(llm: Any, tasks: BuiltinTasks, eval_spec: EvalSpec, variant_eval: VariantEval) -> BuiltinResults:
    """Evaluates one variant on lm-eval's own tasks; a killed evaluation resumes from the generations on disk.

    Args:
        llm: A vLLM engine with the variant's weights.
        tasks: From find_builtin.
        eval_spec: Model name, context length, chat and limit; its tasks are not used.
        variant_eval: The run directory and the variant's name in it.

    Returns:
        One result per leaf task, and the groups.

    Raises:
        MeasurementError: lm-eval failed: a data set out of reach, or code that it would run itself.
    """
    started, names = time.perf_counter(), ", ".join(tasks.names)
    file = variant_eval.generations / "lm_eval.jsonl"
    with GenerationCache(file, identity_of(llm, variant_eval.identity)) as cache:
        raw = _simple_evaluate(llm, tasks, eval_spec, ResponseCallbacks(cache))
    if not raw or not raw["samples"]:
        raise MeasurementError(f"lm-eval returned no samples for {names}; run again with --debug")
    file.unlink(missing_ok=True)
    seconds = (time.perf_counter() - started) / len(raw["samples"])
    results = {task: _result(task, raw, tasks.metric_of.get(task), variant_eval, seconds) for task in raw["samples"]}
    template = str(llm.get_tokenizer().chat_template) if eval_spec.chat else None
    save_lm_eval({"": raw}, eval_spec.model_name, variant_eval.samples / "lm_eval", template)
    return BuiltinResults(results, dict(_groups(raw)))


def _simple_evaluate(llm: Any, tasks: BuiltinTasks, eval_spec: EvalSpec, callbacks: ResponseCallbacks) -> Any:
    from lm_eval import simple_evaluate

    model = make_language_model(llm, eval_spec.max_model_len, eval_spec.chat, callbacks)
    try:
        with lm_eval_caches():
            return simple_evaluate(
                model,
                tasks=list(tasks.names),
                task_manager=tasks.manager,
                limit=eval_spec.limit,
                apply_chat_template=eval_spec.chat is not None,
                log_samples=True,
                bootstrap_iters=_BOOTSTRAPS,
                verbosity="ERROR",
            )
    except Exception as error:  # every data set and task has errors of its own
        raise MeasurementError(f"lm-eval stopped on {', '.join(tasks.names)}: {first_line(error)}") from error


def _result(
    task: str,
    raw: Mapping[str, Any],
    wanted: tuple[str, str | None] | None,
    variant_eval: VariantEval,
    seconds: float,
) -> EvalResult:
    """lm-eval logs every item once for each filter; the figures and samples are those of the filter that counts."""
    metrics = _metrics(raw["results"][task])
    main = _main_metric(metrics, raw["configs"].get(task, {}), wanted)
    samples = by_doc_id([sample for sample in raw["samples"][task] if sample["filter"] == main.filter])
    per_item = [sample.get(main.metric) for sample in samples]
    records = [builtin_record(sample, of_item) for sample, of_item in zip(samples, per_item, strict=True)]
    path = variant_eval.samples / f"{task}.jsonl"
    write_rows(path, map(asdict, records))
    low, high = _interval(per_item, main.value, math.nan if main.stderr is None else main.stderr)
    return EvalResult(
        n=len(records),
        metric=main.metric,
        value=main.value,
        ci_low=low,
        ci_high=high,
        seconds=seconds,
        samples=str(path.relative_to(variant_eval.run)),
        filter=main.filter,
        metrics=metrics,
        **asdict(summarise_failures(records)),
    )


def _metrics(row: Mapping[str, Any]) -> tuple[MetricValue, ...]:
    """Every figure of a task or a group, in lm-eval's order."""
    found = []
    for key, value in row.items():
        metric, _, name = key.partition(",")
        if name and isinstance(value, int | float) and not metric.endswith("_stderr"):
            error = row.get(f"{metric}_stderr,{name}")
            found.append(MetricValue(metric, name, float(value), _finite(error)))
    if not found:
        raise MeasurementError(f"lm-eval gave no number among {', '.join(row)}")
    return tuple(found)


def _finite(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _main_metric(
    metrics: Sequence[MetricValue], config: Mapping[str, Any], wanted: tuple[str, str | None] | None
) -> MetricValue:
    """The one that was asked for, else the first metric and the first filter by the order of the task's YAML file."""
    names, filters = _listed(config)
    if wanted:
        names, filters = [wanted[0]], [wanted[1]] if wanted[1] else filters
    by_name = {(each.metric, each.filter): each for each in metrics}
    return next((by_name[pair] for pair in product(names, filters) if pair in by_name), metrics[0])


def _groups(raw: Mapping[str, Any]) -> Iterator[tuple[str, GroupResult]]:
    """Groups that lm-eval aggregates; one that only names its tasks has no figures."""
    for name, row in (raw.get("groups") or {}).items():
        tasks = tuple(_leaves(name, raw["group_subtasks"]))
        items = sum(raw["n-samples"][task]["effective"] for task in tasks)
        yield name, GroupResult(tasks, items, _metrics(row))


def _leaves(name: str, inside: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """The tasks of a group, of groups in it too."""
    for child in inside.get(name, ()):
        yield from _leaves(child, inside) if inside.get(child) else (child,)


def _interval(per_item: Sequence[Any], value: float, error: float) -> tuple[float | None, float | None]:
    """95 %: Wilson's where items are right or wrong, else normal, from the items or from lm-eval's standard error.

    Returns:
        Its ends; None where lm-eval gives no standard error.
    """
    if all(isinstance(v, bool | int | float) for v in per_item) and math.isclose(
        statistics.fmean(per_item), value, abs_tol=1e-9
    ):
        if {float(v) for v in per_item} <= {0.0, 1.0}:
            return wilson(round(sum(per_item)), len(per_item))
        error = statistics.stdev(per_item) / math.sqrt(len(per_item)) if len(per_item) > 1 else math.nan
    return (value - _Z * error, value + _Z * error) if math.isfinite(error) else (None, None)
