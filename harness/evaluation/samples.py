"""SampleRecords: lm-eval's samples, and answers graded without lm-eval, as the rows of <task>.jsonl."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from harness.core.errors import MeasurementError
from harness.core.types.evaluation import LIKELIHOOD_METRICS, MEAN, SampleRecord
from tasks.failures import FailureKind, GradedAnswer, detect
from tasks.lm_eval_task import prediction_of
from tasks.task import Task

Seen = Mapping[FailureKind, bool | None]  # kind -> whether it was detected; None if that is unknown


def sample_records(task: Task, samples: Sequence[Mapping[str, Any]]) -> list[SampleRecord]:
    """lm-eval's samples of a task.

    Returns:
        One record per item, by doc_id; correctness, failures and likelihoods are what process_results returned.

    Raises:
        MeasurementError: A task of lm-eval's own gave an item a score that is neither right nor wrong.
    """
    make = _scored_text if task.metric in LIKELIHOOD_METRICS else _graded_by_task
    if task.filter is not None:
        samples = [sample for sample in samples if sample["filter"] == task.filter]
        make = make if make is _scored_text else _graded_by_lm_eval
    return [make(task, sample) for sample in by_doc_id(samples)]


def by_doc_id(samples: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return sorted(samples, key=lambda sample: int(sample["doc_id"]))


def _scored_text(task: Task, sample: Mapping[str, Any]) -> SampleRecord:
    """`prompt` and `text` as lm-eval gave them: context and continuation, or the text alone."""
    texts, answer, value = sample["arguments"][0], sample["resps"][0][0], sample[task.metric]
    log_likelihood, units = value if isinstance(value, tuple | list) else (value, 1)  # lm-eval's perplexity: of items
    likelihood = answer[0] if isinstance(answer, tuple) else answer
    return SampleRecord(
        doc_id=int(sample["doc_id"]),
        prompt=str(texts[0]) if len(texts) > 1 else "",
        text=str(texts[-1]),
        correct=None,
        prediction=None,
        failure=None,
        failures=(),
        finish_reason=None,
        n_tokens=getattr(likelihood, "n_tokens", None),
        nll=-log_likelihood,
        units=units,
    )


def _graded_by_task(task: Task, sample: Mapping[str, Any]) -> SampleRecord:
    text = sample["resps"][0][0]
    flags = {kind: float(sample[f"fail_{kind}"]) for kind in FailureKind}  # NaN: unknown
    return _record(
        doc_id=int(sample["doc_id"]),
        prompt=str(sample["arguments"][0][0]),
        text=text,
        correct=sample.get(task.metric) == 1.0,
        prediction=task.extract(sample["doc"], text) if task.extract else None,
        seen={kind: None if math.isnan(flag) else flag == 1.0 for kind, flag in flags.items()},
        missing_module=_missing_module(text),
        gold=_gold(sample),
    )


def _gold(sample: Mapping[str, Any]) -> str | None:
    """The target, where it is a text: of multiple choice it is an index."""
    target = sample.get("target")
    return target if isinstance(target, str) and target else None


def _missing_module(text: Any) -> str | None:
    """Of an answer that was graded while others were generated: lm-eval hands on only numbers of a verdict."""
    pending = getattr(text, "verdict", None)
    found: str | None = pending.result().missing_module if pending else None
    return found


def _graded_by_lm_eval(task: Task, sample: Mapping[str, Any]) -> SampleRecord:
    record = builtin_record(sample, value := sample.get(task.metric.removeprefix(MEAN)))
    if task.metric.startswith(MEAN):
        if not isinstance(value, bool | int | float) or not 0 <= value <= 1:
            raise MeasurementError(f"{task.name}: {task.metric} of item {record.doc_id} is {value}, not from 0 to 1")
        return replace(record, correct=None, score=float(value))
    if record.correct is None:
        raise MeasurementError(
            f"{task.name}: {task.metric} of item {record.doc_id} is {value}, neither right (1) nor wrong (0), so runs "
            f"cannot be compared by it; give --metric-of {task.name}=METRIC, or use `harness eval`"
        )
    return record


def builtin_record(sample: Mapping[str, Any], value: Any) -> SampleRecord:
    """A sample of one of lm-eval's own tasks: what shows in any text, and whether its filter found an answer in it.

    Args:
        sample: As lm-eval logged it.
        value: The task's metric for this item; right or wrong where it is 0 or 1.
    """
    text = sample["resps"][0][0]
    meta = getattr(text, "meta", None)  # None: a likelihood, nothing was generated
    right_or_wrong = isinstance(value, bool | int | float) and float(value) in (0.0, 1.0)
    correct = bool(value) if right_or_wrong else None
    prediction = prediction_of(sample.get("filtered_resps")) if meta is not None else None
    detected: Seen = {} if meta is None else detect(GradedAnswer(str(text), prediction, correct is True, meta=meta))
    unclear = set[FailureKind]() if right_or_wrong else {FailureKind.WRONG}
    return _record(
        doc_id=int(sample["doc_id"]),
        prompt=str(sample["arguments"][0][0]),
        text=text if isinstance(text, str) else "",
        correct=correct,
        prediction=prediction,
        seen={kind: None if kind in unclear else detected.get(kind) for kind in FailureKind},
        gold=_gold(sample),
    )


def graded_record(doc_id: int | None, prompt: str, answer: GradedAnswer) -> SampleRecord:
    """An answer that was graded without lm-eval."""
    return _record(
        doc_id=doc_id,
        prompt=prompt,
        text=answer.text,
        correct=answer.correct,
        prediction=answer.prediction,
        seen=detect(answer),
        missing_module=answer.missing_module,
    )


def _record(
    *,
    doc_id: int | None,
    prompt: str,
    text: str,
    correct: bool | None,
    prediction: str | None,
    seen: Seen,
    missing_module: str | None = None,
    gold: str | None = None,
) -> SampleRecord:
    """The first kind of failure by precedence is the record's `failure`."""
    meta = getattr(text, "meta", {})
    failures = tuple(str(kind) for kind in FailureKind if seen[kind])
    return SampleRecord(
        doc_id=doc_id,
        prompt=prompt,
        text=str(text),
        correct=correct,
        prediction=prediction,
        failure=failures[0] if failures else None,
        failures=failures,
        finish_reason=meta.get("finish_reason"),
        n_tokens=meta.get("n_tokens"),
        reasoning=meta.get("reasoning"),
        unknown=tuple(str(kind) for kind in FailureKind if seen[kind] is None),
        missing_module=missing_module,
        gold=gold,
    )
