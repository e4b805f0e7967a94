"""Settings of a small engine, and what is asked of it."""

from __future__ import annotations

from typing import Any

import numpy as np

from harness.engine.memory_budget import EngineSettings
from harness.engine.vllm_engine import generate

SMALL = EngineSettings(max_model_len=512, kv_cache_bytes=1 << 26, threads=1)


PROMPTS = [
    [int(t) for t in np.random.default_rng(i).integers(2, 1000, 40 + 70 * i)] for i in range(4)
]  # up to 250 tokens, blocks of 128


def answers(llm: Any) -> list[list[int]]:
    from vllm import SamplingParams, TokensPrompt

    params = SamplingParams(temperature=0.0, max_tokens=16, ignore_eos=True)
    return [
        list(o.outputs[0].token_ids) for o in generate(llm, [TokensPrompt(prompt_token_ids=p) for p in PROMPTS], params)
    ]
