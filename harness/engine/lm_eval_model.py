"""A running engine as an lm-eval model: it answers lm-eval's requests and keeps what the graders need to know."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from harness.core.chat import ChatFormat
from harness.core.reasoning import follow_prompt
from harness.engine.answer_reader import AnswerReader, reader_of
from harness.engine.generation_cache import GenerationCache, key_of
from harness.engine.vllm_engine import generate, stream
from tasks.generation import Generation, Likelihood

Ids = list[int]
METHODS = ("generate_until", "loglikelihood", "loglikelihood_rolling")  # by which lm-eval asks


Encode = Callable[[str], Ids]
_LONGEST_ANSWER = 256  # tokens, where a task does not say
_SAMPLING = ("top_p", "top_k", "min_p", "seed")  # what SamplingParams takes of a task's settings
_PENALTIES = ("repetition_penalty", "presence_penalty", "frequency_penalty")


@dataclass(frozen=True)
class ResponseCallbacks:
    """What is called with every finished answer.

    Attributes:
        generation_cache: Keeps the answer on disk.
        submit: Starts grading it.
        advance: Advances the progress bar.
    """

    generation_cache: GenerationCache | None = None
    submit: Callable[[Any, Generation], Any] | None = None
    advance: Callable[[int], None] | None = None

    def verdict(self, request: Any, answer: Generation) -> None:
        """Starts the grading of an answer; `answer.verdict` is then a future of the grade."""
        if self.advance:
            self.advance(1)
        if self.submit:
            answer.verdict = self.submit(request.doc, answer)


class _Prompts:
    """The half of a TemplateLM that concerns text and token ids."""

    def __init__(self, tokenizer: Any, chat: ChatFormat | None) -> None:
        self.tokenizer, self.chat = tokenizer, chat

    @property
    def eot_token_id(self) -> int:
        return int(self.tokenizer.eos_token_id)

    @property
    def prefix_token_id(self) -> int:
        """What a text without context is conditioned on."""
        start = self.tokenizer.bos_token_id
        return self.eot_token_id if start is None else int(start)

    def tok_encode(self, string: str, **_: Any) -> Ids:
        return list(self.tokenizer(string, add_special_tokens=self.chat is None)["input_ids"])

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        assert self.chat is not None, "lm-eval formats a chat only where there is a template"
        return self.chat.render(self.tokenizer, chat_history, add_generation_prompt, not add_generation_prompt)


def make_language_model(
    llm: Any, max_model_len: int, chat: ChatFormat | None, callbacks: ResponseCallbacks = ResponseCallbacks()
) -> Any:
    """An lm-eval TemplateLM around a running engine.

    Args:
        llm: a vllm.LLM.
        max_model_len: tokens of a prompt and its answer.
        chat: how prompts are formatted by the chat template, which adds its own start token; None: they are plain.
        callbacks: what happens to each answer.
    """
    from lm_eval.api.model import TemplateLM

    class EngineLM(_Prompts, TemplateLM):  # type: ignore[misc]  # lm-eval has no types
        tokenizer_name = "engine"

        def __init__(self) -> None:
            TemplateLM.__init__(self)
            _Prompts.__init__(self, llm.get_tokenizer(), chat)

        def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:  # noqa: ARG002
            return answer_requests(llm, self.tok_encode, requests, max_model_len, callbacks, chat)

        def loglikelihood(self, requests: list[Any], disable_tqdm: bool = True) -> list[Any]:
            return list(super().loglikelihood(requests, disable_tqdm))

        def _encode_pair(self, context: str, continuation: str) -> tuple[Ids, Ids]:
            """A given answer follows reasoning that is closed."""
            closing, _ = follow_prompt(context, "", chat.before_answer) if chat else ("", "")
            context_ids, answer_ids = super()._encode_pair(context + closing, continuation)
            return list(context_ids), list(answer_ids)

        def _loglikelihood_tokens(self, requests: list[Any], **_: Any) -> list[Any]:
            return likelihoods(llm, [(context, continuation) for _, context, continuation in requests], max_model_len)

        def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:  # noqa: ARG002
            texts = [self.tokenizer(request.args[0], add_special_tokens=False)["input_ids"] for request in requests]
            return rolling_likelihoods(llm, texts, self.prefix_token_id, max_model_len)

    return EngineLM()


def answer_requests(
    llm: Any,
    encode: Encode,
    requests: Sequence[Any],
    max_model_len: int,
    callbacks: ResponseCallbacks = ResponseCallbacks(),
    chat: ChatFormat | None = None,
) -> list[str]:
    """The answers to lm-eval's requests, in their order, without the reasoning before them.

    A prompt that is too long for the context loses its beginning, and its answer is marked as `prompt_truncated`.
    """
    asked = _numbered([engine_request(encode, request, max_model_len, chat) for request in requests])
    answers = {
        i: known
        for i, one in enumerate(asked)
        if (known := callbacks.generation_cache.get(one.key) if callbacks.generation_cache else None) is not None
    }
    for i, answer in answers.items():
        callbacks.verdict(requests[i], answer)
    left = [i for i in range(len(asked)) if i not in answers]
    for position, output in stream(llm, [asked[i].prompt for i in left], [asked[i].params for i in left]):
        i = left[position]
        answers[i] = asked[i].reader.read(output, prompt_truncated=asked[i].was_cut)
        if callbacks.generation_cache:
            callbacks.generation_cache.add(asked[i].key, answers[i])
        callbacks.verdict(requests[i], answers[i])
    return [answers[i] for i in range(len(asked))]


@dataclass(frozen=True)
class EngineRequest:
    """A request in vLLM's terms."""

    prompt: Any
    params: Any
    was_cut: bool
    key: str
    reader: AnswerReader


