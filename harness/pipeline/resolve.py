"""What a run will do: a RunConfig with every default resolved, before any weights are touched."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from harness.config.recovery_settings import RecoveryConfig
from harness.config.settings import RunConfig
from harness.config.values import split_commas
from harness.core.bounded_read import read_json
from harness.core.errors import UsageError
from harness.core.hashing import digest
from harness.core.labels import asked_and_done
from harness.core.types.evaluation import LIKELIHOOD_METRICS, is_mean_score
from harness.core.types.goal import Goal
from harness.core.types.pruning import ModelShape, StructureName
from harness.engine.devices import check_divides, check_gpus
from harness.engine.engine_settings import engine_settings
from harness.engine.memory_budget import check_fits, weight_item_bytes
from harness.models import registry
from harness.pipeline.arms import Arm, FineTuning, make_arm
from harness.pipeline.named_tasks import (
    check_metric_choices,
    check_named_once,
    named_task,
    off_target_tasks,
    task_names,
    yaml_of,
)
from harness.pipeline.scoring import CalibrationRequest, ScoreRequest
from harness.training.examples import check_data
from pruning.checkpoint import read_config
from pruning.families import widths_of
from pruning.plan import (
    CONTRIBUTION,
    real_ratio,
    uniform_width,
    why_rounded,
)
from pruning.record import read_record
from pruning.scores import check_metric
from pruning.structures import check_groups_go, check_layers_go, count_of
from tasks.data import check_code_files, trusting
from tasks.registry import is_task, training_items
from tasks.task import Task

DENSE, PRUNED = "dense", "pruned"  # what a run calls the model that it was given: as published, or pruned before
_SHORTEST_PROMPT = 64
_PAPER_ITEMS = "paper"  # instead of a file
_LAYERS_GO = ("layer", "joint")  # structures of which a plan can leave out layers
_OTHER_METHODS = ("random", "reverse", "matched")  # that a sweep's methods may be besides metrics
_NO_METRICS = ("best", "selective", "dense", *_OTHER_METHODS)
_GRID = (
    "ratio",
    "method",
    "metric",
    "compensate",
    "reconstruct",
    "seed",
    "recover",
    "arms",
    "threads",
    "concurrency",
    "repeats",
    "output_tokens",
    "input_tokens",
    "requests",
    "stop_at_eos",
    "preset",
)


@dataclass(frozen=True)
class ResolvedRun:
    """`base`: the name of the model as it was given. `recovered`: variants that are also fine-tuned. `served`: those
    that are timed.

    exported: arms of which checkpoints are written, None for all. items: of the target, where not all or the first are
    asked. masks: further random arms, evaluated on the target alone. goal: what is searched; `arms` has one arm then of
    each way that is searched, until those that were evaluated take their place.
    """

    config: RunConfig
    model: str
    tasks: tuple[Task, ...]  # the target first, then what else is evaluated
    shape: ModelShape
    base: str
    arms: tuple[Arm, ...]
    recovered: tuple[str, ...]
    served: tuple[str, ...]
    recovery_seeds: int = 1
    items: tuple[int, ...] = ()
    exported: tuple[str, ...] | None = None
    sweep: bool = False
    masks: tuple[Arm, ...] = ()
    goal: Goal | None = None

    @property
    def target(self) -> Task:
        return self.tasks[0]

    def items_of(self, task: Task) -> int:
        """How many items of a task are asked."""
        if self.items and task is self.target:
            return len(self.items)
        return min(task.items, self.config.limit or task.items)

    @property
    def width(self) -> int:
        """Of every layer of an arm, where all layers have the same."""
        whole = self.shape.intermediate_size
        return uniform_width(self.arms[0].request, whole) if self.arms and self.structure == "neuron" else whole

    @property
    def structure(self) -> StructureName:
        return self.config.structure

    @property
    def left(self) -> int:
        """Of what the ratio is a share: how many an arm keeps."""
        whole = count_of(self.structure, self.shape)
        return uniform_width(self.arms[0].request, whole) if self.arms else whole

    @property
    def widths_searched(self) -> bool:
        """Whether an arm's widths go by measured damage."""
        return any(arm.request.allocation == "search" for arm in self.arms)

    @property
    def rounded(self) -> str | None:
        """What rounding makes of the requested ratios, in one line; None where they are as requested."""
        if not self.arms:
            return None
        whole = count_of(self.structure, self.shape)
        found = {arm.request.ratio: real_ratio(arm.request, whole) for arm in self.arms}
        return asked_and_done(sorted(found.items()), why_rounded(self.arms[0].request, whole))

    @property
    def variants(self) -> tuple[str, ...]:
        """Every one that is evaluated, in the order of the report."""
        return (self.base, *(arm.name for arm in self.arms), *(one.name for one in self.fine_tunings))

    @property
    def fine_tunings(self) -> tuple[FineTuning, ...]:
        """All with the first seed, then all with the next one."""
        return tuple(FineTuning(name, seed) for seed in range(self.recovery_seeds) for name in self.recovered)

    @property
    def exports(self) -> int:
        """Arms of which checkpoints are written."""
        return len(self.arms if self.exported is None else self.exported)

    @property
    def score_request(self) -> ScoreRequest:
        config = self.config
        matched = {CONTRIBUTION for arm in self.arms if arm.request.method == "matched"}
        metrics = tuple(sorted({*matched, *(arm.request.metric for arm in self.arms if arm.request.metric)}))
        compensated = any(arm.request.compensated for arm in self.arms)
        return ScoreRequest(
            metrics=metrics,
            moments=compensated and not config.sequential,
            general_weight=config.general_weight,
            threads=config.threads,
            sequential=config.sequential,
            structure="neuron" if self.structure == "joint" else self.structure,  # its layers are not scored
        )

    @property
    def calibration_request(self) -> CalibrationRequest:
        config = self.config
        return CalibrationRequest(
            samples=config.calibration_samples,
            tokens=config.score_tokens,
            generate_completions=config.completions == "generated",
            plain=config.prompt_format == "plain",
            paper_rows=config.calibration_rows == "paper",
            engine=engine_settings(config),
            template_args=config.template_args,
        )

    @property
    def settings(self) -> dict[str, Any]:
        """What a run directory is bound to; a sweep's grid may grow, as its cells go by what they are made of."""
        left_out = {
            "recovery",
            "sweep",
            "dissociate",
            "goal",
            "include_path",  # the hashes of its tasks are below
            "metric_of",
            *(_GRID if self.sweep else ()),
        }  # the recipe's and the data's hashes bind what is fine-tuned
        values = json.loads(self.config.model_dump_json(exclude=left_out))
        named: dict[str, Any] = {"model": self.model, "task": [task.name for task in self.tasks]}
        named["items"] = digest(self.items)
        if contents := {task.name: task.content for task in self.tasks if task.content}:
            named["tasks_of_lm_eval"] = contents
        if self.goal:  # its looks are counted, so a directory is bound to one goal
            named["goal"] = json.loads(json.dumps(asdict(self.goal)))
        if self.config.goal.vocabulary:
            named["vocabulary"] = self.config.goal.vocabulary
        if self.sweep:
            return {**values, **named}
        requests = [[arm.name, arm.request.alignment] for arm in self.arms]
        return {**values, **named, "arms": requests, "recovered": list(self.recovered)}

    @property
    def default_out(self) -> Path:
        model = registry.short_name(self.config.model)
        if self.sweep:
            return Path("runs") / f"sweep-{model}-{self.target.name}"
        if self.goal:
            kind, rows = "joint" if self.structure == "joint" else "goal", self.config.goal.vocabulary
            trimmed = f"-vocabulary-{rows}" if rows else ""
            return Path("runs") / f"{kind}-{model}-{self.target.name}-{self.goal.label}{trimmed}"
        return Path("runs") / "-".join(
            (model, self.target.name, *([self.arms[0].name] if len(self.arms) == 1 else []), *self._recovery)
        )

    @property
    def _recovery(self) -> list[str]:
        return ["recovered"] if self.recovered else []


