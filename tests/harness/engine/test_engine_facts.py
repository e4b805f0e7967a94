"""How the engine on this CPU computes, as vLLM itself has it."""

from __future__ import annotations

import json
from dataclasses import asdict
from types import SimpleNamespace
from typing import Any

import pytest

from harness.engine.engine_facts import _of_worker, engine_facts


def test_facts_are_what_the_engine_was_told_and_what_vllm_chose(tiny_engine: Any) -> None:
    found = asdict(engine_facts(tiny_engine, {"block_size": 128}))
    assert json.loads(json.dumps(found)) == found and found["options"] == {"block_size": 128}
    chosen = {
        "attention_backend": "CPU_ATTN",
        "dtype": "float32",
        "enforce_eager": True,
        "cuda_graph_mode": "NONE",
        "async_scheduling": False,
        "max_num_batched_tokens": 4096,
        "max_num_seqs": 128,
        "block_size": 128,
        "tensor_parallel": 1,
    }
    assert {name: found[name] for name in chosen} == chosen
    assert found["model_runner"] == ("V2" if tiny_engine.llm_engine.vllm_config.use_v2_model_runner else "V1")


@pytest.mark.parametrize(
    ("module", "runner"),
    [
        ("vllm.v1.worker.gpu_model_runner", "V1"),
        ("vllm.v1.worker.gpu.model_runner", "V2"),
        ("vllm.v1.worker.cpu_model_runner", "V1"),
        ("vllm.v1.worker.cpu.model_runner", "V2"),
    ],
)
def test_both_runners_have_one_name_and_a_module_of_their_own(module: str, runner: str) -> None:
    def backend(name: str) -> Any:
        return SimpleNamespace(backend=SimpleNamespace(get_name=lambda: name))

    kind = type("GPUModelRunner", (), {"__module__": module})
    made = kind()
    made.attn_groups = [[backend("FLASH_ATTN")], [backend("FLASH_ATTN"), backend("TRITON_ATTN")]]
    assert _of_worker(SimpleNamespace(model_runner=made)) == (runner, "FLASH_ATTN, TRITON_ATTN")
