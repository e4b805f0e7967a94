"""The engine's settings of a run: what its configuration says, in the engine's terms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from harness.engine.memory_budget import EngineSettings


class EngineConfig(Protocol):
    """What of a RunConfig concerns engines; the engine's room does not know where settings come from."""

    @property
    def dtype(self) -> str: ...

    @property
    def threads(self) -> int | None: ...

    @property
    def tensor_parallel(self) -> int: ...

    @property
    def engine_arg(self) -> Mapping[str, Any]: ...


def engine_settings(
    config: EngineConfig, max_model_len: int = 2048, max_num_seqs: int = 128, prefix_caching: bool = True
) -> EngineSettings:
    """A run's settings for an engine; the size of its cache is for `with_kv_cache`."""
    return EngineSettings(
        dtype=config.dtype,
        max_model_len=max_model_len,
        max_num_seqs=max_num_seqs,
        threads=config.threads,
        prefix_caching=prefix_caching,
        tensor_parallel=config.tensor_parallel,
        options=config.engine_arg,
    )
