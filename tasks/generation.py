"""Answers that carry what the engine said about them through lm-eval, which passes on only strings and numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.core.reasoning import ReasoningTags, split_answer


class Generation(str):
    """A str with `meta`: finish_reason, n_tokens, prompt_truncated. At module level because lm-eval pickles it.

    reasoning, reasoning_closed in `meta`: what the model wrote before the answer, tags included, and whether it ended.

    verdict: the Future of its grading, where that has begun; it does not travel.
    """

    meta: Mapping[str, Any]
    verdict: Any

    def __new__(cls, text: str, meta: Mapping[str, Any] | None = None) -> Generation:
        self = super().__new__(cls, text)
        self.meta = dict(meta or {})
        self.verdict = None
        return self

    @property
    def written(self) -> str:
        """All that the model wrote, reasoning included."""
        return f"{self.meta.get('reasoning', '')}{self}"

    def __reduce__(self) -> tuple[type[Generation], tuple[str, Mapping[str, Any]]]:
        return Generation, (str(self), self.meta)


def without_reasoning(text: str, meta: Mapping[str, Any], opened: ReasoningTags | None = None) -> Generation:
    """The answer in what a model wrote, with its reasoning in `meta`.

    Args:
        text: What the model wrote.
        meta: What else is known about it.
        opened: The tags of the reasoning that the prompt opened; None where it opened none, or that is not known.
    """
    parts = split_answer(text, opened)
    if parts.reasoning or not parts.closed:
        meta = {**meta, "reasoning": parts.reasoning, "reasoning_closed": parts.closed}
    return Generation(parts.answer, meta)


class Likelihood(float):
    """A log likelihood in nats with `n_tokens`, how many tokens it is of."""

    n_tokens: int

    def __new__(cls, value: float, n_tokens: int) -> Likelihood:
        self = super().__new__(cls, value)
        self.n_tokens = n_tokens
        return self

    def __reduce__(self) -> tuple[type[Likelihood], tuple[float, int]]:
        return Likelihood, (float(self), self.n_tokens)
