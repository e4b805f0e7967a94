"""One engine for many tests, settings of a small one, and what is asked of it."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import numpy as np

from harness.engine.memory_budget import EngineSettings
from harness.engine.vllm_engine import engine, generate
from pruning.checkpoint import open_model
from tests.support.models import TINY_MATH

SMALL = EngineSettings(max_model_len=512, kv_cache_bytes=1 << 27, threads=1)


PROMPTS = [
    [int(t) for t in np.random.default_rng(i).integers(2, 1000, 40 + 70 * i)] for i in range(4)
]  # up to 250 tokens, blocks of 128


class SharedEngine:
    """vLLM on the embedded model, for all tests of a process that only need some engine.

    It is started again where another engine of the process has ended since: vLLM then takes away what all of them use.
    """

    def __init__(self) -> None:
        self._stack, self._llm = ExitStack(), None

    def __call__(self) -> Any:
        if self._llm is None or not _is_usable():
            self.close()
            self._llm = self._stack.enter_context(engine(open_model(TINY_MATH), SMALL))
        return self._llm

    def close(self) -> None:
        self._llm = None
        self._stack.close()


def _is_usable() -> bool:
    from vllm.distributed.parallel_state import model_parallel_is_initialized

    return bool(model_parallel_is_initialized())


def answers(llm: Any) -> list[list[int]]:
    from vllm import SamplingParams, TokensPrompt

    params = SamplingParams(temperature=0.0, max_tokens=16, ignore_eos=True)
    return [
        list(o.outputs[0].token_ids) for o in generate(llm, [TokensPrompt(prompt_token_ids=p) for p in PROMPTS], params)
    ]
