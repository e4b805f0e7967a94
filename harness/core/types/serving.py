"""What a measurement of serving gives: rows, results and ratios, as they stand in run.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class ServingRow:
    """Medians over the repeats; latencies in milliseconds, {"p50": .., "p90": .., "p99": ..} over all requests of all
    repeats.

    ttft_ms: from the arrival of a request to its first token. tpot_ms: (last token - first token) / (tokens - 1) of a
    request. itl_ms: between two outputs of a request, which is one token but for speculative decoding.
    output_tok_cpu_s: output tokens per second of CPU time of the engine, on all cores. spread: (largest - smallest) /
    median of output_tok_s_repeats."""

    concurrency: int
    output_tok_s: float
    output_tok_s_repeats: tuple[float, ...]
    ttft_ms: Mapping[str, float | None]
    tpot_ms: Mapping[str, float | None]  # None: no answer has more than one token
    repeats: int
    itl_ms: Mapping[str, float | None] = field(default_factory=dict)
    total_tok_s: float | None = None  # with the prompts'
    output_tok_cpu_s: float | None = None
    output_tok_cpu_s_repeats: tuple[float, ...] = ()
    answers_s_repeats: tuple[float, ...] = ()
    requests: int | None = None
    tokens_per_answer: float | None = None
    spread: float | None = None


@dataclass(frozen=True)
class ServingResult:
    """How fast a variant answers and what it takes. `mode`: offline, the engine in one process, or online, vLLM's
    server over HTTP.

    output_tokens: of every answer, the most where `natural` says that answers end by themselves. weight_bytes: of the
    files; engine_weight_bytes: as the engine counts them, on CUDA. context_tokens: the most that a request took, in
    whole blocks. resident, peak: of one engine on this variant alone. forecast: the same by formula, from the config.
    None and nothing: not measured."""

    concurrency: tuple[ServingRow, ...]
    weight_bytes: int
    kv_bytes_per_token: int
    kv_capacity_tokens: int
    device: str
    dtype: str
    output_tokens: int
    kv_blocks: int | None = None
    mode: str = "offline"
    prompts: str | None = None
    stop_at_eos: bool = False
    context_tokens: int | None = None
    forecast: Mapping[str, int] = field(default_factory=dict)
    engine_weight_bytes: int | None = None
    resident_bytes: int | None = None
    peak_bytes: int | None = None


@dataclass(frozen=True)
class SpeedRatio:
    """`variant` over `baseline` in `quantity`: the geometric mean over pairs of neighbouring repeats, with its 95 %
    interval.

    quantity: output_tok_s, output_tok_cpu_s or, where answers end by themselves, answers_s. ideal: by floating-point
    operations and by bytes read (harness/serving/roofline.py)."""

    variant: str
    baseline: str
    concurrency: int
    quantity: str
    pairs: int
    ratio: float
    ci_low: float | None  # None: one pair
    ci_high: float | None
    ideal_flops: float
    ideal_bytes: float
