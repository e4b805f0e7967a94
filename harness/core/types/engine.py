"""How an engine computed, as in run.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class EngineFacts:
    """What vLLM chose for the device and what it was told. None: not known; of a server, its log says it.

    Attributes:
        model_runner: V1 or V2.
        enforce_eager: Whether the model runs without compilation and CUDA graphs.
        max_num_batched_tokens: Tokens of a step, at most; max_num_seqs: requests in it.
        block_size: Tokens of a block of the KV cache.
        tensor_parallel: GPUs that share the engine.
        options: vLLM's own options that were given, by its names.
    """

    model_runner: str | None = None
    attention_backend: str | None = None
    dtype: str | None = None
    kv_cache_dtype: str | None = None
    enforce_eager: bool | None = None
    cuda_graph_mode: str | None = None
    async_scheduling: bool | None = None
    max_num_batched_tokens: int | None = None
    max_num_seqs: int | None = None
    block_size: int | None = None
    tensor_parallel: int = 1
    options: Mapping[str, bool | int | float | str] = field(default_factory=dict)
