"""Parts that start vLLM: live swap, two engines side by side, each checkpoint alone, and the server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import partial
from typing import Any

from benchmarks.gpu_check.subjects import RATIOS, Subject
from benchmarks.gpu_check.timing import timed
from harness.config.settings import RunConfig
from harness.core.errors import MeasurementError
from harness.core.types.serving import ServingResult
from harness.engine.devices import device_name
from harness.engine.engine_settings import engine_settings
from harness.engine.memory_budget import EngineSettings, whole_blocks, with_kv_cache, working_dtype
from harness.engine.vllm_engine import Engines, engine, generate, weight_bytes
from harness.engine.weight_swap import restore, swap
from harness.models.tokenizer import load_tokenizer
from harness.pipeline.run_json import variant
from harness.serving import http_client, server
from harness.serving.bench import (
    BenchTarget,
    offline_engine,
    offline_targets,
    online_engine,
    results,
    serving_result,
    settings_for,
)
from harness.serving.timing import Pass, interleaved, offline_round, serving_row
from harness.serving.workload import random_prompts
from pruning.checkpoint import ModelFolder

_PROMPTS = 8  # whose answers are compared in a live swap

Figures = dict[str, Any]
Answers = list[tuple[list[int], float]]  # of each prompt its tokens, and the first one's log-probability


def config_of(subject: Subject) -> RunConfig:
    amount = subject.amount
    return RunConfig(
        concurrency=amount.concurrency,
        repeats=amount.repeats,
        output_tokens=amount.output_tokens,
        threads=amount.threads,
        engine_arg=dict(amount.engine_arg),
    )


def live_swap(subject: Subject) -> Figures:
    """The answers of an engine whose weights are swapped against those of an engine on the export, token for token.

    Raises MeasurementError where a swap changes nothing, the dense model does not come back, most answers begin
    otherwise than the export's, or, in FP32, a token differs. In 16 bits near-ties may differ: an export has other
    matrix sizes than a swapped model (docs/limits.md).
    """
    narrow = subject.checkpoint(RATIOS[0])
    before, swapped, after, seconds = _around_a_swap(subject)
    with engine(narrow, _swap_settings(subject, narrow)) as llm:
        exported = _answers(llm, subject)
    found = {
        "prompts": _PROMPTS,
        "dtype": working_dtype(narrow, _swap_settings(subject, narrow).dtype),
        **seconds,
        "changed by the swap": _PROMPTS - _equal(before, swapped),
        "dense again after restoring": _equal(before, after),
        "swapped as exported": _equal(swapped, exported),
        "first tokens as exported": sum(a[0][0] == b[0][0] for a, b in zip(swapped, exported, strict=True)),
        "largest gap of log-probabilities": max(abs(a[1] - b[1]) for a, b in zip(swapped, exported, strict=True)),
    }
    check_swap(found)
    return found


def _around_a_swap(subject: Subject) -> tuple[Answers, Answers, Answers, dict[str, float]]:
    """Answers before a swap, while swapped, and after restoring; seconds of both."""
    dense, plan = subject.dense(), subject.plan(RATIOS[0])
    with engine(dense, _swap_settings(subject, dense)) as llm:
        before = _answers(llm, subject)
        swapping = timed(lambda: swap(llm, plan))
        swapped = _answers(llm, subject)
        restoring = timed(lambda: restore(llm))
        seconds = {"swap_seconds": swapping.seconds, "restore_seconds": restoring.seconds}
        return before, swapped, _answers(llm, subject), seconds


def _swap_settings(subject: Subject, model: ModelFolder) -> EngineSettings:
    longest = whole_blocks(2 * subject.amount.input_tokens + subject.amount.output_tokens)
    return with_kv_cache(model, engine_settings(config_of(subject), longest, _PROMPTS))


def _answers(llm: Any, subject: Subject) -> Answers:
    from vllm import SamplingParams, TokensPrompt

    drawn = random_prompts(_PROMPTS, subject.amount.input_tokens, subject.dense().shape.vocab_size)
    params = SamplingParams(temperature=0.0, max_tokens=subject.amount.output_tokens, ignore_eos=True, logprobs=1)
    outputs = generate(llm, [TokensPrompt(prompt_token_ids=list(ids)) for ids in drawn], params)
    answers = [output.outputs[0] for output in outputs]
    return [(list(one.token_ids), next(iter(one.logprobs[0].values())).logprob) for one in answers]


def _equal(a: Answers, b: Answers) -> int:
    return sum(x[0] == y[0] for x, y in zip(a, b, strict=True))


def check_swap(found: Mapping[str, Any]) -> None:
    """Raises MeasurementError where the figures of a live swap say that it does not work."""
    if not found["changed by the swap"]:
        raise MeasurementError("the live swap changed no answer; the engine still runs the dense weights")
    if found["dense again after restoring"] < _PROMPTS:
        raise MeasurementError(
            f"after restoring, {found['dense again after restoring']} of {_PROMPTS} answers are the dense model's; "
            "the restored weights or the prefix cache are not the dense model's"
        )
    if 2 * found["first tokens as exported"] < _PROMPTS:
        raise MeasurementError(
            f"{found['first tokens as exported']} of {_PROMPTS} answers of the swapped engine begin as those of the "
            "export; the swapped weights are not the plan's"
        )
    if found["dtype"] == "float32" and found["swapped as exported"] < _PROMPTS:
        raise MeasurementError(
            f"{found['swapped as exported']} of {_PROMPTS} answers of the swapped engine are those of the export; in "
            "float32 all must be"
        )


def side_by_side(subject: Subject) -> Figures:
    """The dense and the narrowest model in one process on one GPU, interleaved, as `harness bench` times them."""
    config, workload = config_of(subject), subject.workload()
    models = {subject.variant_name(ratio): subject.checkpoint(ratio) for ratio in (0.0, RATIOS[-1])}
    with Engines(models, settings_for(models, config, workload)) as engines:
        targets = offline_targets(engines, dict.fromkeys(models, workload))
        passes = interleaved(_rounds(targets), config.concurrency, config.repeats, workload)
        served, ratios = results(targets, passes, config, workload)
        free = _free_bytes()
    return {
        "free_bytes": free,
        "kv tokens of each": [result.kv_capacity_tokens for result in served.values()],
        "speed_ratios": [asdict(ratio) for ratio in ratios],
    }


def _rounds(targets: Mapping[str, BenchTarget]) -> dict[str, Any]:
    return {name: target.round for name, target in targets.items()}


def serving(subject: Subject, ratio: float) -> Figures:
    """One checkpoint alone; on a GPU the cache takes what the weights leave of it."""
    config, workload, model = config_of(subject), subject.workload(), subject.checkpoint(ratio)
    name = subject.variant_name(ratio)
    settings = settings_for({name: model}, config, workload)[name]
    if device_name() == "cuda":
        settings = replace(settings, kv_cache_bytes=None)
    with Engines({name: model}, {name: settings}) as engines:
        llm = timed(lambda: engines[name])
        one_round = partial(offline_round, llm.result, workload)
        (passes,) = interleaved({name: one_round}, config.concurrency, config.repeats, workload).values()
        rows = tuple(serving_row(*each) for each in zip(config.concurrency, passes, strict=True))
        served = serving_result(offline_engine(engines, name), rows, workload)
        served = replace(served, engine_weight_bytes=weight_bytes(llm.result))
        free = _free_bytes()
    facts = asdict(served.engine) if served.engine else {}
    return {"start_seconds": llm.seconds, "free_bytes": free, **facts, **_row(name, model, served)}


def online(subject: Subject) -> Figures:
    """`vllm serve` on the dense model, asked by vLLM's own client."""
    config, workload, model = config_of(subject), subject.workload(), subject.dense()
    requests, log = subject.folder / "requests.jsonl", subject.folder / "server.log"
    settings = settings_for({"dense": model}, config, workload)["dense"]
    http_client.write_requests(workload, load_tokenizer(model), requests)
    address = server.Address(port=server.free_port())
    with server.running(model, "dense", settings, address, log) as running:

        def one_round(concurrency: int) -> Pass:
            line = http_client.arguments(running, "dense", model.path, requests, workload, concurrency)
            return http_client.online_round(running, line)

        (passes,) = interleaved({"dense": one_round}, config.concurrency, config.repeats, workload).values()
        rows = tuple(serving_row(*each) for each in zip(config.concurrency, passes, strict=True))
        served = serving_result(online_engine(running, model, settings), rows, workload)
    return _row("dense-online", model, served)


def _row(name: str, model: ModelFolder, served: ServingResult) -> Figures:
    """The figures that the table of all parts shows, and the row of run.json."""
    by_concurrency = {
        f"at {row.concurrency}": {
            "output_tok_s": row.output_tok_s,
            "ttft_ms": row.ttft_ms["p50"],
            "tpot_ms": row.tpot_ms["p50"],
        }
        for row in served.concurrency
    }
    sizes = {
        "weight_bytes": served.weight_bytes,
        "engine_weight_bytes": served.engine_weight_bytes,
        "kv_bytes_per_token": served.kv_bytes_per_token,
        "kv_tokens": served.kv_capacity_tokens,
    }
    row = replace(variant(name, model, None), name=name, serving=served)
    return {**sizes, **by_concurrency, "variant": asdict(row)}


def _free_bytes() -> int | None:
    import torch

    return torch.cuda.mem_get_info()[0] if device_name() == "cuda" else None
