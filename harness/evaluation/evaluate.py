"""lm-eval over the engine; results in lm-eval's own format as well as ours."""

from __future__ import annotations

import math
import shutil
import time
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from harness.core.errors import MeasurementError
from harness.core.jsonl import read_rows, write_rows
from harness.core.progress import progress_bar
from harness.core.statistics import likelihood_metric, ratio_mean, wilson
from harness.core.types.evaluation import LIKELIHOOD_METRICS, SIMILARITY, UNEXPLAINED, EvalResult, SampleRecord
from harness.evaluation.lm_eval_requests import EvalSpec, TaskResponses, VariantEval, ask, capture_requests, run_lm_eval
from harness.evaluation.similarity import similarities
from tasks.failures import NOT_GENERATION_FAILURES, FailureKind, GradedAnswer, detect
from tasks.grading import Grader
from tasks.task import Task

TRAP = 1024  # tokens at which the paper (arXiv 2604.27115) counts an answer as a generation failure


def evaluate(llm: Any, eval_spec: EvalSpec, variant_eval: VariantEval) -> dict[str, EvalResult]:
    """Every task of the exam, asked and graded. Raises MeasurementError where lm-eval fails."""
    asked = capture_requests(llm, eval_spec)
    title = f"Evaluating {variant_eval.variant} on {', '.join(task.name for task in eval_spec.tasks)}"
    with Grader() as grader, progress_bar(title, sum(len(question.requests) for question in asked)) as advance:
        return grade(ask(llm, eval_spec, asked, variant_eval, grader, advance), eval_spec, variant_eval)


def grade(answered: Sequence[TaskResponses], eval_spec: EvalSpec, variant_eval: VariantEval) -> dict[str, EvalResult]:
    """lm-eval's verdicts on what the engine has answered; it may go on with something else meanwhile.

    Writes <task>.jsonl and lm-eval's own files below run/samples/<variant>.
    """
    out, kept, run, reference = variant_eval.samples, variant_eval.generations, variant_eval.run, variant_eval.reference
    results, documents = {}, {}
    for found in answered:
        task, started = found.task, time.perf_counter()
        raw = run_lm_eval(found.replayed(), task, eval_spec)
        records = sample_records(task, raw["samples"][task.name])
        path = out / f"{task.name}.jsonl"
        if task.metric == SIMILARITY:
            kinds = [
                sample["doc"]["kind"]
                for sample in sorted(raw["samples"][task.name], key=lambda sample: int(sample["doc_id"]))
            ]
            records = _compared(records, kinds, run / "samples" / reference / path.name if reference else None)
        write_rows(path, map(asdict, records))
        results[task.name] = summarise(
            task.metric, records, found.seconds + time.perf_counter() - started, str(path.relative_to(run))
        )
        documents[task.name] = raw
    template = str(answered[0].language_model.tokenizer.chat_template) if eval_spec.chat else None
    save_lm_eval(documents, eval_spec.model_name, out / "lm_eval", template)
    shutil.rmtree(kept, ignore_errors=True)
    return results


def _compared(records: Sequence[SampleRecord], kinds: Sequence[str], reference: Path | None) -> list[SampleRecord]:
    """With their likeness to the reference's answers to the same items."""
    if reference is None:
        return [replace(record, correct=None, score=1.0) for record in records]
    texts = {row["doc_id"]: row["text"] for row in read_rows(reference)}
    scores = similarities(kinds, [record.text for record in records], [texts[record.doc_id] for record in records])
    return [replace(record, correct=None, score=score) for record, score in zip(records, scores, strict=True)]


def sample_records(task: Task, samples: Sequence[Mapping[str, Any]]) -> list[SampleRecord]:
    """lm-eval's samples as ours, by doc_id; correctness, failures and likelihoods are the ones that process_results
    returned.
    """
    make = _scored_text if task.metric in LIKELIHOOD_METRICS else _record
    return [make(task, sample) for sample in sorted(samples, key=lambda sample: int(sample["doc_id"]))]


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


def _record(task: Task, sample: Mapping[str, Any]) -> SampleRecord:
    text = sample["resps"][0][0]
    seen = {kind: None if math.isnan(flag := float(sample[f"fail_{kind}"])) else flag == 1.0 for kind in FailureKind}
    prediction = task.extract(sample["doc"], text) if task.extract else None
    return _of_answer(
        int(sample["doc_id"]), str(sample["arguments"][0][0]), text, sample.get(task.metric) == 1.0, prediction, seen
    )


def graded_record(doc_id: int | None, prompt: str, answer: GradedAnswer) -> SampleRecord:
    """An answer that was graded without lm-eval."""
    return _of_answer(doc_id, prompt, answer.text, answer.correct, answer.prediction, detect(answer))


