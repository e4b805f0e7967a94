"""How far a variant is from the dense model on the dense model's own answers: KL divergence and agreement, no labels.

The dense model answers the first prompts of the target greedily, once a run. Every variant then reads these answers in
one forward pass. vLLM gives the most probable tokens of a place, not all, so the KL divergence is that of the two
distributions over the tokens that both name and one class of all others: never more than the whole one (data processing
inequality, Cover and Thomas, Elements of Information Theory, 2.8), and equal to it where both name all tokens.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from harness.core.errors import UsageError
from harness.core.files import load_arrays, save_arrays
from harness.core.hashing import digest
from harness.core.statistics import ratio_mean
from harness.core.types.evaluation import KLToDense
from harness.engine.lm_eval_model import engine_request, make_language_model
from harness.engine.top_logprobs import TopLogprobs, top_logprobs
from harness.engine.vllm_engine import generate
from harness.evaluation.lm_eval_requests import EvalSpec, TaskRequests, identity_of

ITEMS, TOKENS = 64, 128  # at most, of a run and of an answer
_LEAST = 1e-7  # of the class of all other tokens: what 1 - sum of probabilities in float32 cannot tell from 0
_MADE_BY = "harness run"
_IDENTITY = "identity"


@dataclass(frozen=True)
class OwnAnswers:
    """Of every item: (prompt, answer) as token ids, and the dense model's next-token distribution at each token of the
    answer.
    """

    texts: tuple[tuple[list[int], list[int]], ...]
    dense: tuple[list[TopLogprobs], ...]


def own_answers(
    llm: Any, eval_spec: EvalSpec, asked: TaskRequests, file: Path, weights: str, is_dense: bool
) -> OwnAnswers | None:
    """The dense model's answers: those in `file`, else, where the engine runs the dense model, made and saved there.

    Args:
        llm: A vLLM engine.
        asked: The target's requests; one that is scored on given texts has no prompts, so there are no answers.
        file: Where the run keeps them.
        weights: A hash of the dense model's weights.
        is_dense: Whether the engine runs these weights.

    Returns:
        None where there are none and the engine runs another variant.
    """
    requests = _requests(llm, eval_spec, asked)
    prompts = [request.prompt["prompt_token_ids"] for request in requests]
    identity = digest([identity_of(llm, weights), prompts, TOKENS])
    if (known := _load(file, identity)) is not None or not is_dense:
        return known
    texts = tuple(_answered(llm, requests, eval_spec.max_model_len))
    found = OwnAnswers(texts, tuple(top_logprobs(llm, texts)))
    _save(found, file, identity)
    return found


def kl_to_dense(llm: Any, own: OwnAnswers | None) -> KLToDense | None:
    """Of the variant that the engine runs; None where the dense model has no answers, or a figure is not finite."""
    if own is None or not own.texts:
        return None
    found = top_logprobs(llm, own.texts)
    nats = [sum(map(divergence, p, q)) for p, q in zip(own.dense, found, strict=True)]
    agreed = [sum(map(_agree, p, q)) for p, q in zip(own.dense, found, strict=True)]
    if not all(map(math.isfinite, nats)):
        return None
    tokens = [len(answer) for _, answer in own.texts]
    (kl, low, high), (share, least, most) = _mean(nats, tokens), _mean(agreed, tokens)
    return KLToDense(
        n=len(tokens),
        tokens=sum(tokens),
        nats_per_token=kl,
        ci_low=None if low is None else max(0.0, low),
        ci_high=high,
        agreement=share,
        agreement_low=None if least is None else max(0.0, least),
        agreement_high=None if most is None else min(1.0, most),
    )


def divergence(p: Mapping[int, float], q: Mapping[int, float]) -> float:
    """KL(p || q) in nats over the tokens that both name and one class of all others.

    Args:
        p, q: token id -> log probability in nats.
    """
    shared = sorted(p.keys() & q.keys())
    a, b = (np.array([of[token] for token in shared], dtype=np.float64) for of in (p, q))
    rest, other = (math.log(max(_LEAST, 1.0 - float(np.exp(known).sum()))) for known in (a, b))
    a, b = np.append(a, rest), np.append(b, other)
    return max(float((np.exp(a) * (a - b)).sum()), 0.0)  # in this order NaN, of a broken model, stays NaN


def _agree(p: Mapping[int, float], q: Mapping[int, float]) -> bool:
    return max(p, key=p.__getitem__) == max(q, key=q.__getitem__)


def _mean(values: Sequence[float], tokens: Sequence[int]) -> tuple[float, float | None, float | None]:
    """Per token, with its interval over items; a single item has none."""
    return ratio_mean(values, tokens) if len(tokens) > 1 else (values[0] / tokens[0], None, None)


def _requests(llm: Any, eval_spec: EvalSpec, asked: TaskRequests) -> list[Any]:
    """The first prompts in vLLM's terms; those of multiple choice once each, and without a choice."""
    language_model = make_language_model(llm, eval_spec.max_model_len, eval_spec.chat)
    if asked.method == "generate_until":
        requests: list[Any] = list(asked.requests[:ITEMS])
    else:
        contexts = dict.fromkeys(request.args[0] for request in asked.requests if len(request.args) > 1)
        free = {"do_sample": False, "max_gen_toks": TOKENS, "until": ["\n\n"]}
        requests = [SimpleNamespace(args=(context, free)) for context in contexts if context][:ITEMS]
    limit, encode = eval_spec.max_model_len, language_model.tok_encode
    return [engine_request(encode, request, limit, eval_spec.chat) for request in requests]


