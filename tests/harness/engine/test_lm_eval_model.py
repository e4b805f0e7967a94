"""Likelihoods from the engine against transformers in FP32, through lm-eval."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.core.chat import ChatFormat, chat_format
from harness.core.reasoning import TAGS
from harness.engine import lm_eval_model
from harness.engine.generation_cache import GenerationCache
from harness.engine.lm_eval_model import ResponseCallbacks, answer_requests, make_language_model
from harness.evaluation.evaluate import evaluate
from harness.evaluation.lm_eval_requests import EvalSpec, VariantEval
from harness.evaluation.paired import read_samples
from tasks.generation import Generation
from tasks.registry import find_task
from tests.support.chat import REFUSES_SYSTEM, THINKS, tokenizer_with
from tests.support.data import make_data_folder
from tests.support.models import TINY_MATH


@pytest.fixture
def vllm_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """vLLM's request types as plain values, as importing it takes longer than what is asked here."""
    names = SimpleNamespace(SamplingParams=SimpleNamespace, TokensPrompt=dict)
    monkeypatch.setitem(sys.modules, "vllm", names)  # type: ignore[arg-type]


def request_of(longest: int, **settings: Any) -> Any:
    return SimpleNamespace(args=("question", {"max_gen_toks": longest, "until": ["\n"], **settings}), doc={})


