"""Blocks of reasoning, such as `<think> ... </think>`: in prompts that open one, and in answers that hold one."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class ReasoningTags:
    """What begins and what ends a block of reasoning."""

    opening: str
    closing: str


TAGS = (
    ReasoningTags("<think>", "</think>"),
    ReasoningTags("<thinking>", "</thinking>"),
    ReasoningTags("<thought>", "</thought>"),
    ReasoningTags("<reasoning>", "</reasoning>"),
    ReasoningTags("<reason>", "</reason>"),
    ReasoningTags("<analysis>", "</analysis>"),
    ReasoningTags("<Think>", "</Think>"),
    ReasoningTags("<seed:think>", "</seed:think>"),
    ReasoningTags("<|think|>", "<|/think|>"),
    ReasoningTags("<|begin_of_thought|>", "<|end_of_thought|>"),
    ReasoningTags("<|START_THINKING|>", "<|END_THINKING|>"),
    ReasoningTags("[THINK]", "[/THINK]"),
    ReasoningTags("◁think▷", "◁/think▷"),
)


_MARK = re.compile(r"[<>|\[\]{}◁▷:]")  # of another tag, token or speaker


@dataclass(frozen=True)
class SplitAnswer:
    """A generated text: its reasoning with the tags, and the answer after it. `closed`: whether the reasoning ends."""

    reasoning: str
    answer: str
    closed: bool = True


def left_open(prompt: str) -> ReasoningTags | None:
    """The tags of the block of reasoning that a prompt opens at its end; None where it opens none.

    Plain words may follow the tag, with which a template begins the reasoning itself; a mark of any kind ends the turn.
    """
    for tags in TAGS:
        _, opening, words = prompt.rpartition(tags.opening)
        if opening and not _MARK.search(words):
            return tags
    return None


def ends_closed(prompt: str) -> bool:
    """Whether a prompt ends with a block of reasoning that is closed, so that the answer comes next."""
    return any(prompt.rstrip().endswith(tags.closing) for tags in TAGS)


def mentioned(template: str) -> tuple[ReasoningTags, ...]:
    """The tags that a chat template knows."""
    return tuple(tags for tags in TAGS if tags.opening in template or tags.closing in template)


def follow_prompt(prompt: str, answer: str, written: str = "") -> tuple[str, str]:
    """How a given answer follows a prompt.

    Args:
        prompt: In the chat template.
        answer: With or without reasoning of its own.
        written: What the template itself writes between such a prompt and an answer without reasoning.

    Returns:
        What stands before the answer: the end of the reasoning that the prompt opens, or an empty block where the
        template writes one, else ""; then the answer.
    """
    opened = left_open(prompt)
    expected = opened or (None if ends_closed(prompt) else _tags_in(written))
    if expected is None:
        return "", answer
    if expected.closing not in answer:
        return written or f"\n{expected.closing}\n\n", answer
    own = answer.lstrip()
    if opened and own.startswith(opened.opening):  # the prompt has opened the block already
        return "", own.removeprefix(opened.opening).lstrip("\n")
    return "", answer


def split_answer(text: str, opened: ReasoningTags | None = None) -> SplitAnswer:
    """Takes the reasoning off a generated text.

    Args:
        text: What the model wrote.
        opened: The tags of the block that the prompt opened. None: reasoning is what stands between tags at the start,
            or before a closing tag whose opening one is not in the text.

    Returns:
        The parts. Reasoning that does not end is all of the text, and the answer is empty.
    """
    tags = opened or _tags_in(text)
    if tags is None:
        return SplitAnswer("", text)
    before, closing, after = text.partition(tags.closing)
    answer = after.lstrip("\n")
    return SplitAnswer(text[: len(text) - len(answer)], answer) if closing else SplitAnswer(before, "", closed=False)


def with_end(text: str, opened: ReasoningTags | None = None) -> str:
    """A generated text with its reasoning ended, where it did not end by itself; `opened` as for `split_answer`."""
    tags = opened or _tags_in(text)
    return f"{text}\n{tags.closing}\n\n" if tags and tags.closing not in text else text


def _tags_in(text: str) -> ReasoningTags | None:
    start = text.lstrip()
    for tags in TAGS:
        before, closing, _ = text.partition(tags.closing)
        if start.startswith(tags.opening) or (closing and tags.opening not in before):
            return tags
    return None