def resolve(config: RunConfig, chat: bool = True, off_target: bool = True) -> ResolvedRun:
    """`harness run`. Checks all that can be checked without weights; raises UsageError for the first thing that is
    wrong.

    Args:
        chat: Whether the model has a chat template, which decides what a family name like gsm8k means.
        off_target: Whether a single task has others beside it; a scoring needs none.
    """
    elsewhere = (
        config.recover or config.preset or config.sweep.recovered
    )  # a preset is for all commands, a sweep's config for this one too
    if config.arms or (config.recovery != RecoveryConfig() and not elsewhere):
        raise UsageError(
            "settings of the recovery are given and nothing is recovered; add "
            "--recover, or give them to `harness recover`"
        )
    check_gpus(config.tensor_parallel)
    tasks, shape = tasks_and_shape(config, chat, off_target)
    arm, bare = make_arm(config, config.method, shape), without_arms(config, tasks, shape)
    if config.recover:
        check_several_items(bare)
    return replace(
        bare,
        arms=(arm,),
        exported=None,
        recovered=(DENSE, arm.name) if config.recover else (),
        served=(DENSE, arm.name, *([FineTuning(arm.name).name] if config.recover else [])),
    )


def resolve_recovery(config: RunConfig, chat: bool = True) -> ResolvedRun:
    """`harness recover`: the model as it is, or the requested arms."""
    check_gpus(config.tensor_parallel)
    tasks, shape = tasks_and_shape(config, chat)
    base = PRUNED if read_record(Path(config.model)) else DENSE
    asked = config.arms or (DENSE,)
    if base == PRUNED and config.arms:
        raise UsageError(f"{config.model} is pruned already; leave out --arms, or give the model that it was made from")
    arms = tuple(make_arm(config, method, shape) for method in asked if method != DENSE)
    recovered = tuple(base if method == DENSE else make_arm(config, method, shape).name for method in asked)
    bare = without_arms(config, tasks, shape)
    if arms and base in recovered:
        check_several_items(bare)
    return replace(bare, base=base, arms=arms, recovered=recovered, exported=None)


