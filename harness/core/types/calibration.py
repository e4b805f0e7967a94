"""Calibration prompts: what the neurons are scored on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from harness.core.hashing import digest

TokenScope = Literal["prompt", "completion", "all"]


@dataclass(frozen=True)
class Example:
    """A task item as text: the question in the task's own frame, the worked answer, the system message where the task
    has one.
    """

    prompt: str
    answer: str
    system: str = ""


@dataclass(frozen=True)
class CalibrationItem:
    """`token_ids` of one prompt; statistics are taken over positions [start, stop)."""

    target: bool
    token_ids: tuple[int, ...]
    start: int
    stop: int


@dataclass(frozen=True)
class CalibrationSet:
    """`model_hash`: the fingerprint of the folder that is scored."""

    model: str
    model_hash: str
    target_source: str
    distractor_sources: tuple[str, ...]
    tokens: TokenScope
    items: tuple[CalibrationItem, ...]

    @property
    def hash(self) -> str:
        items = [(item.target, item.token_ids, item.start, item.stop) for item in self.items]
        return digest([self.model, self.model_hash, self.target_source, self.distractor_sources, self.tokens, items])

    def count(self, target: bool) -> int:
        return sum(item.target is target for item in self.items)
