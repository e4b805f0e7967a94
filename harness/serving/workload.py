"""The requests that every variant answers when it is timed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from harness.config.settings import RunConfig
from harness.core.bounded_read import read_bytes
from harness.core.chat import prompt_ids
from harness.core.errors import UsageError
from harness.models.tokenizer import load_chat, load_tokenizer
from pruning.checkpoint import ModelFolder
from tasks import registry
from tasks.registry import CALIBRATION_SEED
from tasks.task import Task

_LEAST_REQUESTS = 4
_SPECIAL_TOKENS = 8
_TRIES = 5
_TOKENIZER_BYTES = 256 << 20


def task_prompts(model: ModelFolder, task: Task, count: int, template_args: Mapping[str, Any]) -> list[list[int]]:
    """Training prompts of the task as token ids, in the form in which it is evaluated."""
    tokenizer, chat = load_chat(model, template_args)
    _, examples = registry.calibration(task, count, CALIBRATION_SEED)
    return [prompt_ids(tokenizer, example, chat) for example in examples]


@dataclass(frozen=True)
class Workload:
    """The requests that every variant answers. `natural`: answers end by themselves, after `output_tokens` at the
    latest.

    least_seconds: a pass repeats the requests until the first variant takes so long, as the clock of a short one says
    little.
    """

    name: str
    prompts: tuple[tuple[int, ...], ...]
    output_tokens: int
    stop_at_eos: bool = False
    requests: int | None = None
    least_seconds: float = 0.0

    def requests_for(self, concurrency: int) -> list[tuple[int, ...]]:
        count = self.requests or max(concurrency, _LEAST_REQUESTS)
        return [self.prompts[i % len(self.prompts)] for i in range(count)]

    @property
    def prompt_tokens(self) -> int:
        """On average."""
        return round(sum(map(len, self.prompts)) / len(self.prompts))

    @property
    def context(self) -> int:
        """The most tokens that a request needs; some more for what a server's tokenizer puts before a text."""
        return max(map(len, self.prompts)) + self.output_tokens + _SPECIAL_TOKENS


def random_prompts(count: int, tokens: int, vocabulary: int, seed: int = 0) -> tuple[tuple[int, ...], ...]:
    """Token ids at random, evenly between half and one and a half times `tokens` of them."""
    draw = np.random.default_rng(seed)
    sizes = draw.integers(max(1, tokens // 2), tokens + tokens // 2 + 1, count)
    return tuple(tuple(int(i) for i in draw.integers(0, vocabulary, size)) for size in sizes)


def make_workload(config: RunConfig, model: ModelFolder, task: Task) -> Workload:
    """The task's own prompts, or random ones where their length is given; as many as go on at a time."""
    count = max(*config.concurrency, config.requests or 0, 4)
    length = (config.output_tokens, config.stop_at_eos, config.requests)
    if not config.input_tokens:
        prompts = tuple(map(tuple, task_prompts(model, task, count, config.template_args)))
        return Workload(task.name, prompts, *length)
    tokenizer = load_tokenizer(model)
    drawn = random_prompts(count, config.input_tokens, model.shape.vocab_size)
    prompts = tuple(_as_text(tokenizer, prompt) for prompt in drawn)
    return Workload(f"random, {min(map(len, prompts))} to {max(map(len, prompts))} tokens", prompts, *length)


def _as_text(tokenizer: Any, prompt: tuple[int, ...]) -> tuple[int, ...]:
    """Tokens that a server which is sent their text sees again, as few as the prompt has or less."""
    for _ in range(_TRIES):
        again = tuple(tokenizer.encode(tokenizer.decode(list(prompt)), add_special_tokens=False))[: len(prompt)]
        if again == prompt:
            break
        prompt = again
    return prompt


def in_vocabulary_of(model: ModelFolder, workload: Workload, first: ModelFolder) -> Workload:
    """The same requests for a model with another vocabulary than the one that they were made for: the same texts, as
    its own tokens.
    """
    if model is first or _tokenizer_file(model) == _tokenizer_file(first):
        return workload
    made, own = load_tokenizer(first), load_tokenizer(model)
    if own.get_vocab() == made.get_vocab():
        return workload
    texts = [made.decode(list(prompt)) for prompt in workload.prompts]
    prompts = tuple(tuple(own.encode(text, add_special_tokens=False)) for text in texts)
    return replace(workload, prompts=prompts)


def _tokenizer_file(model: ModelFolder) -> bytes | None:
    file = model.path / "tokenizer.json"
    return read_bytes(file, _TOKENIZER_BYTES) if file.exists() else None


def longest(workloads: Mapping[str, Workload]) -> Workload:
    """Of the same requests in several vocabularies, those that need most room."""
    return max(workloads.values(), key=lambda workload: workload.context)


def check_context(model: ModelFolder, workload: Workload) -> None:
    """Raises UsageError where prompts and answers are longer than the model can take, or made for another
    vocabulary.
    """
    shape = model.shape
    if workload.context > shape.max_position_embeddings:
        raise UsageError(
            f"prompts and answers take up to {workload.context} tokens and the context of {model.path} is "
            f"{shape.max_position_embeddings}; "
            "give a smaller --output-tokens or --input-tokens"
        )
    if max(map(max, workload.prompts)) >= shape.vocab_size:
        raise UsageError(
            f"{model.path} has another vocabulary than the first model; the same requests cannot be put to both"
        )
