"""Figures of an engine whose workers each hold a part of it, by numbers that several workers are said to have; and a
prefix cache that vLLM does not empty.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from harness.core.errors import MeasurementError
from harness.engine import vllm_engine, weight_swap
from harness.engine.vllm_engine import kv_bytes_per_token, weight_bytes
from harness.serving import process_memory
from harness.serving.timing import offline_round
from harness.serving.workload import Workload


def engine_of(workers: list[Any], **config: Any) -> Any:
    """An engine that runs a function on each of its workers, as collective_rpc does."""
    return SimpleNamespace(
        collective_rpc=lambda function: [function(worker) for worker in workers],
        llm_engine=SimpleNamespace(**config),
    )


def test_weights_are_the_sum_over_the_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_engine, "device_name", lambda: "cuda")
    workers = [SimpleNamespace(model_runner=SimpleNamespace(model_memory_usage=size)) for size in (40.0, 41.5, 39.5)]
    assert weight_bytes(engine_of(workers)) == 120
    monkeypatch.setattr(vllm_engine, "device_name", lambda: "cpu")
    assert weight_bytes(engine_of(workers)) is None


@pytest.mark.parametrize(("parallel", "page"), [(1, 28 * 16 * 2048), (2, 28 * 16 * 1024), (4, 28 * 16 * 512)])
def test_kv_bytes_are_those_of_all_gpus(parallel: int, page: int) -> None:
    """Qwen2.5-7B: 57,344 bytes a token, of which each of two GPUs has half; a page holds 16 tokens of a layer."""
    group = SimpleNamespace(kv_cache_spec=SimpleNamespace(page_size_bytes=page // 28), layer_names=["layer"] * 28)
    scheduler = SimpleNamespace(kv_cache_config=SimpleNamespace(kv_cache_groups=[group]))
    config = SimpleNamespace(
        parallel_config=SimpleNamespace(tensor_parallel_size=parallel), cache_config=SimpleNamespace(block_size=16)
    )
    core = SimpleNamespace(engine_core=SimpleNamespace(scheduler=scheduler))
    assert kv_bytes_per_token(engine_of([], engine_core=core, vllm_config=config)) == 57_344


def test_memory_is_the_sum_over_the_workers_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process that asks holds none of it."""
    now, peak = iter((10, 11, 12, 13)), iter((20, 30, 40, 50))
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: next(now))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: next(peak))
    assert process_memory._device_bytes(engine_of([None] * 4)) == (46, 140)


def held(**more: Any) -> Any:
    """An idle engine whose prefix cache stays as it is."""
    core = SimpleNamespace(
        has_unfinished_requests=lambda: False,
        vllm_config=SimpleNamespace(model_config=SimpleNamespace(model="m")),
    )
    llm = SimpleNamespace(collective_rpc=lambda *_, **__: [None], reset_prefix_cache=lambda: False, llm_engine=core)
    return SimpleNamespace(**{**vars(llm), **more})


@pytest.mark.parametrize(
    "act",
    [
        lambda llm: weight_swap.swap(llm, Path("plan")),
        weight_swap.restore,
        lambda llm: offline_round(llm, Workload("task", ((1, 2),), 4), 1),
    ],
)
def test_a_prefix_cache_that_is_still_held_is_an_error(act: Callable[[Any], Any]) -> None:
    with pytest.raises(MeasurementError, match="did not empty its prefix cache"):
        act(held())