@pytest.mark.usefixtures("vllm_names")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(length=st.integers(1, 300), longest=st.integers(1, 200), context=st.integers(8, 128))
def test_prompt_and_answer_fit_the_context_and_the_end_of_the_prompt_stays(
    length: int, longest: int, context: int
) -> None:
    ids = list(range(length))
    found = lm_eval_model.engine_request(lambda _: ids, request_of(longest), context)
    prompt = found.prompt["prompt_token_ids"]
    assert len(prompt) + found.params.max_tokens <= context and found.params.max_tokens >= 1
    assert prompt == ids[length - len(prompt) :] and found.was_cut is (len(prompt) < length)
    if length + longest <= context:
        assert not found.was_cut and found.params.max_tokens == longest
    if found.was_cut:
        assert len(prompt) == max(context - longest, context // 2), "it gives way to the answer, to half the context"
    else:
        assert found.params.max_tokens == min(longest, context - length)


@pytest.mark.usefixtures("vllm_names")
def test_settings_are_read_as_lm_eval_reads_them() -> None:
    def params(**settings: Any) -> Any:
        request = SimpleNamespace(args=("question", {"until": ["\n"], **settings}), doc={})
        return lm_eval_model.engine_request(lambda _: [1], request, 512).params

    greedy = {"temperature": 0.0, "max_tokens": 5, "stop": ["\n"]}
    for name in ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens"):
        assert vars(params(**{name: 5})) == greedy
    assert params().max_tokens == 256 and params(until="end").stop == ["end"]
    assert vars(params(max_tokens=5, do_sample=False, temperature=0.7, top_p=0.9)) == greedy
    sampled = params(temperature=0.7, top_p=0.9, repetition_penalty=1.1)
    assert (sampled.temperature, sampled.top_p, sampled.repetition_penalty) == (0.7, 0.9, 1.1)
    assert params(do_sample=True).temperature == 1.0, "the default of transformers and vLLM"


@pytest.mark.usefixtures("vllm_names")
@pytest.mark.parametrize(("sampled", "different"), [(True, 4), (False, 1)])
def test_repeats_of_a_sampled_answer_are_kept_apart(sampled: bool, different: int) -> None:
    request = SimpleNamespace(args=("question", {"max_gen_toks": 4, "do_sample": sampled, "temperature": 1.0}), doc={})
    asked = [lm_eval_model.engine_request(lambda _: [1], request, 64) for _ in range(4)]
    assert len({one.key for one in lm_eval_model._numbered(asked)}) == different


@pytest.mark.usefixtures("vllm_names")
def test_what_was_generated_before_is_not_asked_and_all_is_heard_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three prompts, of which one is kept; the engine answers the others in reverse."""
    asked: list[list[int]] = []

    def stream(_: Any, prompts: list[Any], __: Any) -> Iterator[tuple[int, Any]]:
        asked.extend(prompt["prompt_token_ids"] for prompt in prompts)
        for position in reversed(range(len(prompts))):
            text = SimpleNamespace(text=f"new {asked[position][0]}", finish_reason="stop", token_ids=[1])
            yield position, SimpleNamespace(outputs=[text])

    monkeypatch.setattr(lm_eval_model, "stream", stream)
    requests = [SimpleNamespace(args=(str(i), {"max_gen_toks": 4}), doc=i) for i in range(3)]
    heard, steps = [], []
    with GenerationCache(tmp_path / "kept", "w") as kept:
        known = lm_eval_model.engine_request(lambda text: [int(text)], requests[1], 64).key
        kept.add(known, Generation("old 1", {}))
        callbacks = ResponseCallbacks(kept, lambda doc, answer: heard.append((doc, str(answer))), steps.append)
        found = answer_requests(None, lambda text: [int(text)], requests, 64, callbacks)
    assert found == ["new 0", "old 1", "new 2"] and asked == [[0], [2]]
    assert sorted(heard) == [(0, "new 0"), (1, "old 1"), (2, "new 2")] and steps == [1, 1, 1]


def log_likelihood(model: Any, ids: list[int], start: int) -> float:
    """Sum of log P(ids[i] | ids[:i]) for i from `start`."""
    import torch

    with torch.no_grad():
        scores = model(torch.tensor([ids])).logits[0].log_softmax(-1)
    return float(sum(scores[i - 1, ids[i]] for i in range(start, len(ids))))


def test_the_engines_likelihoods_are_those_of_transformers(
    tiny_engine: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    monkeypatch.setenv("HARNESS_DATA_DIR", str(tmp_path))
    make_data_folder(tmp_path)
    model, tokenizer = (
        AutoModelForCausalLM.from_pretrained(TINY_MATH, dtype=torch.float32),
        AutoTokenizer.from_pretrained(TINY_MATH),
    )
    lm = make_language_model(tiny_engine, 64, chat=None)
    pairs = [([5, 6, 7], [8, 9]), ([5], [6] * 3), (list(range(10, 90)), [5, 6, 7])]
    found = lm._loglikelihood_tokens([(None, *pair) for pair in pairs])
    for (context, continuation), (value, _) in zip(pairs, found, strict=True):
        ids = (context + continuation)[-63:]
        assert value == pytest.approx(log_likelihood(model, ids, len(ids) - len(continuation)), abs=1e-3)
        assert value.n_tokens == len(continuation)
    greedy = int(model(torch.tensor([[5, 6, 7]])).logits[0, -1].argmax())
    asked = [(None, [5, 6, 7], [greedy]), (None, [5, 6, 7], [greedy - 1])]
    assert [is_greedy for _, is_greedy in lm._loglikelihood_tokens(asked)] == [True, False]
    text = "Tom has 3 apples. " * 20
    ids = [int(lm.prefix_token_id), *tokenizer(text, add_special_tokens=False)["input_ids"]]
    rolled = lm.loglikelihood_rolling([SimpleNamespace(args=(text,))])[0]
    first = log_likelihood(model, ids[:63], 1)  # 62 tokens are scored behind the prefix, the others in the next windows
    assert rolled < first and rolled.n_tokens == len(ids) - 1
    tasks = (find_task("gsm8k_answers"), find_task("wikitext"))
    results = evaluate(
        tiny_engine, EvalSpec("tiny-math", tasks, 64, chat=None, limit=4), VariantEval(tmp_path / "run", "dense")
    )
    rows = read_samples(tmp_path / "run" / "samples" / "dense" / "gsm8k_answers.jsonl")
    for row in rows.values():
        prompt, whole = (tokenizer(t)["input_ids"] for t in (row["prompt"], row["prompt"] + row["text"]))
        assert row["units"] == row["n_tokens"] == min(len(whole) - len(prompt), 62)
        if len(whole) < 63:
            assert -row["nll"] == pytest.approx(log_likelihood(model, whole, len(prompt)), abs=1e-2)
    assert results["gsm8k_answers"].metric == "perplexity" and results["wikitext"].n == 4


@pytest.mark.usefixtures("vllm_names")
def test_the_answer_is_what_follows_the_reasoning(monkeypatch: pytest.MonkeyPatch) -> None:
    def stream(_: Any, __: Any, params: list[Any]) -> Iterator[tuple[int, Any]]:
        assert [one.stop for one in params] == [None, None]
        for position, text in enumerate(("#### 3?\n\n\n</think>\n\n#### 4\n more", "#### 3")):
            yield position, SimpleNamespace(outputs=[SimpleNamespace(text=text, finish_reason="stop", token_ids=[1])])

    monkeypatch.setattr(lm_eval_model, "stream", stream)
    requests = [SimpleNamespace(args=(f"{i}<think>\n", {"until": ["\n"]}), doc=i) for i in range(2)]
    chat = ChatFormat(knows=TAGS[:1])
    found: list[Any] = list(answer_requests(None, lambda _: [1], requests, 64, chat=chat))
    assert found == ["#### 4", ""] and [one.meta["reasoning_closed"] for one in found] == [True, False]


@pytest.mark.slow
def test_lm_eval_gets_prompts_without_a_system_turn_and_scores_answers_after_reasoning() -> None:
    def model_of(template: str) -> Any:
        tokenizer = tokenizer_with(template)
        llm = SimpleNamespace(get_tokenizer=lambda: tokenizer)
        return make_language_model(llm, 64, chat_format(tokenizer, {}, "m"))

    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2+2?"}]
    lm = model_of(REFUSES_SYSTEM)
    assert lm.apply_chat_template(turns) == "<|im_start|>user\nBe brief.\n\n2+2?<|im_end|>\n<|im_start|>assistant\n"
    assert lm.apply_chat_template([*turns, {"role": "assistant", "content": "So"}], False).endswith("assistant\nSo")
    lm = model_of(THINKS)
    context, answer = lm._encode_pair(lm.apply_chat_template(turns), "4")
    whole = lm.tokenizer.decode(context + answer)
    assert whole.endswith("assistant\n<think>\n\n</think>\n\n4") and lm.tokenizer.decode(answer).strip() == "4"
