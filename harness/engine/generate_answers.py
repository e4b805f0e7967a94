"""A model's own answers to prompts."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from harness.core.chat import ChatFormat
from harness.core.progress import progress_bar
from harness.engine.answer_reader import reader_of
from harness.engine.memory_budget import EngineSettings
from harness.engine.vllm_engine import engines_for, stream
from pruning.checkpoint import ModelFolder
from tasks.generation import Generation

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Sampling:
    """How answers are drawn: at most `max_tokens`, greedy at temperature 0, up to one of the texts in `stop`.

    The answer to prompt i has the seed `seed` + i. chat: the template of the prompts, None where they are plain.
    """

    max_tokens: int
    temperature: float = 0.0
    seed: int = 0
    stop: Sequence[str] = ()
    chat: ChatFormat | None = None


def generate_answers(
    model: ModelFolder, prompts: Mapping[Key, Sequence[int]], sampling: Sampling, settings: EngineSettings
) -> dict[Key, Generation]:
    """The model's answers, by an engine that is started for them.

    Args:
        model: the model that answers.
        prompts: key -> token ids.
        sampling: how the answers are drawn.
        settings: how the engine is started, but for its context, which the prompts decide.

    Returns:
        key -> answer, without the prompts that leave no room for one in the model's context.
    """
    context = model.shape.max_position_embeddings
    room = min(context, max(map(len, prompts.values()), default=0) + sampling.max_tokens)
    asked = {key: list(ids) for key, ids in prompts.items() if len(ids) < room}
    started = replace(settings, max_model_len=room, whole_prompts=True)
    title = f"Answers to {len(asked)} prompts by the model itself"
    with (
        engines_for({"dense": model}, started) as engines,
        progress_bar(title, len(asked)) as advance,
    ):
        from vllm import SamplingParams, TokensPrompt

        reader = reader_of(sampling.chat.prompt_end if sampling.chat else "", sampling.chat, sampling.stop)
        params = [
            SamplingParams(
                temperature=sampling.temperature,
                seed=sampling.seed + i,
                max_tokens=min(sampling.max_tokens, room - len(ids)),
                **reader.sampling,
            )
            for i, ids in enumerate(asked.values())
        ]
        outputs = {}
        for position, output in stream(
            engines["dense"], [TokensPrompt(prompt_token_ids=ids) for ids in asked.values()], params
        ):
            outputs[position] = output
            advance(1)
    return {key: reader.read(outputs[position]) for position, key in enumerate(asked)}
