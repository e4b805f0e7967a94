"""SampleRecords: lm-eval's samples, and answers graded without lm-eval, as the rows of <task>.jsonl."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from harness.core.types.evaluation import LIKELIHOOD_METRICS, SampleRecord
from tasks.failures import FailureKind, GradedAnswer, detect
from tasks.task import Task

Seen = Mapping[FailureKind, bool | None]  # kind -> whether it was detected; None if that is unknown
_OF_TEXT = {  # the kinds that show in any generated text, whatever the task
    FailureKind.ENGINE_ERROR,
    FailureKind.PROMPT_TRUNCATED,
    FailureKind.EMPTY,
    FailureKind.LOOP,
    FailureKind.UNCLOSED_REASONING,
    FailureKind.TRUNCATED,
    FailureKind.GIBBERISH,
}


def sample_records(task: Task, samples: Sequence[Mapping[str, Any]]) -> list[SampleRecord]:
    """lm-eval's samples of one of our tasks.

    Returns:
        One record per item, by doc_id; correctness, failures and likelihoods are what process_results returned.
    """
    make = _scored_text if task.metric in LIKELIHOOD_METRICS else _graded_by_task
    return [make(task, sample) for sample in by_doc_id(samples)]


def by_doc_id(samples: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return sorted(samples, key=lambda sample: int(sample["doc_id"]))


def _scored_text(task: Task, sample: Mapping[str, Any]) -> SampleRecord:
    """`prompt` and `text` as lm-eval gave them: context and continuation, or the text alone."""
    texts, answer, (log_likelihood, units) = sample["arguments"][0], sample["resps"][0][0], sample[task.metric]
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
    )


def _missing_module(text: Any) -> str | None:
    """Of an answer that was graded while others were generated: lm-eval hands on only numbers of a verdict."""
    pending = getattr(text, "verdict", None)
    found: str | None = pending.result().missing_module if pending else None
    return found


def builtin_record(sample: Mapping[str, Any], value: Any) -> SampleRecord:
    """A sample of one of lm-eval's own tasks, of which only what shows in any text is known.

    Args:
        sample: As lm-eval logged it.
        value: The task's metric for this item; right or wrong where it is 0 or 1.
    """
    text = sample["resps"][0][0]
    meta = getattr(text, "meta", None)  # None: a likelihood, nothing was generated
    detected: Seen = {} if meta is None else detect(GradedAnswer(str(text), None, False, meta=meta))
    right_or_wrong = isinstance(value, bool | int | float) and float(value) in (0.0, 1.0)
    return _record(
        doc_id=int(sample["doc_id"]),
        prompt=str(sample["arguments"][0][0]),
        text=text if isinstance(text, str) else "",
        correct=bool(value) if right_or_wrong else None,
        prediction=None,
        seen={kind: detected.get(kind) if kind in _OF_TEXT else None for kind in FailureKind},
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
    )
