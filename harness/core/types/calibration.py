"""Calibration prompts, on which neurons are scored."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from harness.core.hashing import digest
from harness.core.types.model import ModelKind

TokenScope = Literal["prompt", "completion", "all"]


@dataclass(frozen=True)
class Example:
    """A task item as text.

    Attributes:
        prompt: In the task's format; empty for a plain text.
        answer: The worked answer.
        system: The system message, if there is one.
        shots: Worked examples before the prompt, as turns of a chat: (role, text).
        document: The item, by which the task grades another answer to the prompt; None where nothing does.
    """

    prompt: str
    answer: str
    system: str = ""
    shots: tuple[tuple[str, str], ...] = ()
    document: Mapping[str, Any] | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class CalibrationItem:
    """One tokenised prompt; statistics are taken over positions [start, stop) of `token_ids`."""

    target: bool
    token_ids: tuple[int, ...]
    start: int
    stop: int


@dataclass(frozen=True)
class CalibrationSet:
    """The prompts on which a model is scored.

    Attributes:
        model: Its Hub id, absolute path or alias; `model_kind` says which.
        model_hash: Fingerprint of the model folder.
        target_source: Where the target prompts come from; `distractor_sources`, the others.
        tokens: Which tokens are scored: prompt, completion or all.
    """

    model: str
    model_hash: str
    target_source: str
    distractor_sources: tuple[str, ...]
    tokens: TokenScope
    items: tuple[CalibrationItem, ...]
    model_kind: ModelKind = "unknown"

    @functools.cached_property
    def hash(self) -> str:
        items = [(item.target, item.token_ids, item.start, item.stop) for item in self.items]
        return digest([self.model, self.model_hash, self.target_source, self.distractor_sources, self.tokens, items])

    def count(self, target: bool) -> int:
        return sum(item.target is target for item in self.items)
