"""Settings of a sweep: its grid, how its claims are judged, and where its engines run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, field_validator

from harness.config.values import split_commas
from harness.core.labels import metric_label


class SweepConfig(BaseModel):
    """The grid of a sweep: methods x ratios x seeds."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, defer_build=True)

    methods: tuple[str, ...] = Field(
        default=("S", "best", "random", "reverse", "matched"),
        min_length=1,
        description="What to remove: random, reverse, its control matched, or for selective pruning a metric (best, S, "
        "rms+refit, best+rec).",
    )
    ratios: tuple[float, ...] = Field(
        default=(),
        description="Fractions of FFN neurons to remove. Default: 0.05 to 0.35 in steps of 0.05, or the preset's.",
    )
    ratios_by_width: Mapping[int, tuple[float, ...]] = Field(
        default={}, description="Ratios for each intermediate_size, used unless `ratios` is given."
    )
    seeds: tuple[NonNegativeInt, ...] = Field(default=(33, 42, 7), min_length=1, description="Seeds of random pruning.")
    masks: int | None = Field(
        default=None,
        ge=1,
        description="Random masks per ratio from 10 to 35 %, the first ones by --seeds, the others evaluated on the "
        "target alone; a verdict needs 19. Default: as many as --seeds.",
    )
    off_target: tuple[str, ...] = Field(
        default=(),
        description="Tasks evaluated beside a single --task. Default: wikitext, arc_easy, piqa; of mini tasks others.",
    )
    recovered: tuple[str, ...] = Field(
        default=(), description="Methods whose variants are also fine-tuned; dense is the control. Default: none."
    )
    recovery_ratios: tuple[float, ...] = Field(
        default=(0.3,), description="Ratios at which --recovered variants are made."
    )
    recovery_seeds: int = Field(
        default=1,
        ge=1,
        le=20,
        description="Times that each of them is fine-tuned, each with another order of the training data; a verdict on "
        "claim 6 needs 3.",
    )
    margin: float = Field(
        default=0.05,
        gt=0,
        lt=1,
        description="Non-inferiority margin: a loss of accuracy that counts as none, a fraction.",
    )
    off_target_margin: float | None = Field(
        default=None, gt=0, lt=1, description="The same for off-target tasks. Default: --margin."
    )
    collapse_share: float = Field(
        default=0.1, ge=0, le=1, description="Accuracy below this fraction of the dense model's counts as collapsed."
    )
    chance: float = Field(default=0.0, ge=0, le=1, description="Accuracy by guessing on the target task, a fraction.")
    launcher: Literal["local", "ray"] = Field(
        default="local", description="Where the engines run: processes on this machine, or actors of a Ray cluster."
    )
    workers: int | None = Field(
        default=None, ge=1, description="Engines at a time. Default: one per set of --tensor-parallel GPUs, 1 on a CPU."
    )

    _one_or_many = field_validator(
        "methods", "ratios", "seeds", "off_target", "recovered", "recovery_ratios", mode="before"
    )(split_commas)

    @field_validator("methods", "recovered")
    @classmethod
    def _shown_names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        """`smd` and `S` are one method."""
        return tuple("+".join((metric_label(name), *refit)) for name, *refit in (method.split("+") for method in value))
