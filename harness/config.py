"""RunConfig: every setting of a run, from a YAML file, then the environment (HARNESS_<FIELD>), then the command line."""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, ValidationError, field_validator

from harness.errors import UsageError
from harness.yaml_file import YamlFile, read_yaml


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


class SweepConfig(BaseModel):
    """Methods x ratios x seeds. methods: random, reverse, or a metric (best, smd, rms+refit) for selective pruning.

    ratios_by_width: intermediate_size -> ratios, where `ratios` is not given. off_target: beside a single task, instead of its own.
    recovered: which of the methods, and dense, are fine-tuned at `recovery_ratios`. margin: of non-inferiority, a fraction of all items.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    methods: tuple[str, ...] = Field(default=("smd", "best", "random", "reverse"), min_length=1)
    ratios: tuple[float, ...] = ()
    ratios_by_width: Mapping[int, tuple[float, ...]] = {}
    seeds: tuple[NonNegativeInt, ...] = Field(default=(33, 42, 7), min_length=1)
    off_target: tuple[str, ...] = ()
    recovered: tuple[str, ...] = ()
    recovery_ratios: tuple[float, ...] = (0.3,)
    margin: float = Field(default=0.05, gt=0, lt=1)
    collapse_share: float = Field(default=0.1, ge=0, le=1)
    chance: float = Field(default=0.0, ge=0, le=1)
    launcher: Literal["local", "ray"] = "local"
    workers: int | None = Field(default=None, ge=1)
    tensor_parallel: int = Field(default=1, ge=1)

    @field_validator("methods", "ratios", "seeds", "off_target", "recovered", "recovery_ratios", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


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
    items: Path | None = None
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
    sweep: SweepConfig = SweepConfig()
    preset: str | None = None

    @field_validator("task", "concurrency", "arms", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return value.split(",") if isinstance(value, str) else value


_NESTED: Mapping[str, type[BaseModel]] = {"recovery": RecoveryConfig, "sweep": SweepConfig}
PRESETS = Path(__file__).parent / "presets"


def presets() -> tuple[str, ...]:
    return tuple(sorted(file.stem for file in PRESETS.glob("*.yaml")))


def preset_text(name: str) -> str:
    """A preset's YAML; raises UsageError for an unknown one."""
    _read_preset(name)
    return (PRESETS / f"{name}.yaml").read_text(encoding="utf-8")


def preset_summaries() -> dict[str, str]:
    """Each preset's first line, without the comment sign."""
    return {name: preset_text(name).split("\n", 1)[0].lstrip("# ") for name in presets()}


def load_config(
    file: Path | None, options: Mapping[str, Any], preset: str | None = None, defaults: Mapping[str, Any] = {}
) -> RunConfig:  # fmt: skip
    """Merges a command's own defaults < preset < file < environment < options; raises UsageError with every wrong setting and its place.

    Settings of the recovery and of a sweep stand below `recovery` and `sweep` in a file, and by their bare names elsewhere.
    """
    inner = {name: key for key, model in _NESTED.items() for name in model.model_fields}
    names = [name for name in (*RunConfig.model_fields, *inner) if name not in _NESTED]
    environment = {name: os.environ[key] for name in names if (key := f"HARNESS_{name.upper()}") in os.environ}
    given = {key: value for key, value in options.items() if value not in (None, ())}
    found = read_yaml(file)
    preset = preset or environment.get("preset") or found.values.get("preset")
    below = _read_preset(preset)
    merged: dict[str, Any] = {**defaults, **below, **found.values, "preset": preset}
    named = {**environment, **given}
    merged |= {key: value for key, value in named.items() if key not in inner and key != "preset"}
    for section in _NESTED:
        own, bare = merged.get(section) or {}, {key: value for key, value in named.items() if inner.get(key) == section}
        if isinstance(own, dict):  # anything else is refused below
            merged[section] = {**(below.get(section) or {}), **own, **bare}
    try:
        config = RunConfig(**merged)
    except ValidationError as error:
        problems = [*found.problems, *(_problem(e, found, environment, given) for e in error.errors())]
        raise UsageError(f"bad settings: {'; '.join(problems)}") from error
    if found.problems:
        raise UsageError(f"bad settings: {'; '.join(found.problems)}")
    return config


def _problem(error: Any, file: YamlFile, environment: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    """One wrong setting: where it was given, its name, what is wrong with it, and what may have been meant."""
    keys = tuple(map(str, error["loc"]))
    name = next((key for key in reversed(keys) if key in environment or key in given), None)
    if name in given:
        where = f"--{str(name).replace('_', '-')}"
    else:
        where = f"HARNESS_{str(name).upper()}" if name else file.place(keys) or "preset"
    text = error["msg"].removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        section = _NESTED.get(keys[0]) if len(keys) > 1 else None
        near = difflib.get_close_matches(keys[-1], (section or RunConfig).model_fields, n=1)
        text = "no such setting" + (f", did you mean {near[0]}?" if near else "; `harness config show` lists all")
    return f"{where}: {'.'.join(keys)}: {text[:1].lower()}{text[1:]}"


def config_yaml(config: RunConfig) -> str:
    """Every setting with its value, defaults too; `--config` with this text gives the same settings again."""
    values = json.loads(config.model_dump_json())
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, default_flow_style=None, width=120)


def _read_preset(name: str | None) -> dict[str, Any]:
    if name is not None and name not in presets():
        near = difflib.get_close_matches(name, presets(), n=1)
        raise UsageError(f"unknown preset {name!r}; " + (f"did you mean {near[0]}?" if near else f"known are {', '.join(presets())}"))
    return dict(read_yaml(PRESETS / f"{name}.yaml" if name else None).values)
