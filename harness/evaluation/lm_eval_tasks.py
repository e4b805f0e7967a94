"""lm-eval's own tasks, groups and leaderboards on our engine: passed through as they are, results in both formats."""

from __future__ import annotations

import difflib
import math
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from harness.core.errors import MeasurementError, UsageError, first_line
from harness.core.jsonl import write_rows
from harness.core.progress import progress_bar
from harness.core.statistics import wilson
from harness.core.types.evaluation import EvalResult, SampleRecord
from harness.engine.generation_cache import GenerationCache
from harness.engine.lm_eval_model import ResponseCallbacks, make_language_model
from harness.evaluation.evaluate import save_lm_eval, summarise_failures
from harness.evaluation.lm_eval_requests import identity_of, lm_eval_caches
from tasks.failures import FailureKind, GradedAnswer, detect
from tasks.registry import FAMILY_NAMES, TASKS

_OF_TEXT = {  # the kinds that show in any generated text, whatever the task
    FailureKind.ENGINE_ERROR,
    FailureKind.PROMPT_TRUNCATED,
    FailureKind.EMPTY,
    FailureKind.LOOP,
    FailureKind.TRUNCATED,
    FailureKind.GIBBERISH,
}
_Z = 1.959963984540054


def find_builtin(names: Sequence[str], include_path: Path | None) -> Any:
    """lm-eval's TaskManager; raises UsageError for a name that it does not know either."""
    with progress_bar("Reading lm-eval's task list"):
        from lm_eval.tasks import TaskManager

        manager = TaskManager(include_path=str(include_path) if include_path else None)
    if unknown := sorted(set(names) - set(manager.all_tasks)):
        known = [*TASKS, *FAMILY_NAMES, *manager.all_tasks]
        near = difflib.get_close_matches(unknown[0], known, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else "see `harness tasks` and `lm_eval ls tasks`"
        raise UsageError(f"neither harness nor lm-eval has a task {unknown[0]!r}; {hint}")
    return manager


def evaluate_builtin(
    llm: Any,
    model_name: str,
    names: Sequence[str],
    manager: Any,
    run: Path,
    variant: str,
    limit: int | None,
    max_model_len: int,
    chat: bool,
    identity: str,
) -> dict[str, EvalResult]:
    """One result per leaf task; a killed evaluation goes on with the generations it has.

    Raises MeasurementError where lm-eval fails: a data set out of reach, or code that it would run itself.
    """
    from lm_eval import simple_evaluate

    started, kept = time.perf_counter(), run / "generations" / variant / "lm_eval.jsonl"
    generation_cache = GenerationCache(kept, identity_of(llm, identity))
    try:
        with lm_eval_caches():
            raw = simple_evaluate(
                make_language_model(llm, max_model_len, chat, ResponseCallbacks(generation_cache)),
                tasks=list(names),
                task_manager=manager,
                limit=limit,
                apply_chat_template=chat,
                log_samples=True,
                bootstrap_iters=1000,
                verbosity="ERROR",
            )
    except Exception as error:  # every data set and task brings its own
        raise MeasurementError(f"lm-eval stopped on {', '.join(names)}: {first_line(error)}") from error
    finally:
        generation_cache.close()
    if not raw or not raw["samples"]:
        raise MeasurementError(f"lm-eval returned no samples for {', '.join(names)}; run again with --debug")
    kept.unlink(missing_ok=True)
    seconds = (time.perf_counter() - started) / len(raw["samples"])
    results = {task: _result(task, raw, run, variant, seconds) for task in raw["samples"]}
    save_lm_eval(
        {"": raw},
        model_name,
        run / "samples" / variant / "lm_eval",
        str(llm.get_tokenizer().chat_template) if chat else None,
    )
    return results


def _result(task: str, raw: Mapping[str, Any], run: Path, variant: str, seconds: float) -> EvalResult:
    samples = sorted(raw["samples"][task], key=lambda sample: int(sample["doc_id"]))
    metric, value, error = _main_metric(raw["results"][task])
    per_item = [sample.get(metric) for sample in samples]
    records = [_record(sample, value) for sample, value in zip(samples, per_item, strict=True)]
    path = run / "samples" / variant / f"{task}.jsonl"
    write_rows(path, map(asdict, records))
    rates, failure_rate, tokens, trap_rate = summarise_failures(records)
    low, high = _interval(per_item, value, error)
    where = str(path.relative_to(run))
    return EvalResult(
        n=len(records),
        metric=metric,
        value=value,
        ci_low=low,
        ci_high=high,
        failures=rates,
        failure_rate=failure_rate,
        tokens_per_answer=tokens,
        seconds=seconds,
        samples=where,
        trap_rate=trap_rate,
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
    """95 %: Wilson's where items are right or wrong, else normal, from the items or from lm-eval's standard error; None
    without one.
    """
    if all(isinstance(v, bool | int | float) for v in per_item) and math.isclose(
        statistics.fmean(per_item), value, abs_tol=1e-9
    ):
        if {float(v) for v in per_item} <= {0.0, 1.0}:
            return wilson(round(sum(per_item)), len(per_item))
        error = statistics.stdev(per_item) / math.sqrt(len(per_item)) if len(per_item) > 1 else math.nan
    return (value - _Z * error, value + _Z * error) if math.isfinite(error) else (None, None)


def _record(sample: Mapping[str, Any], value: Any) -> SampleRecord:
    text = sample["resps"][0][0]
    meta = getattr(text, "meta", None)
    seen = detect(GradedAnswer(str(text), None, False, meta=meta)) if meta is not None else {}
    failures = tuple(str(kind) for kind in FailureKind if kind in _OF_TEXT and seen.get(kind))
    unknown = tuple(str(kind) for kind in FailureKind if kind not in _OF_TEXT or seen.get(kind) is None)
    correct = bool(value) if isinstance(value, bool | int | float) and float(value) in (0.0, 1.0) else None
    meta = meta or {}
    return SampleRecord(
        doc_id=int(sample["doc_id"]),
        prompt=str(sample["arguments"][0][0]),
        text=str(text) if isinstance(text, str) else "",
        correct=correct,
        prediction=None,
        failure=failures[0] if failures else None,
        failures=failures,
        finish_reason=meta.get("finish_reason"),
        n_tokens=meta.get("n_tokens"),
        unknown=unknown,
    )
