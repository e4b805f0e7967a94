"""Settings of `harness run` that say what a model has to meet, instead of how much is removed."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PositiveInt, field_validator

from harness.config.values import split_commas

_COUNT = re.compile(r"(\d+(?:\.\d+)?)\s*([KMB]?)", re.IGNORECASE)
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9}


def parse_count(value: Any) -> Any:
    """`6B`, `1.5B` and `135M` as numbers; other values stay.

    Raises:
        ValueError: A text that is none of these.
    """
    if not isinstance(value, str):
        return value
    found = _COUNT.fullmatch(value.strip())
    if found is None:
        raise ValueError(f"{value!r} is not a parameter count; give one like 6B, 1.5B or 135M")
    return round(float(found[1]) * _UNITS[found[2].upper()])


class GoalConfig(BaseModel):
    """What a model has to meet. With any of them the ratio is searched."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, defer_build=True)

    max_loss: float | None = Field(
        default=None,
        gt=0,
        lt=100,
        description="Search the smallest model that is shown to lose less on the target, in points. "
        "Default: no search; --ratio decides.",
    )
    off_target_loss: float | None = Field(
        default=None,
        gt=0,
        lt=100,
        description="The same for every off-target task that the dense model can do. Default: any loss.",
    )
    params: Annotated[PositiveInt, BeforeValidator(parse_count)] | None = Field(
        default=None, description="Most parameters, as 6B or 135M. Default: any number."
    )
    fits: str | None = Field(
        default=None,
        description="Memory or device (24GiB, A100-80, 2xH100-80) that has to hold the weights and --requests of "
        "--context tokens. Default: any.",
    )
    context: int | None = Field(
        default=None,
        ge=1,
        description="Tokens per request, with --fits or --device. Default: 2048, or the model's limit.",
    )
    speedup: float | None = Field(
        default=None,
        gt=1,
        allow_inf_nan=False,
        description="Least output tokens per second over dense at every --concurrency, measured here. Default: any.",
    )
    device: str | None = Field(
        default=None, description="With --speedup, compute it by the roofline of this device. Default: measure."
    )
    vocabulary: PositiveInt | None = Field(
        default=None,
        description="With --structure joint, entries of the vocabulary that stay in the arm joint, those that the task "
        "needs most, rounded up to a multiple of 64. Default: all.",
    )
    metrics: tuple[str, ...] = Field(
        default=(),
        description="Scores to search, as best,rms+refit; each more widens the bounds of all. Default: --metric.",
    )

    _one_or_many = field_validator("metrics", mode="before")(split_commas)

    @property
    def given(self) -> tuple[str, ...]:
        """The settings that are given."""
        return tuple(name for name, value in self if value not in (None, ()))
