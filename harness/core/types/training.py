"""Results of fine-tuning: loss, accuracy during training, and the gap recovered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class LossPoint:
    """Training loss after an optimiser step.

    Attributes:
        tokens: Tokens seen so far, prompts included.
        loss: Nats per answer token.
    """

    step: int
    tokens: int
    loss: float
    grad_norm: float
    learning_rate: float


@dataclass(frozen=True)
class CurvePoint:
    """The target's accuracy before, during or after training, on the first `n` items, with its 95 % interval."""

    step: int
    tokens: int
    n: int
    value: float
    ci_low: float | None
    ci_high: float | None
    failure_rate: float | None


@dataclass(frozen=True)
class TrainingPart:
    """One source of the training examples.

    Attributes:
        name: A task of the mixture, or text; where there is no mixture, the data as the setting names it.
        tokens: Prompts included, per pass over the examples.
        answer_tokens: Those that count in the loss.
    """

    name: str
    source: str
    examples: int
    left_out: int
    tokens: int
    answer_tokens: int


@dataclass(frozen=True)
class TrainingResult:
    """How a variant was fine-tuned.

    Attributes:
        source: Where the training examples come from.
        left_out: Examples whose prompt leaves no room for an answer.
        answer_tokens: Tokens that count in the loss, per pass over the examples.
        recipe: Every setting of the training.
        expected: The estimate of tokens, bytes and FLOPs made before training.
        parts: The examples by source; empty in a run.json of an older version.
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
    parts: tuple[TrainingPart, ...] = ()


@dataclass(frozen=True)
class Recovery:
    """How much of the loss fine-tuning recovered on one task, relative to the base model fine-tuned the same way.

    Attributes:
        variant: Fine-tuned, with the first seed.
        before: The variant that was fine-tuned.
        control: The base model, fine-tuned the same way with the same seed.
        share: (variant - before) / (control - before); None where the control is not clearly better than before (95 %).
        margin_over_half: Accuracy of the variant minus the mean of before and control, with its 95 % interval; above 0
            where at least half of the gap was recovered.
        gain: variant - before with its interval; gap: control - before.
        seeds: Of fine-tuning, over which the figures are means. Intervals are over seeds and items; of one seed over
            items alone.
    """

    variant: str
    before: str
    control: str
    task: str
    n: int
    share: float | None
    margin_over_half: float
    ci_low: float
    ci_high: float
    gain: tuple[float, float, float] | None = None
    gap: tuple[float, float, float] | None = None
    seeds: int = 1
