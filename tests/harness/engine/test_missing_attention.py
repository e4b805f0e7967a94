"""Layers without attention on vLLM by the plugin: its tokens, and its own count of the KV cache."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from harness.engine.memory_budget import EngineSettings
from harness.engine.vllm_engine import engines_for, generate, kv_bytes_per_token
from pruning.checkpoint import open_model
from pruning.export import export
from pruning.families import FAMILIES
from pruning.loader import load_pruned
from tests.support.pruned import plan_keeping
from tests.support.structures import grouped_model, ids

pytestmark = pytest.mark.long


@pytest.mark.parametrize("model_type", sorted(name for name, one in FAMILIES.items() if one.can_lack_attention))
def test_vllm_runs_and_caches_what_stays(model_type: str, tmp_path: Path) -> None:
    """Two of three layers without attention, of other FFN widths. vLLM on a CPU needs 32 channels a head."""
    from vllm import SamplingParams, TokensPrompt

    model = open_model(grouped_model(model_type, tmp_path / "dense", hidden_size=192, head_dim=32))
    plan = plan_keeping(model.path, [range(96), range(40), range(96)])
    made = export(model, replace(plan, structure="joint", skip_attention=(1, 2)), tmp_path / "pruned")
    prompts = [ids()[i].tolist() for i in (0, 1)]
    with engines_for({"made": made}, EngineSettings(dtype="float32", max_model_len=64, max_num_seqs=2)) as engines:
        llm = engines["made"]
        params = SamplingParams(temperature=0.0, max_tokens=16, ignore_eos=True)
        made_of = generate(llm, [TokensPrompt(prompt_token_ids=prompt) for prompt in prompts], params)
        answers = [list(one.outputs[0].token_ids) for one in made_of]
        assert kv_bytes_per_token(llm) == made.shape.kv_bytes_per_token == model.shape.kv_bytes_per_token // 3
    reference = load_pruned(made, torch.float32)
    for prompt, answer in zip(prompts, answers, strict=True):
        with torch.no_grad():
            found = reference(torch.tensor([prompt + answer])).logits[0]
        assert found[len(prompt) - 1 : -1].argmax(dim=1).tolist() == answer
