"""lm-eval over the engine: our LM answers lm-eval's requests and carries the finish_reason through to the graders."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from harness.errors import MeasurementError
from harness.statistics import wilson
from harness.store import write_json, write_text
from harness.types import EvalResult, SampleRecord
from tasks.failures import NOT_GENERATION_FAILURES, FailureKind
from tasks.generation import Generation
from tasks.registry import TASKS_PATH, Task


def make_language_model(llm: Any, max_model_len: int, chat: bool) -> Any:
    """An lm-eval TemplateLM around a running engine; generation only. A chat template brings its own start token."""
    from lm_eval.api.model import TemplateLM

    class EngineLM(TemplateLM):
        tokenizer_name = "engine"

        def __init__(self) -> None:
            super().__init__()
            self.tokenizer = llm.get_tokenizer()

        @property
        def eot_token_id(self) -> int:
            return int(self.tokenizer.eos_token_id)

        def tok_encode(self, string: str, **_: Any) -> list[int]:
            return list(self.tokenizer(string, add_special_tokens=not chat)["input_ids"])

        def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
            return str(
                self.tokenizer.apply_chat_template(
                    chat_history, tokenize=False, add_generation_prompt=add_generation_prompt,
                    continue_final_message=not add_generation_prompt,
                )
            )  # fmt: skip

        def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:  # noqa: ARG002
            return answer_requests(llm, self.tok_encode, requests, max_model_len)

        def _loglikelihood_tokens(self, requests: Any, **_: Any) -> Any:
            raise NotImplementedError("likelihood tasks are not supported by this engine yet; choose a generation task")

        def loglikelihood_rolling(self, requests: Any, **_: Any) -> Any:
            raise NotImplementedError("perplexity tasks are not supported by this engine yet; choose a generation task")

    return EngineLM()


def answer_requests(llm: Any, encode: Any, requests: Sequence[Any], max_model_len: int) -> list[str]:
    """Greedy answers in the order asked; a prompt too long for the context is cut on its left and marked."""
    from vllm import SamplingParams, TokensPrompt

    prompts, params, cut = [], [], []
    for request in requests:
        context, settings = request.args
        room = max_model_len - settings["max_gen_toks"]
        ids = encode(context)
        cut.append(len(ids) > room)
        prompts.append(TokensPrompt(prompt_token_ids=ids[-room:]))
        params.append(SamplingParams(temperature=0.0, max_tokens=settings["max_gen_toks"], stop=settings.get("until")))
    outputs = llm.generate(prompts, params, use_tqdm=False)
    return [
        Generation(
            output.outputs[0].text,
            {
                "finish_reason": output.outputs[0].finish_reason,
                "n_tokens": len(output.outputs[0].token_ids),
                "prompt_truncated": was_cut,
            },
        )
        for output, was_cut in zip(outputs, cut, strict=True)
    ]


def evaluate(
    llm: Any, model_name: str, tasks: Sequence[Task], run: Path, variant: str, limit: int | None, max_model_len: int, chat: bool,
    split: str = "test",
) -> dict[str, EvalResult]:  # fmt: skip
    """Runs every task, writes <task>.jsonl and lm_eval.json below run/samples/<variant>.

    Raises MeasurementError where lm-eval fails.
    """
    out = run / "samples" / variant
    language_model = make_language_model(llm, max_model_len, chat)
    results, documents = {}, {}
    for task in tasks:
        started = time.perf_counter()
        raw = _run_lm_eval(language_model, task, limit, chat, split)
        records = sample_records(task, raw["samples"][task.name])
        path = out / f"{task.name}.jsonl"
        write_text(path, "".join(json.dumps(asdict(record), ensure_ascii=False) + "\n" for record in records))
        results[task.name] = summarise(task.metric, records, time.perf_counter() - started, str(path.relative_to(run)))
        documents[task.name] = raw
    _save_lm_eval(documents, model_name, out / "lm_eval.json")
    return results


def _run_lm_eval(language_model: Any, task: Task, limit: int | None, chat: bool, split: str) -> dict[str, Any]:
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(TASKS_PATH), include_defaults=False)
    loaded = manager.load([task.name])["tasks"][task.name]
    loaded.config.test_split = split
    raw = simple_evaluate(
        language_model, tasks=[loaded], task_manager=manager, limit=limit, apply_chat_template=chat,
        log_samples=True, bootstrap_iters=0, verbosity="ERROR",
    )  # fmt: skip
    if not raw or not raw["samples"].get(task.name):
        raise MeasurementError(f"lm-eval returned no samples for {task.name}; run again with --debug")
    return dict(raw)


def sample_records(task: Task, samples: Sequence[Mapping[str, Any]]) -> list[SampleRecord]:
    """lm-eval's samples as ours, by doc_id; correctness and failures are the ones that process_results returned."""
    return [_record(task, sample) for sample in sorted(samples, key=lambda sample: int(sample["doc_id"]))]


def _record(task: Task, sample: Mapping[str, Any]) -> SampleRecord:
    text = sample["resps"][0][0]
    meta = getattr(text, "meta", {})
    failures = tuple(str(kind) for kind in FailureKind if sample[f"fail_{kind}"] == 1.0)
    return SampleRecord(
        doc_id=int(sample["doc_id"]),
        prompt=str(sample["arguments"][0][0]),
        text=str(text),
        correct=sample[task.metric] == 1.0,
        prediction=task.module.extract(task.name, sample["doc"], text),
        failure=failures[0] if failures else None,
        failures=failures,
        finish_reason=meta.get("finish_reason"),
        n_tokens=meta.get("n_tokens"),
    )


def summarise(metric: str, records: Sequence[SampleRecord], seconds: float, samples: str) -> EvalResult:
    """Accuracy with Wilson's interval and the rate of every failure kind; a kind nobody could see is None, not 0."""
    n, correct = len(records), sum(record.correct for record in records)
    low, high = wilson(correct, n)
    lengths = [record.n_tokens for record in records if record.n_tokens is not None]
    known = len(lengths) == n
    rates = {str(kind): _rate(records, kind, known) for kind in FailureKind}
    counted = {str(kind) for kind in FailureKind if kind not in NOT_GENERATION_FAILURES}
    failed = sum(bool(counted & set(record.failures)) for record in records)
    return EvalResult(
        n, metric, correct / n, low, high, rates, failed / n if known else None,
        math.fsum(lengths) / n if known else None, seconds, samples,
    )  # fmt: skip


_FROM_ENGINE = {FailureKind.ENGINE_ERROR, FailureKind.PROMPT_TRUNCATED, FailureKind.TRUNCATED}


def _rate(records: Sequence[SampleRecord], kind: FailureKind, known: bool) -> float | None:
    if kind in _FROM_ENGINE and not known:
        return None
    return sum(str(kind) in record.failures for record in records) / len(records)


def _save_lm_eval(documents: Mapping[str, Mapping[str, Any]], model_name: str, path: Path) -> None:
    """lm-eval's own result document, one per task merged by key, so that its readers can read ours."""
    merged: dict[str, Any] = {"model_name": model_name, "model_source": "vllm"}
    for raw in documents.values():
        for key in ("results", "versions", "n-shot", "n-samples", "higher_is_better", "configs", "task_hashes"):
            merged.setdefault(key, {}).update(raw.get(key, {}))
        merged.setdefault("config", raw.get("config", {}))
    write_json(path, json.loads(json.dumps(merged, default=str)))
