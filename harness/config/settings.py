"""RunConfig: every setting of a run, from a YAML file, then the environment (HARNESS_<FIELD>), then the command
line.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, ValidationError, field_validator

from harness.config.yaml_file import YamlFile, read_yaml
from harness.core.errors import UsageError
from harness.core.labels import metric_label
from harness.core.types.calibration import TokenScope


class RecoveryConfig(BaseModel):
    """How a checkpoint is fine-tuned. `data`: task, generated (the dense model's own right answers), a .jsonl file, or
    a Hub data set.
    """

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

    ratios_by_width: intermediate_size -> ratios, where `ratios` is not given. off_target: beside a single task, instead
    of its own. recovered: which of the methods, and dense, are fine-tuned at `recovery_ratios`. margin: of
    non-inferiority, a fraction of all items."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    methods: tuple[str, ...] = Field(default=("S", "best", "random", "reverse"), min_length=1)
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

    @field_validator("methods", "recovered")
    @classmethod
    def _shown_names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        """`smd` and `S` are one method."""
        return tuple("+".join((metric_label(name), *refit)) for name, *refit in (method.split("+") for method in value))


class RunConfig(BaseModel):
    """Unknown keys are refused. `None` means: the default that fits the model, the task or the method."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = "tiny-math"
    task: tuple[str, ...] = ()
    ratio: float = 0.2
    method: Literal["selective", "random", "reverse"] = "selective"
    metric: str | None = None
    score_tokens: TokenScope = "all"
    completions: Literal["reference", "generated"] = "reference"
    prompt_format: Literal["evaluation", "plain"] = "evaluation"
    compensate: bool | None = None
    sequential: bool = False
    general_weight: float = Field(default=0.0, ge=0, le=1)
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
    stop_at_eos: bool = False
    recover: bool = False
    arms: tuple[Literal["selective", "random", "reverse", "dense"], ...] = ()
    recovery: RecoveryConfig = RecoveryConfig()
    sweep: SweepConfig = SweepConfig()
    preset: str | None = None

    @field_validator("ratio")
    @classmethod
    def _fraction(cls, value: float) -> float:
        if not 0 <= value < 1:
            raise ValueError(
                f"ratio {value} is outside [0, 1); it is the fraction of FFN neurons to remove, 0.2 for 20 %"
            )
        return value

    @field_validator("task", "concurrency", "arms", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return value.split(",") if isinstance(value, str) else value


_NESTED: Mapping[str, type[BaseModel]] = {"recovery": RecoveryConfig, "sweep": SweepConfig}
_INNER = {name: key for key, model in _NESTED.items() for name in model.model_fields}  # a nested setting -> its section
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


NameCheck = Callable[[Mapping[str, Any]], Iterable[tuple[str, str]]]


def load_config(
    file: Path | None,
    options: Mapping[str, Any],
    preset: str | None = None,
    defaults: Mapping[str, Any] = {},
    names: NameCheck | None = None,
) -> RunConfig:
    """Merges a command's own defaults < preset < file < environment < options; raises UsageError with every wrong
    setting and its place.

    Settings of the recovery and of a sweep stand below `recovery` and `sweep` in a file, and by their bare names
    elsewhere. names: what else is asked of the merged values, as whether there is such a model; it gives pairs of a
    setting and what is wrong."""
    sources = _Sources(
        read_yaml(file),
        environment_settings(),
        {key: value for key, value in options.items() if value not in (None, ())},
    )
    preset = preset or sources.environment.get("preset") or sources.file.values.get("preset")
    problems = list(sources.file.problems)
    if unknown := _preset_problem(preset):
        problems.append(f"{sources.place(('preset',))}: {unknown}")
        preset = None
    merged = _merged(sources, _read_preset(preset), defaults)
    config = None
    try:
        config = RunConfig(**{**merged, "preset": preset})
    except ValidationError as error:
        problems += [_problem(e, sources) for e in error.errors()]
    problems += [f"{sources.place((key,))}: {problem}" for key, problem in (names(merged) if names else ())]
    if problems or config is None:
        raise UsageError(f"bad settings: {'; '.join(problems)}")
    return config


def _merged(sources: _Sources, preset: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    merged: dict[str, Any] = {**defaults, **preset, **sources.file.values}
    named = {**sources.environment, **sources.given}
    merged |= {key: value for key, value in named.items() if key not in _INNER and key != "preset"}
    for section in _NESTED:
        own, bare = (
            merged.get(section) or {},
            {key: value for key, value in named.items() if _INNER.get(key) == section},
        )
        if isinstance(own, dict):  # anything else is refused by its type
            merged[section] = {**(preset.get(section) or {}), **own, **bare}
    return merged


@dataclass(frozen=True)
class _Sources:
    """Where settings came from."""

    file: YamlFile
    environment: Mapping[str, Any]
    given: Mapping[str, Any]

    def place(self, keys: tuple[str, ...]) -> str:
        """As the user knows it: an option, a variable, a line of the file."""
        nested = len(keys) > 1 and _INNER.get(keys[1]) == keys[0]
        name = keys[1] if nested else keys[0]
        if name in self.given and (nested or name not in _NESTED):
            return f"--{name.replace('_', '-')}"
        if name in self.environment:
            return f"HARNESS_{name.upper()}"
        return self.file.place(keys) or ("preset" if name != "preset" else "--preset")


def _problem(error: Any, sources: _Sources) -> str:
    """One wrong setting: where it was given, its name, what is wrong with it, and what may have been meant."""
    keys = tuple(map(str, error["loc"]))
    text = error["msg"].removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        section = _NESTED.get(keys[0]) if len(keys) > 1 else None
        near = difflib.get_close_matches(keys[-1], (section or RunConfig).model_fields, n=1)
        text = "no such setting" + (f", did you mean {near[0]}?" if near else "; `harness config show` lists all")
        return f"{sources.file.place(keys) or sources.place(keys)}: {'.'.join(keys)}: {text}"
    return f"{sources.place(keys)}: {'.'.join(keys)}: {text[:1].lower()}{text[1:]}"


def environment_settings() -> dict[str, str]:
    """The settings that the environment gives (HARNESS_RATIO=0.3), by their names."""
    names = [name for name in (*RunConfig.model_fields, *_INNER) if name not in _NESTED]
    return {name: os.environ[key] for name in names if (key := f"HARNESS_{name.upper()}") in os.environ}


def config_yaml(config: RunConfig) -> str:
    """Every setting with its value, defaults too; `--config` with this text gives the same settings again."""
    values = json.loads(config.model_dump_json())
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, default_flow_style=None, width=120)


def _preset_problem(name: Any) -> str | None:
    if name is None or name in presets():
        return None
    near = difflib.get_close_matches(str(name), presets(), n=1)
    return f"unknown preset {name!r}; " + (f"did you mean {near[0]}?" if near else f"known are {', '.join(presets())}")


def _read_preset(name: str | None) -> dict[str, Any]:
    if problem := _preset_problem(name):
        raise UsageError(problem)
    return dict(read_yaml(PRESETS / f"{name}.yaml" if name else None).values)
