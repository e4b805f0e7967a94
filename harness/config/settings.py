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
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError, field_validator
from pydantic.fields import FieldInfo

from harness.config.dissociate_settings import DissociateConfig
from harness.config.engine_options import parse_engine_options
from harness.config.goal_settings import GoalConfig
from harness.config.messages import innermost, what_is_wrong
from harness.config.recovery_settings import RecoveryConfig
from harness.config.sweep_settings import SweepConfig
from harness.config.template_args import parse_template_args
from harness.config.values import Value, split_choices, split_commas
from harness.config.yaml_file import YamlFile, read_yaml
from harness.core.errors import UsageError
from harness.core.types.calibration import TokenScope


class RunConfig(BaseModel):
    """Every setting of a run. Unknown keys are refused. `None` means: the default that fits the model, the task or the
    method.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, defer_build=True)

    model: str = Field(default="tiny-math", description="Alias, local folder, GGUF file or Hub id.")
    task: tuple[str, ...] = Field(
        default=(), description="Task; the first is the target. Default: the model's, with its off-target tasks."
    )
    include_path: Path | None = Field(
        default=None, description="Folder with lm-eval YAML files of your own tasks. Default: none."
    )
    metric_of: tuple[str, ...] = Field(
        default=(),
        description="The figure of a task of lm-eval's that counts, TASK=METRIC or TASK=METRIC,FILTER. "
        "Default: the first metric and filter of its YAML file.",
    )
    structure: Literal["neuron", "kv_group", "attention", "ffn", "layer", "joint"] = Field(
        default="neuron",
        description="What the ratio is of: FFN neurons, KV groups with their query heads, blocks, or whole layers. "
        "joint: FFN widths, attention and whole layers together, searched for --speedup, --params or --fits.",
    )
    ratio: float = Field(default=0.2, description="Fraction of FFN neurons to remove, in [0, 1).")
    method: Literal["selective", "random", "reverse"] = Field(
        default="selective", description="Neurons to remove: the lowest scored, random ones, or the highest scored."
    )
    metric: str | None = Field(
        default=None, description="Score of a neuron, see `harness metrics`. Default: best; S with --method reverse."
    )
    score_tokens: TokenScope = Field(default="all", description="Tokens of the calibration prompts that are scored.")
    completions: Literal["reference", "generated"] = Field(
        default="reference",
        description="Answers scored with the prompts: the data set's, or the model's own where they are right.",
    )
    prompt_format: Literal["evaluation", "plain"] = Field(
        default="evaluation", description="Calibration prompts as in the evaluation, or the plain question."
    )
    compensate: bool | None = Field(
        default=None, description="Re-fit the remaining columns of down_proj. Default: only with the metric best."
    )
    sequential: bool = Field(
        default=False, description="Re-fit layer by layer, each on the activations of the pruned layers before it."
    )
    reconstruct: bool = Field(
        default=False, description="After the re-fit, optimise each layer's FFN against the dense layer's output."
    )
    general_weight: float = Field(
        default=0.0, ge=0, le=1, description="Weight of general text in what obs and re-fitting preserve, in [0, 1]."
    )
    allocation: Literal["uniform", "global", "search"] = Field(
        default="uniform",
        description="Same width in every layer, one ranking over all layers, or widths found by measuring the KL "
        "divergence from the dense model.",
    )
    min_width: int = Field(
        default=0,
        ge=0,
        description="With --allocation global or search, or --structure joint: minimum number of neurons per layer; "
        "less than an eighth of the width counts as an eighth.",
    )
    protect: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Fraction of neurons with the largest contribution that always stay, in [0, 1).",
    )
    seed: int = Field(default=0, ge=0, description="Seed of random pruning.")
    align: int | None = Field(
        default=None,
        ge=1,
        description="Pruned widths are rounded to the nearest multiple. Default: 128, or 16 for widths below 1024.",
    )
    limit: int | None = Field(default=None, ge=1, description="Test items per task. Default: all.")
    items: Path | None = Field(
        default=None,
        description="JSON list of the target's item numbers to evaluate, or paper: its 200 of GSM8K. "
        "Default: the first --limit.",
    )
    template_args: Mapping[str, Value] = Field(
        default={}, description="Variables for the chat template, for example enable_thinking=false."
    )
    calibration_samples: int = Field(
        default=160, ge=1, description="Calibration prompts of the target; general ones are twice as many."
    )
    calibration_rows: Literal["all", "paper"] = Field(
        default="all",
        description="Rows that calibration prompts are drawn from: all, or the paper's, 80 % of the first 1000 of "
        "GSM8K and of each source of general prompts.",
    )
    dtype: Literal["default", "auto", "float32", "bfloat16", "float16"] = Field(
        default="default",
        description="Dtype of the engine. default: float32 on a CPU, auto on a GPU. auto: 16 bits where the device "
        "computes in them, on a CPU bfloat16 with AVX-512 BF16 or AMX.",
    )
    tensor_parallel: int = Field(default=1, ge=1, description="GPUs that share one engine.")
    engine_arg: Mapping[str, Value] = Field(
        default={}, description="Options of vLLM for every engine, by its own names, for example block_size=32."
    )
    trust_data: bool = Field(
        default=False, description="Use test code in HARNESS_DATA_DIR that is not the published one; it runs as you."
    )
    threads: int | None = Field(default=None, ge=1, description="CPU threads. Default: all cores.")
    concurrency: tuple[PositiveInt, ...] = Field(
        default=(1, 32), min_length=1, description="Simultaneous requests when speed is measured."
    )
    repeats: int = Field(default=3, ge=1, description="Timed repeats per variant.")
    output_tokens: int = Field(default=64, ge=2, description="Tokens generated per timed request.")
    input_tokens: int | None = Field(
        default=None, ge=1, description="Tokens of random prompts to time. Default: the task's own prompts."
    )
    requests: int | None = Field(
        default=None,
        ge=1,
        description="Requests per timed repeat. With --fits: how many concurrent requests must fit in memory. Default: "
        "the concurrency, at least 4; with --fits 1.",
    )
    stop_at_eos: bool = Field(
        default=False, description="Let timed answers end by themselves, at --output-tokens at most."
    )
    recover: bool = Field(default=False, description="Also fine-tune the pruned model, and the dense one as a control.")
    arms: tuple[Literal["selective", "random", "reverse", "dense"], ...] = Field(
        default=(), description="Prune the model in each of these ways first; dense is not pruned. Default: as it is."
    )
    recovery: RecoveryConfig = Field(default_factory=RecoveryConfig, description="How a checkpoint is fine-tuned.")
    sweep: SweepConfig = Field(default_factory=SweepConfig, description="The grid of a sweep.")
    dissociate: DissociateConfig = Field(
        default_factory=DissociateConfig, description="The sets of neurons of `harness dissociate`."
    )
    goal: GoalConfig = Field(default_factory=GoalConfig, description="What a model has to meet, instead of a ratio.")
    preset: str | None = Field(default=None, description="Settings by name, see `harness presets`. Default: none.")

    _one_or_many = field_validator("task", "concurrency", "arms", mode="before")(split_commas)
    _metric_choices = field_validator("metric_of", mode="before")(split_choices)
    _name_and_value = field_validator("template_args", mode="before")(parse_template_args)
    _known_options = field_validator("engine_arg", mode="before")(parse_engine_options)

    @field_validator("ratio")
    @classmethod
    def _fraction(cls, value: float) -> float:
        if not 0 <= value < 1:
            raise ValueError(f"{value} is outside [0, 1); it is the fraction of FFN neurons to remove, 0.2 for 20 %")
        return value


_NESTED: Mapping[str, type[BaseModel]] = {
    "recovery": RecoveryConfig,
    "sweep": SweepConfig,
    "dissociate": DissociateConfig,
    "goal": GoalConfig,
}
_INNER = {name: key for key, model in _NESTED.items() for name in model.model_fields}  # a nested setting -> its section
_MODELS: tuple[type[BaseModel], ...] = (RunConfig, *_NESTED.values())
FIELDS: Mapping[str, FieldInfo] = {  # every setting by its bare name
    name: field for model in _MODELS for name, field in model.model_fields.items() if name not in _NESTED
}
PRESETS = Path(__file__).parent / "presets"


def settings_of(section: str) -> tuple[str, ...]:
    """The names of the settings of a section: recovery, sweep, dissociate or goal."""
    return tuple(_NESTED[section].model_fields)


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
    option: str = "--{}",
) -> RunConfig:
    """The settings of a run: defaults < preset < file < environment < options.

    Args:
        file: YAML; the settings of recovery, sweep, dissociate and goal are below these names there, and have bare
            names everywhere else.
        options: Setting -> value; None and () are not given.
        preset: Name of a preset; None: the one that environment or file name.
        defaults: Of the command, where they are not the fields' own.
        names: Checks the merged values further, for example whether the model exists; yields (setting, problem).
        option: How errors name one of `options`.

    Raises:
        UsageError: With every wrong setting and where it was given.
    """
    sources = _Sources(
        read_yaml(file),
        environment_settings(),
        {key: value for key, value in options.items() if value not in (None, ())},
        option,
    )
    preset = preset or sources.environment.get("preset") or sources.file.values.get("preset")
    problems = list(sources.file.problems)
    if unknown := _preset_problem(preset):
        problems.append(f"{sources.place(('preset',))}: {unknown}")
        preset = None
    merged = _merged(sources, _read_preset(preset), defaults)
    config, wrong = _validated({**merged, "preset": preset}, sources)
    found = names(merged) if names else ()
    problems += wrong
    problems += [f"{sources.place((*filter(None, [_INNER.get(key)]), key))}: {problem}" for key, problem in found]
    if problems or config is None:
        raise UsageError(f"bad settings: {'; '.join(problems)}")
    return config


def _validated(values: Mapping[str, Any], sources: _Sources) -> tuple[RunConfig | None, list[str]]:
    """The config, or what is wrong with the values."""
    try:
        return RunConfig(**values), []
    except ValidationError as error:
        return None, [_problem(e, sources) for e in innermost(error)]


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
    option: str

    def place(self, keys: tuple[str, ...]) -> str:
        """As the user knows it: an option, a variable, a line of the file."""
        nested = len(keys) > 1 and _INNER.get(keys[1]) == keys[0]
        name = keys[1] if nested else keys[0]
        if name in self.given and (nested or name not in _NESTED):
            return self.option.format(name.replace("_", "-") if self.option.startswith("--") else name)
        if name in self.environment:
            return f"HARNESS_{name.upper()}"
        return self.file.place(keys) or ("preset" if name != "preset" else self.option.format(name))


def _problem(error: Any, sources: _Sources) -> str:
    """One wrong setting: where it was given, and what is wrong with it or what may have been meant."""
    keys = tuple(key for key in error["loc"] if isinstance(key, str))
    place = sources.place(tuple(map(str, error["loc"])))
    if error["type"] == "extra_forbidden":
        section = _NESTED.get(keys[0]) if len(keys) > 1 else None
        near = difflib.get_close_matches(keys[-1], (section or RunConfig).model_fields, n=1)
        text = "no such setting" + (f", did you mean {near[0]}?" if near else "; `harness config show` lists all")
        if section and keys[-1] in RunConfig.model_fields:
            text = f"no such setting below {keys[0]}; write {keys[-1]} at the top level"
        return f"{sources.file.place(keys) or place}: {'.'.join(keys)}: {text}"
    named = place if place.startswith((sources.option.split("{")[0], "HARNESS_")) else f"{place}: {'.'.join(keys)}"
    return f"{named}: {what_is_wrong(error)}"


def environment_settings() -> dict[str, str]:
    """The settings that the environment gives (HARNESS_RATIO=0.3), by their names."""
    return {name: os.environ[key] for name in FIELDS if (key := f"HARNESS_{name.upper()}") in os.environ}


def config_yaml(config: RunConfig) -> str:
    """Every setting with its value, defaults too; `--config` with this text gives the same settings again."""
    contradicted = {"ratio"} if config.goal.given else None  # a default here, and given where the text is read
    values = json.loads(config.model_dump_json(exclude=contradicted))
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, default_flow_style=None, width=120)


def config_schema() -> str:
    """JSON Schema of a config file, with every setting's description."""
    return json.dumps(RunConfig.model_json_schema(), indent=2) + "\n"


def _preset_problem(name: Any) -> str | None:
    if name is None or name in presets():
        return None
    near = difflib.get_close_matches(str(name), presets(), n=1)
    return f"unknown preset {name!r}; " + (f"did you mean {near[0]}?" if near else f"known are {', '.join(presets())}")


def _read_preset(name: str | None) -> dict[str, Any]:
    if problem := _preset_problem(name):
        raise UsageError(problem)
    return dict(read_yaml(PRESETS / f"{name}.yaml" if name else None).values)
