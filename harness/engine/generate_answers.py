"""A model's own answers to prompts, by an engine that is started for them."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

from harness.core.progress import progress_bar
from harness.engine.vllm_engine import engines_for, stream
from pruning.checkpoint import ModelFolder
from tasks.generation import Generation

Key = TypeVar("Key", bound=Hashable)


def generate_answers(
    model: ModelFolder,
    prompts: Mapping[Key, Sequence[int]],
    longest: int,
    threads: int | None,
    temperature: float = 0.0,
    seed: int = 0,
    stop: Sequence[str] = (),
) -> dict[Key, Generation]:
    """One answer of at most `longest` tokens to each prompt (token ids) that leaves room for one; greedy at temperature
    0.
    """
    context = model.shape.max_position_embeddings
    room = min(context, max(map(len, prompts.values()), default=0) + longest)
    asked = {key: list(ids) for key, ids in prompts.items() if len(ids) < room}
    title = f"Answers to {len(asked)} prompts by the model itself"
    with engines_for({"dense": model}, "auto", threads, room) as engines, progress_bar(title, len(asked)) as advance:
        from vllm import SamplingParams, TokensPrompt

        params = [
            SamplingParams(
                temperature=temperature, seed=seed + i, max_tokens=min(longest, room - len(ids)), stop=list(stop)
            )
            for i, ids in enumerate(asked.values())
        ]
        outputs = {}
        for position, output in stream(
            engines["dense"], [TokensPrompt(prompt_token_ids=ids) for ids in asked.values()], params
        ):
            outputs[position] = output
            advance(1)
    found = [outputs[position].outputs[0] for position in range(len(asked))]
    return {
        key: Generation(answer.text, {"finish_reason": answer.finish_reason, "n_tokens": len(answer.token_ids)})
        for key, answer in zip(asked, found, strict=True)
    }