def without_arms(config: RunConfig, tasks: tuple[Task, ...], shape: ModelShape) -> ResolvedRun:
    """The model as it was given, which commands add to, or whose variants follow from what they find."""
    return ResolvedRun(
        config=config,
        model=registry.model_id(config.model, tasks[0].kind),
        tasks=tasks,
        shape=shape,
        base=DENSE,
        arms=(),
        recovered=(),
        served=(),
        items=read_items(config.items, tasks[0]),
        exported=(),
    )


def check_several_items(spec: ResolvedRun) -> None:
    """Raises UsageError for a single item, over which there is no interval for what variants differ by."""
    if 1 in (spec.config.limit, len(spec.items)):
        raise UsageError("one item leaves no interval for what variants differ by; give --limit or --items 2 or more")


def read_items(file: Path | None, task: Task) -> tuple[int, ...]:
    """Indices in the task's test split, in order, out of a JSON list; raises UsageError for anything else.

    file: a JSON file, or "paper" for the items that the paper asks.
    """
    if file is None:
        return ()
    if str(file) == _PAPER_ITEMS:
        if task.paper_items is None:
            raise UsageError(f"--items {file} is a list of items of gsm8k, not of {task.name}; give a JSON file")
        file = task.paper_items
    try:
        items = read_json(file)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{file} cannot be read as JSON ({error}); give a list of item numbers, like [0, 7, 12]"
        ) from error
    if not isinstance(items, list) or not items or not all(type(i) is int and 0 <= i < task.items for i in items):
        raise UsageError(f"{file} is not a list of item numbers of {task.name}, from 0 to {task.items - 1}")
    return tuple(sorted(set(items)))


