"""The engine's settings of a run: what RunConfig says, in the engine's terms."""

from __future__ import annotations

from harness.config.settings import RunConfig
from harness.engine.memory_budget import EngineSettings


def engine_settings(
    config: RunConfig, max_model_len: int, max_num_seqs: int = 128, prefix_caching: bool = True
) -> EngineSettings:
    """A run's settings for an engine; the size of its cache is for `with_kv_cache`."""
    return EngineSettings(
        dtype=config.dtype,
        max_model_len=max_model_len,
        max_num_seqs=max_num_seqs,
        threads=config.threads,
        prefix_caching=prefix_caching,
        tensor_parallel=config.sweep.tensor_parallel,
    )
