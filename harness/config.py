"""RunConfig: every setting of a run, from a YAML file, then the environment (HARNESS_<FIELD>), then the command line."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError, field_validator

from harness.errors import UsageError


class RunConfig(BaseModel):
    """Unknown keys are refused. `None` means: the default that fits the model, the task or the method."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = "tiny-math"
    task: tuple[str, ...] = ()
    ratio: float = 0.2
    method: Literal["selective", "random", "reverse"] = "selective"
    metric: str | None = None
    tokens: Literal["question", "answer", "both"] = "both"
    answers: Literal["given", "generated"] = "given"
    frame: Literal["evaluation", "raw"] = "evaluation"
    compensate: bool | None = None
    sequential: bool = False
    retain: float = Field(default=0.0, ge=0, le=1)
    allocation: Literal["uniform", "global"] = "uniform"
    min_width: int = Field(default=0, ge=0)
    protect: float = Field(default=0.0, ge=0, lt=1)
    seed: int = Field(default=0, ge=0)
    align: int | None = Field(default=None, ge=1)
    limit: int | None = Field(default=None, ge=1)
    calibration_samples: int = Field(default=160, ge=1)
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    threads: int | None = Field(default=None, ge=1)
    concurrency: tuple[PositiveInt, ...] = Field(default=(1, 32), min_length=1)
    repeats: int = Field(default=3, ge=1)
    output_tokens: int = Field(default=64, ge=2)

    @field_validator("task", "concurrency", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return value.split(",") if isinstance(value, str) else value


PRESETS = Path(__file__).parent / "presets"


def presets() -> tuple[str, ...]:
    return tuple(sorted(file.stem for file in PRESETS.glob("*.yaml")))


def load_config(file: Path | None, options: Mapping[str, Any], preset: str | None = None) -> RunConfig:
    """Merges preset < file < environment < options; raises UsageError with every wrong setting in one line."""
    environment = {name: os.environ[key] for name in RunConfig.model_fields if (key := f"HARNESS_{name.upper()}") in os.environ}
    given = {key: value for key, value in options.items() if value not in (None, ())}
    chosen = _read_yaml(PRESETS / f"{preset}.yaml" if preset else None)
    try:
        return RunConfig(**{**chosen, **_read_yaml(file), **environment, **given})
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise UsageError(f"bad settings: {problems}") from error


def _read_yaml(file: Path | None) -> dict[str, Any]:
    if file is None:
        return {}
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    except (OSError, yaml.YAMLError) as error:
        raise UsageError(f"{file} cannot be read as YAML ({str(error).splitlines()[0]})") from error
    if not isinstance(values, dict):
        raise UsageError(f"{file} must hold one mapping of settings, like `ratio: 0.2`")
    return values