def _numbered(asked: Sequence[EngineRequest]) -> list[EngineRequest]:
    """Sampled answers to the same request are different answers: each repeat has a key of its own."""
    seen: Counter[str] = Counter()
    found = []
    for one in asked:
        seen[one.key] += 1
        repeated = one.params.temperature > 0 and seen[one.key] > 1
        found.append(replace(one, key=f"{one.key}-{seen[one.key]}") if repeated else one)
    return found


def engine_request(encode: Encode, request: Any, max_model_len: int, chat: ChatFormat | None = None) -> EngineRequest:
    """One of lm-eval's requests to generate; a prompt that is too long loses its beginning."""
    from lm_eval.models.utils import normalize_gen_kwargs
    from vllm import SamplingParams, TokensPrompt

    context, asked = request.args
    settings: dict[str, Any] = dict(normalize_gen_kwargs(asked, _LONGEST_ANSWER))
    ids, longest = encode(context), settings["max_gen_toks"]
    room = max(max_model_len - longest, max_model_len // 2)  # a prompt keeps at least half of the context
    longest = min(longest, max_model_len - min(len(ids), room))
    temperature = settings.get("temperature", 1.0) if settings["do_sample"] else 0.0
    given = {key: settings[key] for key in (*_PENALTIES, *(_SAMPLING if temperature else ())) if key in settings}
    reader = reader_of(context, chat, settings["until"])
    chosen = {"temperature": temperature, **given, "max_tokens": longest, **reader.sampling}
    return EngineRequest(
        TokensPrompt(prompt_token_ids=ids[-room:]),
        SamplingParams(**chosen),
        len(ids) > room,
        key_of(ids[-room:], chosen),
        reader,
    )


def likelihoods(llm: Any, pairs: Sequence[tuple[Ids, Ids]], max_model_len: int) -> list[tuple[Likelihood, bool]]:
    """(log P(continuation | context) in nats, whether greedy decoding would give it) of each pair of token ids.

    A context that is too long loses its beginning.
    """
    from vllm import SamplingParams, TokensPrompt

    prompts = [
        TokensPrompt(prompt_token_ids=(context + continuation)[-(max_model_len - 1) :])
        for context, continuation in pairs
    ]
    outputs = generate(llm, prompts, SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=0))
    return [_likelihood(output, len(continuation)) for output, (_, continuation) in zip(outputs, pairs, strict=True)]


def _likelihood(output: Any, length: int) -> tuple[Likelihood, bool]:
    """Of the last `length` prompt tokens; the first token of a prompt has no probability."""
    scored = [
        position[token]
        for token, position in list(zip(output.prompt_token_ids, output.prompt_logprobs, strict=True))[-length:]
        if position is not None
    ]
    return Likelihood(sum(entry.logprob for entry in scored), len(scored)), all(entry.rank == 1 for entry in scored)


def rolling_likelihoods(llm: Any, texts: Sequence[Ids], prefix: int, max_model_len: int) -> list[float]:
    """log P of whole texts, in disjoint windows as long as the context allows (lm-eval's loglikelihood_rolling)."""
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

    windows = [
        (owner, make_disjoint_window(window))
        for owner, ids in enumerate(texts)
        for window in get_rolling_token_windows(ids, prefix, max_seq_len=max_model_len - 2, context_len=1)
    ]
    found = likelihoods(llm, [pair for _, pair in windows], max_model_len)
    totals = [Likelihood(0.0, 0)] * len(texts)
    for (owner, _), (value, _) in zip(windows, found, strict=True):
        totals[owner] = Likelihood(totals[owner] + value, totals[owner].n_tokens + value.n_tokens)
    return list(totals)
