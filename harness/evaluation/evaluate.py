"""lm-eval over the engine; results in lm-eval's own format as well as ours."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from harness.core.errors import MeasurementError
from harness.core.jsonl import read_rows, write_rows
from harness.core.progress import progress_bar
from harness.core.types.evaluation import SIMILARITY, EvalResult, KLToDense, SampleRecord
from harness.evaluation.kl_to_dense import kl_to_dense, own_answers
from harness.evaluation.lm_eval_requests import (
    EvalSpec,
    TaskRequests,
    TaskResponses,
    VariantEval,
    ask,
    capture_requests,
    run_lm_eval,
)
from harness.evaluation.samples import by_doc_id, sample_records
from harness.evaluation.similarity import similarities
from harness.evaluation.summary import summarise
from tasks.grading import Grader
from tasks.task import Task


def evaluate(llm: Any, eval_spec: EvalSpec, variant_eval: VariantEval) -> dict[str, EvalResult]:
    """Evaluates one variant on every task.

    Args:
        llm: A vLLM engine with the variant's weights.
        eval_spec: Tasks, items and limits, the same for every variant.
        variant_eval: The run directory and the variant's name in it.

    Returns:
        Task -> result.

    Raises:
        MeasurementError: lm-eval failed.
    """
    requests = capture_requests(llm, eval_spec)
    title = f"Evaluating {variant_eval.variant} on {', '.join(task.name for task in eval_spec.tasks)}"
    with Grader() as grader, progress_bar(title, sum(len(of_task.requests) for of_task in requests)) as advance:
        answered = ask(llm, eval_spec, requests, variant_eval, grader, advance)
        distance = _distance(llm, eval_spec, requests, variant_eval) if variant_eval.dense else None
        return with_distance(grade(answered, eval_spec, variant_eval), eval_spec, distance)


def _distance(
    llm: Any, eval_spec: EvalSpec, requests: Sequence[TaskRequests], variant_eval: VariantEval
) -> KLToDense | None:
    """To the reference, which is evaluated first."""
    is_dense = variant_eval.reference is None
    own = own_answers(llm, eval_spec, requests[0], variant_eval.own_answers, variant_eval.dense, is_dense)
    return kl_to_dense(llm, own)


def with_distance(
    results: Mapping[str, EvalResult], eval_spec: EvalSpec, distance: KLToDense | None
) -> dict[str, EvalResult]:
    """The results with the distance to the dense model at the target, on whose prompts it was measured."""
    target = eval_spec.tasks[0].name
    return {name: replace(e, kl_to_dense=distance) if name == target else e for name, e in results.items()}


def grade(responses: Sequence[TaskResponses], eval_spec: EvalSpec, variant_eval: VariantEval) -> dict[str, EvalResult]:
    """Grades by lm-eval what the engine has answered; the engine may work on another variant meanwhile.

    Writes <task>.jsonl and lm-eval's own files below run/samples/<variant>.
    """
    results, documents = {}, {}
    for of_task in responses:
        task, started = of_task.task, time.perf_counter()
        documents[task.name] = run_lm_eval(of_task.replayed(), task, eval_spec)
        records = _records(task, documents[task.name]["samples"][task.name], variant_eval)
        path = variant_eval.samples / f"{task.name}.jsonl"
        write_rows(path, map(asdict, records))
        seconds = of_task.seconds + time.perf_counter() - started
        found = summarise(task.metric, records, seconds, str(path.relative_to(variant_eval.run)))
        results[task.name] = replace(found, filter=task.filter)
    template = str(responses[0].language_model.tokenizer.chat_template) if eval_spec.chat else None
    save_lm_eval(documents, eval_spec.model_name, variant_eval.samples / "lm_eval", template)
    shutil.rmtree(variant_eval.generations, ignore_errors=True)
    return results


def _records(task: Task, samples: Sequence[Mapping[str, Any]], variant_eval: VariantEval) -> list[SampleRecord]:
    records = sample_records(task, samples)
    if task.metric != SIMILARITY:
        return records
    if variant_eval.reference is None:
        return [replace(record, correct=None, score=1.0) for record in records]
    file = variant_eval.run / "samples" / variant_eval.reference / f"{task.name}.jsonl"
    return _scored_against(file, records, [sample["doc"]["kind"] for sample in by_doc_id(samples)])


def _scored_against(reference: Path, records: Sequence[SampleRecord], kinds: Sequence[str]) -> list[SampleRecord]:
    """The records with the similarity of each answer to the reference's answer to the same item."""
    texts = {row["doc_id"]: row["text"] for row in read_rows(reference)}
    scores = similarities(kinds, [record.text for record in records], [texts[record.doc_id] for record in records])
    return [replace(record, correct=None, score=score) for record, score in zip(records, scores, strict=True)]


def save_lm_eval(documents: Mapping[str, Mapping[str, Any]], model_name: str, out: Path, template: str | None) -> None:
    """Writes lm-eval's own results_*.json and samples_*.jsonl, by its own code, for tools that read those.

    Args:
        documents: Task -> what simple_evaluate returned.
        model_name: As lm-eval's files should name the model.
        out: The folder.
        template: The chat template; None where none was applied.
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