def _of_answer(
    doc_id: int | None,
    prompt: str,
    text: str,
    correct: bool,
    prediction: str | None,
    seen: Mapping[FailureKind, bool | None],
) -> SampleRecord:
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
        unknown=tuple(str(kind) for kind in FailureKind if seen[kind] is None),
    )


def summarise(metric: str, records: Sequence[SampleRecord], seconds: float, samples: str) -> EvalResult:
    """Accuracy with Wilson's interval and the rate of every failure kind; a kind that somebody could not see is None,
    not 0.

    For a likelihood metric: its value over all texts with texts as clusters; there is no failure to see.
    """
    if metric in LIKELIHOOD_METRICS:
        return _summarise_likelihood(metric, records, seconds, samples)
    if metric == SIMILARITY:
        found = ratio_mean([float(record.score or 0.0) for record in records], [1] * len(records))
        rates, failure_rate, tokens, trap_rate = summarise_failures(records)
        return EvalResult(len(records), metric, *found, rates, failure_rate, tokens, seconds, samples, trap_rate)
    n, correct = len(records), sum(bool(record.correct) for record in records)
    rates, failure_rate, tokens, trap_rate = summarise_failures(records)
    kinds = Counter(record.failure or UNEXPLAINED for record in records if not record.correct)
    by_kind = {kind: kinds[kind] / n for kind in (*map(str, FailureKind), UNEXPLAINED) if kinds[kind]}
    failed = (None, None) if failure_rate is None else wilson(round(failure_rate * n), n)
    return EvalResult(
        n,
        metric,
        correct / n,
        *wilson(correct, n),
        rates,
        failure_rate,
        tokens,
        seconds,
        samples,
        trap_rate,
        by_kind,
        *failed,
    )


def summarise_failures(
    records: Sequence[SampleRecord],
) -> tuple[dict[str, float | None], float | None, float | None, float | None]:
    """Rate by kind, rate of any counted kind, tokens per answer, rate of the paper's trap; each None where somebody
    could not see it.
    """
    lengths = [record.n_tokens for record in records if record.n_tokens is not None]
    known = len(lengths) == len(records)
    rates = {str(kind): _rate([_seen(record, {str(kind)}) for record in records]) for kind in FailureKind}
    counted = {str(kind) for kind in FailureKind if kind not in NOT_GENERATION_FAILURES}
    return (
        rates,
        _rate([_seen(record, counted) for record in records]),
        math.fsum(lengths) / len(lengths) if known else None,
        sum(length >= TRAP for length in lengths) / len(lengths) if known else None,
    )


def _seen(record: SampleRecord, kinds: Set[str]) -> bool | None:
    """Whether one of `kinds` was seen; None where none was and one could not be."""
    return True if kinds & set(record.failures) else None if kinds & set(record.unknown) else False


def _rate(flags: Sequence[bool | None]) -> float | None:
    return None if None in flags else sum(map(bool, flags)) / len(flags)


def _summarise_likelihood(metric: str, records: Sequence[SampleRecord], seconds: float, samples: str) -> EvalResult:
    found = likelihood_metric(
        metric, [float(record.nll or 0.0) for record in records], [int(record.units or 0) for record in records]
    )
    return EvalResult(
        len(records),
        metric,
        *found,
        {str(kind): None for kind in FailureKind},
        None,
        None,
        seconds,
        samples,
    )


def save_lm_eval(documents: Mapping[str, Mapping[str, Any]], model_name: str, out: Path, template: str | None) -> None:
    """lm-eval's own results_*.json and samples_*.jsonl, by its own code, for what reads those; `documents`: task ->
    what it returned.
    """
    from lm_eval.loggers import EvaluationTracker

    merged: dict[str, Any] = {}
    for raw in documents.values():
        for key in _BY_TASK:
            merged.setdefault(key, {}).update(raw.get(key, {}))
        merged.update({key: value for key, value in raw.items() if key not in (*_BY_TASK, "samples")})
    samples = {task: rows for raw in documents.values() for task, rows in raw["samples"].items()}
    merged["config"] = {**merged.get("config", {}), "model": "vllm", "model_args": f"pretrained={model_name}"}
    tracker = EvaluationTracker(output_path=str(out))
    tracker.general_config_tracker.log_experiment_args("vllm", f"pretrained={model_name}", None, template, False)
    tracker.save_results_aggregated(results=merged, samples=samples)
    for task, rows in samples.items():
        tracker.save_results_samples(task_name=task, samples=rows)
    if not list(out.rglob("results_*.json")) or len(list(out.rglob("samples_*.jsonl"))) < len(samples):
        raise MeasurementError(
            f"lm-eval could not write its files to {out}; check permissions and disk, then run again"
        )


_BY_TASK = ("results", "groups", "group_subtasks", "configs", "versions", "n-shot", "higher_is_better", "n-samples")
