"""Throughput and latency of several engines side by side, on the same prompts, in turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness import engine
from harness.errors import MeasurementError
from harness.statistics import percentiles
from harness.types import ServingResult, ServingRow

_LEAST_REQUESTS = 4


@dataclass(frozen=True)
class Pass:
    """One timed batch of requests: output tokens per second, and each request's TTFT and TPOT in milliseconds."""

    output_tok_s: float
    ttft_ms: tuple[float, ...]
    tpot_ms: tuple[float, ...]


def one_pass(llm: Any, prompts: Sequence[Sequence[int]], concurrency: int, output_tokens: int) -> Pass:
    """`concurrency` requests in flight at a time, each generating exactly `output_tokens`; the prefix cache starts empty."""
    from vllm import SamplingParams, TokensPrompt

    params = SamplingParams(temperature=0.0, max_tokens=output_tokens, ignore_eos=True, detokenize=False)
    llm.reset_prefix_cache()
    outputs, seconds = [], 0.0
    for start in range(0, max(concurrency, _LEAST_REQUESTS), concurrency):
        chosen = [prompts[(start + i) % len(prompts)] for i in range(concurrency)]
        started = time.perf_counter()
        outputs += engine.generate(llm, [TokensPrompt(prompt_token_ids=list(ids)) for ids in chosen], params)
        seconds += time.perf_counter() - started
    tokens = sum(len(output.outputs[0].token_ids) for output in outputs)
    if tokens != output_tokens * len(outputs):
        raise MeasurementError(f"the engine gave {tokens} tokens instead of {output_tokens * len(outputs)}; shorten --output-tokens")
    return Pass(
        tokens / seconds,
        tuple(output.metrics.first_token_latency * 1e3 for output in outputs),
        tuple((o.metrics.last_token_ts - o.metrics.first_token_ts) / (output_tokens - 1) * 1e3 for o in outputs),
    )


def measure(
    engines: Mapping[str, Any], prompts: Sequence[Sequence[int]], concurrency: Sequence[int], repeats: int, output_tokens: int,
    weight_bytes: Mapping[str, int],
) -> dict[str, ServingResult]:  # fmt: skip
    """Warms every engine up, then repeats A B A B ... at each concurrency, so that drift of the machine hits all alike."""
    rows: dict[str, list[ServingRow]] = {name: [] for name in engines}
    for level in concurrency:
        for llm in engines.values():
            one_pass(llm, prompts, level, output_tokens)
        passes: dict[str, list[Pass]] = {name: [] for name in engines}
        for _ in range(repeats):
            for name, llm in engines.items():
                passes[name].append(one_pass(llm, prompts, level, output_tokens))
        for name, done in passes.items():
            rows[name].append(_row(level, done))
    return {name: _result(llm, tuple(rows[name]), weight_bytes[name], output_tokens) for name, llm in engines.items()}


def _row(concurrency: int, passes: Sequence[Pass]) -> ServingRow:
    rates = tuple(p.output_tok_s for p in passes)
    return ServingRow(
        concurrency,
        statistics.median(rates),
        rates,
        percentiles([value for p in passes for value in p.ttft_ms]),
        percentiles([value for p in passes for value in p.tpot_ms]),
        len(passes),
    )


def _result(llm: Any, rows: tuple[ServingRow, ...], weight_bytes: int, output_tokens: int) -> ServingResult:
    dtype = str(llm.llm_engine.vllm_config.model_config.dtype).removeprefix("torch.")
    return ServingResult(
        rows, weight_bytes, engine.kv_bytes_per_token(llm), engine.kv_capacity_tokens(llm), engine.device_name(), dtype, output_tokens
    )
