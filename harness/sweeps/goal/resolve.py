"""What `harness run` with a goal will do: the goal, the widths and ways that are searched, before any weights are
touched.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from harness.config.recovery_settings import RecoveryConfig
from harness.config.settings import RunConfig
from harness.core.errors import MeasurementError, UsageError
from harness.core.types.evaluation import has_right_answers
from harness.core.types.goal import Goal
from harness.core.types.pruning import ModelShape
from harness.engine.devices import check_divides, check_gpus
from harness.engine.memory_budget import have_room, weight_item_bytes
from harness.pipeline.arms import Arm, alignment_of, make_arm
from harness.pipeline.resolve import DENSE, ResolvedRun, tasks_and_shape, without_arms
from harness.serving.roofline import find_device
from harness.sweeps.goal.conditions import LEVEL, least_bound, least_items, size_conditions
from harness.sweeps.goal.search import most_looks
from harness.sweeps.grid import method_arm
from pruning.plan import floor_width, pruned_width
from reports.sections.goal import condition_text
from tasks.task import Task

_CONTEXT = 2048
_UNSEARCHED = ("random", "reverse", "matched")


@dataclass(frozen=True)
class SearchSpace:
    """What is searched.

    Attributes:
        ways: Metrics as `--metrics` names them; (None,) for the one that the other settings say.
        widths: FFN widths whose sizes meet the goal, ascending.
        looks: Variants that are compared with a limit of loss, at most; 0 without such a limit.
        level: One-sided level of each bound.
    """

    ways: tuple[str | None, ...]
    widths: tuple[int, ...]
    looks: int

    @property
    def level(self) -> float:
        return LEVEL / max(1, self.looks)


def resolve_goal(config: RunConfig, chat: bool = True) -> ResolvedRun:
    """Every check that needs no weights.

    Raises:
        UsageError: For the first setting that is wrong, or a goal that the model meets as it is, that no width meets,
            or that the items cannot show.
    """
    check_alone(config)
    check_gpus(config.tensor_parallel)
    tasks, shape = tasks_and_shape(config, chat)
    goal = goal_of(config, shape)
    check_room(config, goal, shape)
    # requests is the goal's then, and the timed repeats have their own
    config = config.model_copy(
        update={"align": goal_alignment(config, goal, shape), "requests": timed_requests(config)}
    )
    spec = replace(
        without_arms(config, tasks, shape),
        served=(DENSE,),
        exported=(DENSE,),  # one of the same size at most: the model that is found
        goal=goal,
    )
    space = search_space(spec)
    _check_items(spec, space)
    arms = tuple(arm_at(config, way, space.widths[-1], shape) for way in space.ways)
    kinds = [arm.kind for arm in arms]
    if twice := next((kind for kind in kinds if kinds.count(kind) > 1), None):
        raise UsageError(f"--metrics names {twice} twice; leave one out, as each more widens the bounds of all")
    return replace(spec, arms=arms)


def check_alone(config: RunConfig) -> None:
    """Raises UsageError for settings that contradict a goal, or that are nothing without one."""
    given, asked = config.goal, " ".join(f"--{name.replace('_', '-')}" for name in config.goal.given)
    if "ratio" in config.model_fields_set:
        raise UsageError(
            f"a ratio (--ratio, HARNESS_RATIO or `ratio:` in the settings file) contradicts {asked}, which searches "
            "the ratio; remove one of them"
        )
    if config.structure not in ("neuron", "joint"):
        raise UsageError(f"--structure {config.structure} is not searched; use neuron or joint, or give --ratio")
    if config.method != "selective":
        raise UsageError(f"--method {config.method} is a control and not searched; leave it out beside {asked}")
    if config.recover or config.arms or (config.recovery != RecoveryConfig() and not config.preset):
        raise UsageError("a goal is searched without fine-tuning; run `harness recover` on the model that is found")
    if not {"max_loss", "off_target_loss", "params", "fits", "speedup"} & set(given.given):
        raise UsageError(f"{asked} alone is no goal; add --max-loss, --off-target-loss, --params, --fits or --speedup")
    if given.vocabulary and config.structure != "joint":
        raise UsageError("--vocabulary belongs to --structure joint; `harness vocabulary` trims a model by itself")
    if given.context and not (given.fits or given.device):
        raise UsageError("--context belongs to --fits or --device; add one of them, or leave it out")
    if given.device and given.speedup is None:
        raise UsageError(
            "--device belongs to --speedup; add it, or give the memory that has to hold the model as --fits"
        )
    if given.speedup is not None and not given.device and config.repeats < 2:
        raise UsageError("--speedup is shown by an interval, and --repeats 1 gives none; give 2 or more")
    if given.metrics and (config.metric or config.compensate is not None or config.reconstruct):
        raise UsageError(
            "--metrics names what is searched, as best,rms+refit,best+rec; leave out --metric, --compensate and "
            "--reconstruct"
        )
    if control := next((name for name in given.metrics if name.partition("+")[0] in _UNSEARCHED), None):
        raise UsageError(f"--metrics {control} is a control and not searched; `harness sweep` compares with it")


def check_room(config: RunConfig, goal: Goal, shape: ModelShape) -> None:
    """Raises MeasurementError where a speed is to be measured and two engines have no room side by side."""
    weights = shape.parameters * weight_item_bytes(config.dtype)
    if goal.is_timed and not have_room([weights, weights], config.tensor_parallel):
        raise MeasurementError(
            f"--speedup times two engines side by side, and {config.model} does not fit twice on this device; give "
            "--device for a speed by a roofline, or --tensor-parallel for more GPUs"
        )


def timed_requests(config: RunConfig) -> int | None:
    """`--requests`, where it is not the goal's."""
    return None if config.goal.fits else config.requests


