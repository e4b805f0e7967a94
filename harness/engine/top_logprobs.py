"""The most probable next tokens of a running engine at given places of given texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.engine.vllm_engine import stream

MOST = 20  # tokens of a place: what vLLM gives at most where it is not told otherwise (max_logprobs)
TopLogprobs = dict[int, float]  # token id -> log probability in nats


def top_logprobs(llm: Any, pairs: Sequence[tuple[list[int], list[int]]]) -> list[list[TopLogprobs]]:
    """What the model gives for each token of the continuations, from prompt and continuation in one forward pass.

    Args:
        llm: A vllm.LLM.
        pairs: (context, continuation) as token ids; together shorter than the engine's context, by one token.

    Returns:
        Of every token of every continuation: the most probable tokens in its place, at most 20, and the token itself.

    Raises:
        MeasurementError: vLLM cannot run the model.
    """
    from vllm import SamplingParams, TokensPrompt

    allowed = llm.llm_engine.vllm_config.model_config.max_logprobs  # -1: any number
    count = MOST if allowed < 0 else min(MOST, allowed)
    prompts = [TokensPrompt(prompt_token_ids=context + continuation) for context, continuation in pairs]
    light = {"detokenize": False, "flat_logprobs": True}  # no text and no object for each of 20 tokens of every place
    params = [SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=count, **light) for _ in pairs]
    found: dict[int, list[TopLogprobs]] = {}
    for number, output in stream(llm, prompts, params):  # one output at a time: those of long prompts are large
        places = output.prompt_logprobs[len(pairs[number][0]) :]
        found[number] = [{token: entry.logprob for token, entry in place.items()} for place in places]
    return [found[number] for number in range(len(pairs))]
