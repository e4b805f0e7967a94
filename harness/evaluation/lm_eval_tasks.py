"""lm-eval's own tasks, groups and leaderboards on our engine: passed through as they are, results in both formats."""

from __future__ import annotations

import difflib
import math
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.core.bounded_read import compose_yaml, read_text
from harness.core.errors import MeasurementError, UsageError, first_line
from harness.core.jsonl import write_rows
from harness.core.progress import progress_bar
from harness.core.statistics import wilson
from harness.core.types.evaluation import EvalResult
from harness.engine.generation_cache import GenerationCache
from harness.engine.lm_eval_model import ResponseCallbacks, make_language_model
from harness.evaluation.evaluate import save_lm_eval
from harness.evaluation.lm_eval_requests import EvalSpec, VariantEval, identity_of, lm_eval_caches
from harness.evaluation.samples import builtin_record, by_doc_id
from harness.evaluation.summary import summarise_failures
from tasks.registry import FAMILY_NAMES, TASKS

_Z = 1.959963984540054


@dataclass(frozen=True)
class BuiltinTasks:
    """Tasks, groups or leaderboards of lm-eval by name, and the TaskManager that knows them."""

    names: tuple[str, ...]
    manager: Any


def find_builtin(names: Sequence[str], include_path: Path | None) -> BuiltinTasks:
    """Finds tasks among lm-eval's own and those in the folder `include_path`.

    Raises:
        UsageError: lm-eval does not know a name either, or a file of that folder cannot be read.
    """
    if include_path:
        _check_files(include_path)
    with progress_bar("Reading lm-eval's task list"):
        from lm_eval.tasks import TaskManager

        try:
            manager = TaskManager(include_path=str(include_path) if include_path else None)
        except Exception as error:  # of YAML, of its tags, of what the files import
            raise UsageError(f"lm-eval cannot read the files in {include_path} ({first_line(error)})") from error
    if unknown := sorted(set(names) - set(manager.all_tasks)):
        known = [*TASKS, *FAMILY_NAMES, *manager.all_tasks]
        near = difflib.get_close_matches(unknown[0], known, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else "see `harness tasks` and `lm_eval ls tasks`"
        raise UsageError(f"neither harness nor lm-eval has a task {unknown[0]!r}; {hint}")
    return BuiltinTasks(tuple(names), manager)


def _check_files(folder: Path) -> None:
    """Raises UsageError for a YAML file that lm-eval would read without end, also for one that another includes."""
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder; give the one with your lm-eval YAML files")
    waiting, seen = sorted(folder.glob("**/*.yaml")), set[Path]()
    while waiting:
        file = waiting.pop()
        if file in seen:
            continue
        seen.add(file)
        waiting += [file.parent / name for name in _included(file)]


def _included(file: Path) -> list[str]:
    """The files that a task's YAML file includes; raises UsageError where it cannot be read."""
    import yaml

    try:
        root = compose_yaml(read_text(file))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UsageError(f"{file} cannot be read as YAML ({first_line(error)})") from error
    pairs = root.value if isinstance(root, yaml.MappingNode) else ()
    values = [value for key, value in pairs if key.value == "include"]
    named = [each for value in values for each in (value.value if isinstance(value, yaml.SequenceNode) else [value])]
    return [str(node.value) for node in named if isinstance(node, yaml.ScalarNode)]


def evaluate_builtin(
    llm: Any, tasks: BuiltinTasks, eval_spec: EvalSpec, variant_eval: VariantEval
) -> dict[str, EvalResult]:
    """Evaluates one variant on lm-eval's own tasks; a killed evaluation resumes from the generations on disk.

    Args:
        llm: A vLLM engine with the variant's weights.
        tasks: From find_builtin.
        eval_spec: Model name, context length, chat and limit; its tasks are not used.
        variant_eval: The run directory and the variant's name in it.

    Returns:
        One result per leaf task.

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
    results = {task: _result(task, raw, variant_eval, seconds) for task in raw["samples"]}
    template = str(llm.get_tokenizer().chat_template) if eval_spec.chat else None
    save_lm_eval({"": raw}, eval_spec.model_name, variant_eval.samples / "lm_eval", template)
    return results


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
                bootstrap_iters=1000,
                verbosity="ERROR",
            )
    except Exception as error:  # every data set and task has errors of its own
        raise MeasurementError(f"lm-eval stopped on {', '.join(tasks.names)}: {first_line(error)}") from error


def _result(task: str, raw: Mapping[str, Any], variant_eval: VariantEval, seconds: float) -> EvalResult:
    samples = by_doc_id(raw["samples"][task])
    metric, value, error = _main_metric(raw["results"][task])
    per_item = [sample.get(metric) for sample in samples]
    records = [builtin_record(sample, of_item) for sample, of_item in zip(samples, per_item, strict=True)]
    path = variant_eval.samples / f"{task}.jsonl"
    write_rows(path, map(asdict, records))
    low, high = _interval(per_item, value, error)
    return EvalResult(
        n=len(records),
        metric=metric,
        value=value,
        ci_low=low,
        ci_high=high,
        seconds=seconds,
        samples=str(path.relative_to(variant_eval.run)),
        **asdict(summarise_failures(records)),
    )


def _main_metric(row: Mapping[str, Any]) -> tuple[str, float, float]:
    """The first that lm-eval lists for the task, its value and standard error (NaN where it gives none)."""
    for key, value in row.items():
        metric, _, name = key.partition(",")
        if name and isinstance(value, int | float) and not metric.endswith("_stderr"):
            error = row.get(f"{metric}_stderr,{name}")
            return metric, float(value), float(error) if isinstance(error, int | float) else math.nan
    raise MeasurementError(f"lm-eval gave no number among {', '.join(row)}")


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