def _answered(llm: Any, requests: Sequence[Any], max_model_len: int) -> Iterator[tuple[list[int], list[int]]]:
    """(prompt, greedy answer) of each prompt, with the token that ends it; without prompts that leave no room."""
    prompts, params = [request.prompt for request in requests], []
    for request in requests:
        chosen = request.params.clone()
        chosen.temperature, chosen.max_tokens = 0.0, min(TOKENS, chosen.max_tokens)
        params.append(chosen)
    for output in generate(llm, prompts, params) if prompts else ():
        prompt = list(output.prompt_token_ids)
        answer = list(output.outputs[0].token_ids)[: max_model_len - 1 - len(prompt)]
        if answer:
            yield prompt, answer


def _save(own: OwnAnswers, file: Path, identity: str) -> None:
    """As arrays: all texts in a row with their lengths, and the tokens of every place, filled up with token -1."""
    places = [place for of_item in own.dense for place in of_item]
    width = max(map(len, places), default=0)
    ids = np.full((len(places), width), -1, dtype=np.int32)
    values = np.zeros((len(places), width), dtype=np.float32)
    for i, place in enumerate(places):
        ids[i, : len(place)], values[i, : len(place)] = list(place), list(place.values())
    arrays = {
        "tokens": np.array([token for text in own.texts for part in text for token in part], dtype=np.int32),
        "lengths": np.array([[len(part) for part in text] for text in own.texts], dtype=np.int32).reshape(-1, 2),
        "top_tokens": ids,
        "top_logprobs": values,
    }
    save_arrays(file, arrays, {_IDENTITY: identity})


def _load(file: Path, identity: str) -> OwnAnswers | None:
    """What `_save` wrote for the same dense model, prompts and engine."""
    try:
        arrays, metadata = load_arrays(file, _MADE_BY)
    except UsageError:
        return None
    if metadata.get(_IDENTITY) != identity:
        return None
    tokens, places = (
        iter(arrays["tokens"].tolist()),
        iter(zip(arrays["top_tokens"], arrays["top_logprobs"], strict=True)),
    )
    texts, dense = [], []
    for prompt, answer in arrays["lengths"].tolist():
        texts.append(([next(tokens) for _ in range(prompt)], [next(tokens) for _ in range(answer)]))
        dense.append([_place(*next(places)) for _ in range(answer)])
    return OwnAnswers(tuple(texts), tuple(dense))


def _place(ids: Any, values: Any) -> TopLogprobs:
    return {int(token): float(value) for token, value in zip(ids, values, strict=True) if token >= 0}
