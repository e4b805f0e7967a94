"""What fine-tuning gives: loss, accuracy during training, and what was recovered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class LossPoint:
    """After `step` optimiser steps and `tokens` tokens (prompts included); loss in nats per answer token."""

    step: int
    tokens: int
    loss: float
    grad_norm: float
    learning_rate: float


@dataclass(frozen=True)
class CurvePoint:
    """The target's accuracy before, on the way or after, on the first `n` items, its 95 % interval and the rate of
    generation failures.
    """

    step: int
    tokens: int
    n: int
    value: float
    ci_low: float | None
    ci_high: float | None
    failure_rate: float | None


@dataclass(frozen=True)
class TrainingResult:
    """How a variant was fine-tuned. `recipe`: every setting; `expected`: the forecast of tokens, bytes and FLOPs made
    before it.
    """

    source: str
    examples: int
    left_out: int
    answer_tokens: int
    tokens: int
    steps: int
    seconds: float
    recipe: Mapping[str, Any]
    expected: Mapping[str, float]
    loss: tuple[LossPoint, ...]
    curve: tuple[CurvePoint, ...]


@dataclass(frozen=True)
class Recovery:
    """Gap recovered by fine-tuning of one task, beside the control, the base model fine-tuned the same way; shares of
    right answers.

    share: (fine-tuned - before) / (control - before), None where the control is not clearly better than before (95 %).
    margin_over_half: fine-tuned minus the mean of the two others, with its 95 % interval: above 0 where at least half was
    brought back."""

    variant: str
    before: str
    control: str
    task: str
    n: int
    share: float | None
    margin_over_half: float
    ci_low: float
    ci_high: float
