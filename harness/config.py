"""RunConfig: every setting of a run, from a YAML file, then the environment (HARNESS_<FIELD>), then the command line."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError, field_validator

from harness.errors import UsageError


class RecoveryConfig(BaseModel):
    """How a checkpoint is fine-tuned. `data`: task, generated (the dense model's own right answers), a .jsonl file, or a Hub data set."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    data: str = "task"
    tuning: Literal["lora", "full"] | None = None
    steps: int | None = Field(default=None, ge=1)
    epochs: float | None = Field(default=None, gt=0)
    samples: int | None = Field(default=None, ge=1)
    batch: int | None = Field(default=None, ge=1)
    micro_batch: int | None = Field(default=None, ge=1)
    learning_rate: float | None = Field(default=None, gt=0)
    max_length: int = Field(default=1024, ge=8)
    lora_rank: int = Field(default=16, ge=1)
    lora_alpha: int = Field(default=32, ge=1)
    lora_dropout: float | None = Field(default=None, ge=0, lt=1)
    distill: float = Field(default=0.0, ge=0, le=1)
    packing: bool = False
    gradient_checkpointing: bool | None = None
    curve: int = Field(default=3, ge=0)
    processes: int | None = Field(default=None, ge=1)
    accelerate_config: Path | None = None
    report_to: Literal["trackio", "wandb", "mlflow", "tensorboard"] | None = None


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
    input_tokens: int | None = Field(default=None, ge=1)
    requests: int | None = Field(default=None, ge=1)
    natural: bool = False
    recover: bool = False
    arms: tuple[Literal["selective", "random", "reverse", "dense"], ...] = ()
    recovery: RecoveryConfig = RecoveryConfig()
    preset: str | None = None

    @field_validator("task", "concurrency", "arms", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return value.split(",") if isinstance(value, str) else value


PRESETS = Path(__file__).parent / "presets"


def presets() -> tuple[str, ...]:
    return tuple(sorted(file.stem for file in PRESETS.glob("*.yaml")))


def load_config(
    file: Path | None, options: Mapping[str, Any], preset: str | None = None, defaults: Mapping[str, Any] = {}
) -> RunConfig:  # fmt: skip
    """Merges a command's own defaults < preset < file < environment < options; raises UsageError with every wrong setting in one line.

    Settings of the recovery stand below `recovery` in a file, and by their bare names elsewhere.
    """
    names = [name for name in (*RunConfig.model_fields, *RecoveryConfig.model_fields) if name != "recovery"]
    environment = {name: os.environ[key] for name in names if (key := f"HARNESS_{name.upper()}") in os.environ}
    given = {key: value for key, value in options.items() if value not in (None, ())}
    from_file = _read_yaml(file)
    preset = preset or environment.get("preset") or from_file.get("preset")
    merged: dict[str, Any] = {**defaults, **_read_preset(preset), **from_file, "preset": preset}
    nested = merged.get("recovery") or {}
    if not isinstance(nested, dict):
        raise UsageError(f"bad settings: recovery must hold settings of its own, like `steps: 300`, not {nested!r}")
    named = {**environment, **given}
    merged |= {key: value for key, value in named.items() if key not in RecoveryConfig.model_fields and key != "preset"}
    merged["recovery"] = {**nested, **{key: value for key, value in named.items() if key in RecoveryConfig.model_fields}}
    try:
        return RunConfig(**merged)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise UsageError(f"bad settings: {problems}") from error


def _read_preset(name: str | None) -> dict[str, Any]:
    if name is not None and name not in presets():
        raise UsageError(f"unknown preset {name!r}; known are {', '.join(presets())}")
    return _read_yaml(PRESETS / f"{name}.yaml" if name else None)


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