def name_problems(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(setting, what is wrong) of every model, task and metric of a config that there is not."""
    tasks, sweep = _listed(values.get("task")), values.get("sweep")
    methods = _listed(sweep.get("methods")) if isinstance(sweep, Mapping) else []
    metrics = [("metric", values.get("metric")), *(("methods", method.partition("+")[0]) for method in methods)]
    checks: list[tuple[str, Callable[[], object]]] = [
        ("model", lambda: registry.find_model(str(values.get("model", "tiny-math"))))
    ]
    given = values.get("include_path")
    folder = Path(given) if given and isinstance(given, str | Path) else None
    checks += [("task", functools.partial(yaml_of, name, folder)) for name in tasks if not is_task(name)]
    checks += [
        (setting, functools.partial(check_metric, str(name), _OTHER_METHODS if setting == "methods" else ()))
        for setting, name in metrics
        if name not in (None, *_NO_METRICS)
    ]
    for setting, check in checks:
        try:
            check()
        except UsageError as error:
            yield setting, str(error)


def _listed(value: Any) -> list[str]:
    """The names in a setting that is a text with commas or a list; of anything else its type is wrong already."""
    found = split_commas(value)
    return [str(name) for name in found] if isinstance(found, list) else []


def tasks_and_shape(
    config: RunConfig, chat: bool, off_target: bool = True, all_scored: bool = False
) -> tuple[tuple[Task, ...], ModelShape]:
    """The tasks, the target first, and the model's sizes.

    Args:
        off_target: Whether a single task has others beside it.
        all_scored: Whether the model is scored for every task, not for the target alone.
    """
    all_scored = all_scored or config.goal.vocabulary is not None  # texts of every task decide which entries stay
    chosen = [named_task(config, name, chat, all_scored or not i) for i, name in enumerate(task_names(config))]
    check_named_once([task.name for task in chosen])  # a family and its task are one
    check_metric_choices(config, chosen[0].off_target if len(chosen) == 1 else ())
    shape = registry.shape(config.model, chosen[0].kind)
    check_tasks(chosen, shape, config)
    if config.structure in _LAYERS_GO and (model := registry.found_here(config.model)):
        check_layers_go(model.family, model.config, shape.num_hidden_layers)
    if config.structure == "kv_group" and (model := registry.found_here(config.model)):
        check_groups_go(model.family, model.config)
    check_divides(config.model, shape, _widths(config.model, shape), config.tensor_parallel)
    check_fits(config.model, shape.parameters * weight_item_bytes(config.dtype), config.tensor_parallel)
    if len(chosen) == 1 and off_target:
        chosen += off_target_tasks(config, chosen[0], shape.parameters, chat, all_scored)
        check_tasks(chosen[1:], shape, config)
    if config.recover and config.recovery.mixture:
        check_data(config.recovery, chat)
    elif config.recover and config.recovery.data in ("task", "generated"):
        training_items(chosen[0])
    return tuple(chosen), shape


def _widths(name: str, shape: ModelShape) -> tuple[int, ...]:
    """The FFN width of every layer, as far as it can be known without the model's folder."""
    here = not shape.uniform and Path(name).is_dir()
    return widths_of(read_config(Path(name))) if here else (shape.intermediate_size,)


def check_tasks(tasks: Sequence[Task], shape: ModelShape, config: RunConfig) -> None:
    """Raises UsageError where an answer does not fit the model's context, a data file holds unknown code, or a single
    item would have no interval.
    """
    for task in tasks:
        with trusting(config.trust_data):
            check_code_files(task.code_files)
        if config.limit == 1 and (task.metric in LIKELIHOOD_METRICS or is_mean_score(task.metric)):
            raise UsageError(f"--limit 1 leaves no interval for {task.name}, a mean over items; give 2 or more")
        if task.generates and shape.max_position_embeddings < task.max_new_tokens + _SHORTEST_PROMPT:
            raise UsageError(
                f"{task.name} asks for answers of {task.max_new_tokens} tokens and the model's context is "
                f"{shape.max_position_embeddings}; choose another --task or model"
            )
