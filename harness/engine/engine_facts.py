"""How a running engine computes: what vLLM chose for this device and what it was told. Speed depends on it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.core.types.engine import EngineFacts


def engine_facts(llm: Any, options: Mapping[str, Any]) -> EngineFacts:
    """The facts for run.json.

    Args:
        llm: A running vllm.LLM.
        options: vLLM's own options that it was given.
    """
    config = llm.llm_engine.vllm_config
    runner, backend = llm.collective_rpc(_of_worker)[0]
    return EngineFacts(
        model_runner=runner,
        attention_backend=backend,
        dtype=str(config.model_config.dtype).removeprefix("torch."),
        kv_cache_dtype=str(config.cache_config.cache_dtype),
        enforce_eager=bool(config.model_config.enforce_eager),
        cuda_graph_mode=getattr(config.compilation_config.cudagraph_mode, "name", None),
        async_scheduling=bool(config.scheduler_config.async_scheduling),
        max_num_batched_tokens=int(config.scheduler_config.max_num_batched_tokens),
        max_num_seqs=int(config.scheduler_config.max_num_seqs),
        block_size=int(config.cache_config.block_size),
        tensor_parallel=int(config.parallel_config.tensor_parallel_size),
        options=dict(options),
    )


def _of_worker(worker: Any) -> tuple[str, str]:
    """Both runners have one class name; V2 is in packages of its own (vllm.v1.worker.gpu and .cpu)."""
    runner = worker.model_runner
    groups = [group for groups in runner.attn_groups for group in groups]
    packages = type(runner).__module__.split(".")[3:-1]
    return "V2" if packages else "V1", ", ".join(sorted({group.backend.get_name() for group in groups}))