def goal_of(config: RunConfig, shape: ModelShape) -> Goal:
    """The goal with the defaults that fit the model."""
    given, most = config.goal, shape.max_position_embeddings
    if given.context and given.context > most:
        raise UsageError(f"--context {given.context} is more than the {most} tokens that {config.model} can take")
    if given.device and find_device(given.device).flops is None:
        raise UsageError(f"--device {given.device} says nothing of its speed; give a name like A100-80 or 2xH100-80")
    if given.fits:
        find_device(given.fits)
    return Goal(
        max_loss=None if given.max_loss is None else given.max_loss / 100,
        off_target_loss=None if given.off_target_loss is None else given.off_target_loss / 100,
        params=given.params,
        fits=given.fits,
        speedup=given.speedup,
        device=given.device,
        context=given.context or min(_CONTEXT, most),
        requests=(config.requests if given.fits else None) or 1,
        concurrency=tuple(config.concurrency),
    )


def goal_alignment(config: RunConfig, goal: Goal, shape: ModelShape) -> int:
    """What widths are multiples of, so that the GPUs of every device can divide them."""
    counts = [find_device(name).count for name in (goal.fits, goal.device) if name]
    for count in counts:
        check_divides(config.model, shape, (shape.intermediate_size,), count)
    several = config.model_copy(update={"tensor_parallel": max(config.tensor_parallel, *counts, 1)})
    return alignment_of(several, shape.intermediate_size)


def search_space(spec: ResolvedRun) -> SearchSpace:
    """The widths that meet what follows from the width alone.

    Raises:
        UsageError: There is none, or there is nothing to remove.
    """
    goal, shape, whole = _of(spec), spec.shape, spec.shape.intermediate_size
    alignment = int(spec.config.align or 1)
    least = max(alignment, round(spec.config.protect * whole), spec.config.min_width)
    if spec.config.allocation != "uniform":
        least = max(least, floor_width(whole, alignment, spec.config.min_width))
    widths = [width for width in range(alignment, whole, alignment) if width >= least]
    if not widths:
        raise UsageError(f"no width between {least} and {whole} is a multiple of {alignment}; give a smaller --align")
    if not (goal.limits_loss or goal.is_timed) and all(c.met for c in size_conditions(goal, shape, whole)):
        raise UsageError(f"{spec.config.model} meets {' '.join(goal.options)} as it is; nothing has to be removed")
    fitting = tuple(width for width in widths if all(c.met for c in size_conditions(goal, shape, width)))
    if not fitting:
        missed = [c for c in size_conditions(goal, shape, widths[0]) if not c.met]
        raise UsageError(
            f"no width of {spec.config.model} meets {' '.join(goal.options)}; the nearest, {widths[0]} of {whole}, has "
            f"{' and '.join(condition_text(vars(c)) for c in missed)}"
        )
    ways = spec.config.goal.metrics or (None,)
    return SearchSpace(ways, fitting, most_looks(len(ways), len(fitting)) if goal.limits_loss else 0)


def _of(spec: ResolvedRun) -> Goal:
    assert spec.goal is not None, "a search needs a goal"
    return spec.goal


def limited_tasks(spec: ResolvedRun) -> tuple[Task, ...]:
    """The tasks whose loss the goal limits; raises UsageError where there are none with right answers."""
    goal, target = _of(spec), spec.target
    if goal.max_loss is not None and not has_right_answers(target.metric):
        raise UsageError(f"--max-loss is in points, and {target.name} is measured as {target.metric}; choose a task")
    others = [task for task in spec.tasks[1:] if has_right_answers(task.metric)]
    if goal.off_target_loss is not None and not others:
        raise UsageError("--off-target-loss needs an off-target task with right answers; add one with --task")
    targets = [target] if goal.max_loss is not None else []
    return (*targets, *(others if goal.off_target_loss is not None else []))


def _check_items(spec: ResolvedRun, space: SearchSpace) -> None:
    """Raises UsageError where not even unchanged answers would show a loss within its limit."""
    goal = _of(spec)
    for task in limited_tasks(spec):
        name, limit = (
            ("--max-loss", goal.max_loss) if task is spec.target else ("--off-target-loss", goal.off_target_loss)
        )
        n = spec.items_of(task)
        if limit is None or (n > 1 and least_bound(n, space.level) <= limit):
            continue
        enough = least_items(limit, space.level, task.items)
        how = f"ask {enough} or more" if enough else "choose a task with more items"
        raise UsageError(
            f"{name} {100 * limit:g} cannot be shown on {n} items of {task.name}, not even where no answer changes, "
            f"with up to {space.looks} looks; {how}, or allow a larger loss"
        )


def arm_at(config: RunConfig, way: str | None, width: int, shape: ModelShape) -> Arm:
    """The arm of one way of pruning with this width."""
    ratio = ratio_for(shape.intermediate_size, width, int(config.align or 1))
    if way is None:
        return make_arm(config.model_copy(update={"ratio": ratio}), "selective", shape)
    return method_arm(config, way, ratio, config.seed, shape)


def ratio_for(whole: int, width: int, alignment: int) -> float:
    """The ratio with the fewest decimals that leaves this width, a multiple of the alignment below the whole."""
    ratios = (round(1 - width / whole, digits) for digits in range(1, 17))
    return next(ratio for ratio in ratios if 0 < ratio < 1 and pruned_width(whole, ratio, alignment) == width)
