"""Results of a serving benchmark: rows per concurrency, totals per variant, and speed ratios, as in run.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from harness.core.types.engine import EngineFacts


@dataclass(frozen=True)
class ServingRow:
    """One variant at one concurrency: medians over the repeats.

    Attributes:
        concurrency: Requests in flight at the same time.
        output_tok_s: Output tokens per second; `output_tok_s_repeats` has every repeat.
        ttft_ms: Time from a request's arrival to its first token in milliseconds, {"p50", "p90", "p99"} over all
            requests of all repeats.
        tpot_ms: (last token - first token) / (tokens - 1) of a request in milliseconds; None where no answer has more
            than one token.
        itl_ms: Time between two outputs of a request in milliseconds.
        total_tok_s: Tokens per second, prompt tokens included.
        output_tok_cpu_s: Output tokens per second of the engine's CPU time over all cores; None on CUDA.
        answers_s_repeats: Answers per second of every repeat, where answers end at the end-of-text token.
        requests: Requests in one repeat.
        spread: (largest - smallest) / median of `output_tok_s_repeats`.
    """

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
    """Speed and memory of one variant. None or empty: not measured.

    Attributes:
        weight_bytes: Size of the weight files.
        kv_bytes_per_token: Keys and values of one token.
        kv_capacity_tokens: Tokens that the KV cache holds.
        output_tokens: Tokens of every answer; the maximum where `stop_at_eos` is true.
        mode: "offline", the engine in one process, or "online", vLLM's server over HTTP.
        prompts: Where the prompts come from.
        context_tokens: The most tokens that a request takes, in whole blocks of the cache.
        forecast: The same quantities by formula, from the config.
        engine_weight_bytes: Weights as the engine reports them, on CUDA.
        resident_bytes: Memory of one engine with this variant alone; `peak_bytes` at its peak.
        engine: How the engine computed.
    """

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
    engine: EngineFacts | None = None


@dataclass(frozen=True)
class SpeedRatio:
    """Speed of `variant` divided by that of `baseline`: geometric mean over pairs of neighbouring repeats, 95 %
    interval.

    Attributes:
        quantity: output_tok_s, output_tok_cpu_s, or answers_s where answers end at the end-of-text token.
        pairs: Pairs of repeats; with one pair there is no interval.
        ideal_flops: The ratio that floating-point operations would allow (harness/serving/roofline.py).
        ideal_bytes: The ratio that bytes read would allow.
        baseline_passes, variant_passes: The quantity in every pass, pair by pair.
    """

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
    baseline_passes: tuple[float, ...] = ()
    variant_passes: tuple[float, ...] = ()
