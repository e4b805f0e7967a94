"""How an engine's output is read: the reasoning apart from the answer, which alone is graded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness.core.chat import ChatFormat
from harness.core.reasoning import ReasoningTags, ends_closed, left_open
from tasks.generation import Generation, without_reasoning


@dataclass(frozen=True)
class AnswerReader:
    """Reads the answers to one prompt.

    Attributes:
        chat: The chat template of the prompt; None where it is plain, and then there is no reasoning.
        opened: The tags of the reasoning that the prompt opens.
        may_reason: Whether reasoning may come first; it must not end at a stop string, so these are applied afterwards.
        stops: The texts at which the answer ends.
    """

    chat: ChatFormat | None
    opened: ReasoningTags | None
    may_reason: bool
    stops: tuple[str, ...]

    @property
    def sampling(self) -> dict[str, Any]:
        """What vLLM's SamplingParams need for it."""
        if not self.may_reason:
            return {"stop": list(self.stops) or None}
        shown = {"skip_special_tokens": False} if self.chat and self.chat.special_tags else {}
        return {"stop": None, **shown}

    def read(self, output: Any, **meta: Any) -> Generation:
        """The answer of a vLLM output.

        Args:
            output: One with a single completion.
            meta: What else is known about the generation.

        Returns:
            The answer, with finish_reason, n_tokens and `meta` in its meta; where there was reasoning, also `reasoning`
            and `reasoning_closed`.
        """
        found = output.outputs[0]
        known = {"finish_reason": found.finish_reason, "n_tokens": len(found.token_ids), **meta}
        if self.chat is None:
            return Generation(found.text, known)
        answer = without_reasoning(found.text, known, self.opened)
        ended = _up_to(answer, self.stops) if self.may_reason else answer
        return answer if ended == answer else Generation(ended, {**answer.meta, "finish_reason": "stop"})


def reader_of(prompt: str, chat: ChatFormat | None, stops: Sequence[str] | str | None) -> AnswerReader:
    """How answers to a prompt are read; `stops`: the texts at which they end."""
    chosen = (stops,) if isinstance(stops, str) else tuple(stops or ())
    if chat is None:
        return AnswerReader(None, None, False, chosen)
    opened = left_open(prompt)
    may_reason = opened is not None or (bool(chat.knows) and not ends_closed(prompt))
    return AnswerReader(chat, opened, may_reason, chosen)


def _up_to(text: str, stops: Sequence[str]) -> str:
    places = [place for stop in stops if stop and (place := text.find(stop)) >= 0]
    return text[: min(places)] if places else text
