"""Which prompts are asked and for how many tokens, with an engine that only says what it was asked."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from harness.core.chat import ChatFormat
from harness.core.reasoning import TAGS
from harness.engine import generate_answers as module
from harness.engine.memory_budget import EngineSettings
from pruning.checkpoint import open_model
from tests.support.models import TINY_MATH

started: list[EngineSettings] = []  # how the engines were started


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """(prompt, settings) of every request; answers come in reverse order and hold their prompt."""
    seen: list[Any] = []
    started.clear()

    @contextmanager
    def engines(_: Any, settings: EngineSettings) -> Iterator[dict[str, None]]:
        assert settings.max_model_len <= 512
        started.append(settings)
        yield {"dense": None}

    def stream(_: Any, prompts: list[Any], params: list[Any]) -> Iterator[tuple[int, Any]]:
        seen.extend(zip(prompts, params, strict=True))
        for position in reversed(range(len(prompts))):
            ids = prompts[position]["prompt_token_ids"]
            text = SimpleNamespace(text=f"answer to {ids[0]}", finish_reason="stop", token_ids=[1, 2])
            yield position, SimpleNamespace(outputs=[text])

    monkeypatch.setattr(module, "engines_for", engines)
    monkeypatch.setattr(module, "stream", stream)
    monkeypatch.setitem(sys.modules, "vllm", SimpleNamespace(SamplingParams=SimpleNamespace, TokensPrompt=dict))  # type: ignore[arg-type]
    return seen


def test_answers_belong_to_their_prompts_whatever_the_order(asked: list[Any]) -> None:
    found = module.generate_answers(
        open_model(TINY_MATH), {"a": [5], "b": [7, 7]}, module.Sampling(10), EngineSettings()
    )
    assert {key: str(answer) for key, answer in found.items()} == {"a": "answer to 5", "b": "answer to 7"}
    assert found["a"].meta == {"finish_reason": "stop", "n_tokens": 2}
    assert [params.max_tokens for _, params in asked] == [10, 10] and asked[0][1].temperature == 0.0


def test_an_answer_ends_with_the_context_and_a_prompt_that_fills_it_is_left_out(asked: list[Any]) -> None:
    """The embedded model's context is 512 tokens."""
    prompts = {length: [length] * length for length in (300, 508, 511, 512, 600)}
    found = module.generate_answers(open_model(TINY_MATH), prompts, module.Sampling(100), EngineSettings())
    assert list(found) == [300, 508, 511]
    assert [params.max_tokens for _, params in asked] == [100, 4, 1]


def test_samples_have_a_seed_each_and_the_texts_that_end_them(asked: list[Any]) -> None:
    sampling = module.Sampling(5, temperature=0.7, seed=40, stop=("\n",))
    module.generate_answers(open_model(TINY_MATH), {i: [i + 1] for i in range(3)}, sampling, EngineSettings())
    assert [(params.seed, params.temperature, params.stop) for _, params in asked] == [
        (40 + i, 0.7, ["\n"]) for i in range(3)
    ]


def test_reasoning_stands_apart_from_the_answer_and_does_not_end_at_a_stop_string(asked: list[Any]) -> None:
    """The engine's answers hold no closing tag."""
    chat = ChatFormat(knows=TAGS[:1], prompt_end="assistant\n<think>\n")
    sampling = module.Sampling(5, stop=("answer",), chat=chat)
    found = module.generate_answers(open_model(TINY_MATH), {"a": [5]}, sampling, EngineSettings())["a"]
    assert asked[0][1].stop is None
    assert (str(found), found.written, found.meta["reasoning_closed"]) == ("", "answer to 5", False)


@pytest.mark.usefixtures("asked")
def test_the_engine_is_started_as_it_was_asked_for_but_for_its_context() -> None:
    settings = EngineSettings(dtype="float16", threads=3, tensor_parallel=2, options={"block_size": 32})
    module.generate_answers(open_model(TINY_MATH), {"a": [5]}, module.Sampling(10), settings)
    assert started == [replace(settings, max_model_len=11, whole_prompts=True)]


@pytest.mark.slow
def test_more_sampled_prompts_than_a_step_of_the_engine_takes_are_answered() -> None:
    """vLLM's CPU back end ended where a prompt whose request has a seed was read in parts."""
    prompts = {number: [20 + (7 * number + i) % 900 for i in range(200)] for number in range(50)}
    sampling = module.Sampling(2, temperature=0.7)
    assert len(module.generate_answers(open_model(TINY_MATH), prompts, sampling, EngineSettings())) == 50
