"""How a server is started for what was asked, and what is said of it afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from harness.config.settings import load_config
from harness.core.errors import UsageError
from harness.engine.memory_budget import engine_arguments
from harness.pipeline import single_stage
from harness.serving import bench, server
from harness.serving.server import Address, ServerOptions
from pruning.checkpoint import open_model
from tests.support.models import TINY_MATH

CONFIG = load_config(None, {"model": "tiny-math"})


def started(extra: Sequence[str] = (), **options: Any) -> Any:
    config = load_config(None, {"model": "tiny-math", **options})
    return single_stage._server_settings(config, open_model(TINY_MATH), ServerOptions(Address(), extra=extra))


def test_a_clients_seed_cannot_end_the_server_on_a_cpu() -> None:
    """A prompt is never read in parts, unless the steps of the engine are the user's own."""
    told = engine_arguments(open_model(TINY_MATH), started())
    assert told["enable_chunked_prefill"] is False and told["max_num_batched_tokens"] >= told["max_model_len"]
    for own in (started(["--max-num-seqs", "8"]), started(engine_arg="max_num_batched_tokens=256")):
        assert engine_arguments(open_model(TINY_MATH), own).get("enable_chunked_prefill") is not False


@pytest.mark.parametrize(("cache_dtype", "bytes_of_a_number"), [("auto", 4), ("fp8_e4m3", 1)])
def test_what_stands_behind_the_dashes_is_recorded(
    cache_dtype: str, bytes_of_a_number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = {"cache_dtype": cache_dtype, "block_size": "32", "num_gpu_blocks": "9", "kv_cache_size_tokens": "288"}
    monkeypatch.setattr(server, "published_cache", lambda _: published)
    extra = ["--max_num_seqs=8", "--max-num-batched-tokens", "1k", "--no-enforce-eager"]
    found = bench.online_engine(None, open_model(TINY_MATH), started(extra), extra)  # type: ignore[arg-type]
    assert found.facts is not None
    assert (found.facts.max_num_seqs, found.facts.max_num_batched_tokens, found.facts.enforce_eager) == (8, 1000, False)
    assert found.facts.options == {"max_num_seqs": "8", "max_num_batched_tokens": "1k", "enforce_eager": False}
    assert found.kv_bytes_per_token == 2 * 4 * 2 * 32 * bytes_of_a_number, "keys and values, layers, heads, head_dim"


def test_a_context_beyond_the_models_is_refused_before_the_start() -> None:
    with pytest.raises(UsageError, match="--max-model-len 513 is more than the 512 tokens"):
        single_stage._served_model(CONFIG, ServerOptions(Address(port=0), max_model_len=513), TINY_MATH / "out")
