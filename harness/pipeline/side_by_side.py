"""Two models answer the same prompts: greedy, each in its own chat template."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from harness.config.settings import RunConfig
from harness.core.chat import ChatFormat, prompt_ids
from harness.core.errors import UsageError
from harness.core.progress import say
from harness.core.types.calibration import Example
from harness.engine.answer_reader import reader_of
from harness.engine.devices import check_divides, check_gpus
from harness.engine.engine_settings import engine_settings
from harness.engine.library_settings import library_settings
from harness.engine.memory_budget import EngineSettings, fit_together
from harness.engine.vllm_engine import engines_for, generate
from harness.models import registry
from harness.models.skeleton import check_buildable
from harness.models.tokenizer import load_chat
from harness.pipeline.run_context import longest_context
from harness.pipeline.single_stage import apart, row_name
from pruning.checkpoint import ModelFolder


@dataclass(frozen=True)
class Answer:
    """A model's answer, with its reasoning where it wrote some. tokens: that it generated; ended: whether it came to
    its end before the limit.
    """

    model: str
    text: str
    tokens: int
    ended: bool


Ask = Callable[[str], list[Answer]]


@dataclass(frozen=True)
class _Answerer:
    model: ModelFolder
    tokenizer: Any
    chat: ChatFormat | None


@contextmanager
def answering(config: RunConfig, names: Sequence[str], most_tokens: int) -> Iterator[Ask]:
    """Starts the engines of models, side by side where the device has room for them, else one at a time for every
    prompt.

    Args:
        config: Dtype, engine and the variables of the chat template.
        names: Of the models, as they are given.
        most_tokens: Tokens of an answer.

    Yields:
        A function from a prompt, a question without what was said before it, to one answer per model. It raises
        UsageError for a prompt that leaves no room for an answer.

    Raises:
        UsageError: A model cannot be used.
        MeasurementError: vLLM cannot load it.
    """
    check_gpus(config.tensor_parallel)
    models = apart([(row_name(name), registry.locate(name, "math")) for name in names])
    answerers = {name: _answerer(model, config) for name, model in models.items()}
    settings = engine_settings(config, min(map(longest_context, models.values())))
    with library_settings(config.threads):
        if fit_together(models, config.tensor_parallel, config.dtype):
            with engines_for(models, settings) as engines:
                for name in models:
                    engines[name]
                yield lambda prompt: [
                    _ask(engines[name], answerers[name], name, prompt, most_tokens, settings.max_model_len)
                    for name in models
                ]
        else:
            say("the device has no room for both, so each is loaded for every prompt")
            yield lambda prompt: _one_at_a_time(answerers, prompt, most_tokens, settings)


def _answerer(model: ModelFolder, config: RunConfig) -> _Answerer:
    check_divides(str(model.path), model.shape, model.widths, config.tensor_parallel)
    check_buildable(model)
    return _Answerer(model, *load_chat(model, config.template_args))


def _one_at_a_time(
    answerers: Mapping[str, _Answerer], prompt: str, most_tokens: int, settings: EngineSettings
) -> list[Answer]:
    found = []
    for name, answerer in answerers.items():
        with engines_for({name: answerer.model}, settings) as engines:
            found.append(_ask(engines[name], answerer, name, prompt, most_tokens, settings.max_model_len))
    return found


def _ask(llm: Any, answerer: _Answerer, name: str, prompt: str, most_tokens: int, context: int) -> Answer:
    from vllm import SamplingParams, TokensPrompt

    ids = prompt_ids(answerer.tokenizer, Example(prompt, ""), answerer.chat)
    if len(ids) >= context:
        raise UsageError(f"the prompt has {len(ids)} tokens and {name} takes {context} with its answer; shorten it")
    reader = reader_of(answerer.chat.prompt_end if answerer.chat else "", answerer.chat, ())
    params = SamplingParams(temperature=0, max_tokens=min(most_tokens, context - len(ids)), **reader.sampling)
    found = reader.read(generate(llm, [TokensPrompt(prompt_token_ids=ids)], params)[0])
    return Answer(name, found.written, found.meta["n_tokens"], found.meta["finish_reason"] == "stop")
