"""The prompts that are scored, and how they are tokenised, capped and bucketed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from harness.core.chat import ChatFormat, prompt_text
from harness.core.errors import UsageError
from harness.core.reasoning import follow_prompt
from harness.core.types.calibration import CalibrationItem, CalibrationSet, Example, TokenScope

MAX_TOKENS = 1024
MAX_BATCH_TOKENS = 4096  # padded tokens in one batch


def build_calibration(
    tokenizer: Any,
    model: str,
    model_hash: str,
    target: Sequence[Example],
    distractors: Sequence[Example],
    sources: tuple[str, tuple[str, ...]],
    tokens: TokenScope,
    chat: ChatFormat | None,
    context: int = MAX_TOKENS,
) -> CalibrationSet:
    """Tokenises both groups, to at most 1024 tokens besides the worked examples, and to the model's `context`. `chat`:
    in the chat template, as in the evaluation, with its reasoning closed; None: plain.

    Raises UsageError where a group has no item left with a token in `tokens`.
    """
    groups = ((True, target), (False, distractors))
    items = [
        item for side, group in groups for item in calibration_items(tokenizer, group, side, tokens, chat, context)
    ]
    for is_target, name in ((True, "target"), (False, "distractor")):
        if not any(item.target is is_target for item in items):
            raise UsageError(f"no {name} calibration prompt has {tokens} tokens; choose another --score-tokens or task")
    return CalibrationSet(
        model=model,
        model_hash=model_hash,
        target_source=sources[0],
        distractor_sources=sources[1],
        tokens=tokens,
        items=tuple(items),
    )


def calibration_items(
    tokenizer: Any, examples: Sequence[Example], target: bool, tokens: TokenScope, chat: ChatFormat | None, context: int
) -> list[CalibrationItem]:
    """One group, tokenised; what has no token in `tokens` is left out. As `build_calibration`."""
    items = (_item(tokenizer, example, target, tokens, chat, context) for example in examples)
    return [item for item in items if item is not None]


def _item(
    tokenizer: Any, example: Example, target: bool, tokens: TokenScope, chat: ChatFormat | None, context: int
) -> CalibrationItem | None:
    """Question and answer ids, capped; a plain text (no question) is all answer, and is scored whole in every scope."""
    example, longest = _fitted(tokenizer, example, chat, context)
    question, answer = _ids(tokenizer, example, chat)
    ids = (question + answer)[:longest]
    start, stop = {"prompt": (0, len(question)), "completion": (len(question), len(ids)), "all": (0, len(ids))}[tokens]
    if not question:
        start, stop = 0, len(ids)
    stop = min(stop, len(ids))
    return CalibrationItem(target, tuple(ids), start, stop) if start < stop else None


def _fitted(tokenizer: Any, example: Example, chat: ChatFormat | None, context: int) -> tuple[Example, int]:
    """The example with the last of its worked examples for which there is room, and how many tokens it may have."""
    if not example.shots:
        return example, min(context, MAX_TOKENS)
    alone, answer = _ids(tokenizer, replace(example, shots=()), chat)
    shots = len(_ids(tokenizer, example, chat)[0]) - len(alone)
    if shots + min(len(alone) + len(answer), MAX_TOKENS) > context:
        return _fitted(tokenizer, replace(example, shots=example.shots[2:]), chat, context)
    return example, min(context, shots + MAX_TOKENS)


def _ids(tokenizer: Any, example: Example, chat: ChatFormat | None) -> tuple[list[int], list[int]]:
    """The tokens of the question, with what the template writes before an answer, and those of the answer."""
    prompt, text = prompt_text(tokenizer, example, chat) if example.prompt else "", example.answer
    if prompt and chat:
        closing, text = follow_prompt(prompt, text, chat.before_answer)
        prompt += closing
    question = list(tokenizer(prompt, add_special_tokens=chat is None)["input_ids"]) if prompt else []
    return question, list(tokenizer(text, add_special_tokens=False)["input_ids"]) if text else []


def batches(items: Sequence[CalibrationItem], max_tokens: int = MAX_BATCH_TOKENS) -> Iterator[list[CalibrationItem]]:
    """Items of similar length and the same group together, at most `max_tokens` padded tokens a batch."""
    batch: list[CalibrationItem] = []
    for item in sorted(items, key=lambda item: (item.target, len(item.token_ids), item.token_ids)):
        full = batch and (batch[0].target is not item.target or (len(batch) + 1) * len(item.token_ids) > max_tokens)
        if full:
            yield batch
            batch = []
        batch.append(item)
    if batch:
        yield batch
