"""Plain folders with fewer KV groups or layers on vLLM: its tokens, and its own count of the KV cache."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from harness.engine.memory_budget import EngineSettings
from harness.engine.vllm_engine import engines_for, generate, kv_bytes_per_token
from pruning.checkpoint import open_model
from pruning.export import export
from tests.support.models import plain
from tests.support.structures import grouped_model, ids, without

pytestmark = pytest.mark.long


@pytest.mark.parametrize("model_type", ["llama", "qwen2", "qwen3"])
def test_vllm_runs_and_caches_what_stays(model_type: str, tmp_path: Path) -> None:
    """A third of the KV groups and a third of the layers gone: four ninths of the cache's bytes. vLLM on a CPU needs 32
    channels a head.
    """
    from vllm import SamplingParams, TokensPrompt

    model = open_model(grouped_model(model_type, tmp_path / "dense", head_dim=32))
    changes = {"kv_keep": ((0, 2), (1, 2), (0, 1)), "skip_attention": (1,), "skip_ffn": (1,)}
    made = export(model, without(model.path, "kv_group", **changes), tmp_path / "pruned")
    prompt = ids()[0].tolist()
    with engines_for({"made": made}, EngineSettings(dtype="float32", max_model_len=64, max_num_seqs=2)) as engines:
        llm = engines["made"]
        params = SamplingParams(temperature=0.0, max_tokens=16, ignore_eos=True)
        answer = list(generate(llm, [TokensPrompt(prompt_token_ids=prompt)], params)[0].outputs[0].token_ids)
        assert kv_bytes_per_token(llm) == made.shape.kv_bytes_per_token == model.shape.kv_bytes_per_token * 4 // 9
    with torch.no_grad():
        found = plain(made.path, dtype=torch.float32)(torch.tensor([prompt + answer])).logits[0]
    assert found[len(prompt) - 1 : -1].argmax(dim=1).tolist() == answer
