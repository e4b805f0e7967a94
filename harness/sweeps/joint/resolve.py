"""What `harness run --structure joint` will do: its goal and arms, before any weights are touched."""

from __future__ import annotations

from harness.config.settings import RunConfig
from harness.core.errors import MeasurementError, UsageError
from harness.core.types.goal import Goal
from harness.core.types.pruning import ModelShape
from harness.engine.devices import check_gpus
from harness.models import registry
from harness.pipeline.arms import Arm
from harness.pipeline.dry_run import scoring_place
from harness.pipeline.resolve import DENSE, ResolvedRun, read_items, tasks_and_shape
from harness.pipeline.vocabulary import check_size
from harness.pipeline.width_search import probe_place
from harness.serving.cost_table import CostTable, roofline_table
from harness.serving.roofline import find_device
from harness.sweeps.goal.conditions import shape_conditions
from harness.sweeps.goal.resolve import check_alone, check_room, goal_alignment, goal_of, timed_requests
from harness.sweeps.joint.arms import ARMS, TRIMMED, first_speedup, goal_shares, grid_choices
from pruning.checkpoint import check_uniform_width
from pruning.families import FAMILIES, check_nonuniform
from pruning.plan import PlanRequest, choose_metric
from pruning.search.choices import LayerChoice
from pruning.structures import check_structure
from pruning.vocabulary import padded

_UNUSED = {
    "sequential": "re-fits each layer on what the ones before it leave",
    "protect": "keeps neurons by another score",
}


def resolve_joint(config: RunConfig, chat: bool = True) -> ResolvedRun:
    """Every check that needs no weights.

    Raises:
        UsageError: For the first setting that is wrong, or a goal that the model meets as it is or that no plan meets.
        MeasurementError: The model does not fit the memory as a whole.
    """
    check_alone(config)
    _check_settings(config)
    check_gpus(config.tensor_parallel)
    tasks, shape = tasks_and_shape(config, chat)
    check_uniform_width(shape, config.model)
    check_structure("joint", shape)
    check_nonuniform(FAMILIES[shape.model_type])
    _check_vocabulary(config, shape)
    goal = goal_of(config, shape)
    check_room(config, goal, shape)
    align = goal_alignment(config, goal, shape)
    metric, _ = choose_metric("selective", config.metric, True, "joint")
    request = PlanRequest(0.0, metric=metric, seed=config.seed, alignment=align, compensated=True, structure="joint")
    spec = ResolvedRun(
        config=config.model_copy(update={"align": align, "requests": timed_requests(config)}),
        model=registry.model_id(config.model, tasks[0].kind),
        tasks=tasks,
        shape=shape,
        base=DENSE,
        arms=tuple(Arm(name, request, name) for name in ARMS),
        recovered=(),
        served=(DENSE,),
        items=read_items(config.items, tasks[0]),
        goal=goal,
    )
    _check_widths(spec)
    _check_reachable(spec, goal)
    _check_whole(spec)
    return spec


def _check_settings(config: RunConfig) -> None:
    """Raises UsageError for settings that a joint search does not take."""
    if config.goal.max_loss is not None or config.goal.off_target_loss is not None:
        raise UsageError(
            "--structure joint finds the least damage at a speed or size, not the smallest model within a loss; "
            "give --speedup, --params or --fits, or use --structure neuron"
        )
    if config.goal.metrics:
        raise UsageError("--metrics is of --structure neuron; give one --metric")
    if config.compensate is False:
        raise UsageError("--structure joint re-fits the columns that remain; leave out --no-compensate")
    if config.allocation != "uniform":
        raise UsageError(f"--structure joint finds the widths itself; leave out --allocation {config.allocation}")
    for name, what in _UNUSED.items():
        if getattr(config, name):
            raise UsageError(f"--{name} {what}, which --structure joint does not; leave it out")


def grid_of(spec: ResolvedRun) -> tuple[LayerChoice, ...]:
    """What a layer may become, removed first."""
    return grid_choices(spec.shape, int(spec.config.align or 1), spec.config.min_width)


def widths_of_grid(spec: ResolvedRun) -> tuple[int, ...]:
    """FFN widths that a layer which stays may have, from the least to the whole."""
    return tuple(sorted({choice.width for choice in grid_of(spec) if not choice.removed}))


def computed_costs(spec: ResolvedRun) -> CostTable | None:
    """The costs by the roofline of the goal's device; None where they are timed here, or not needed."""
    goal = spec.goal
    if goal is None or goal.speedup is None or goal.device is None:
        return None
    return roofline_table(spec.shape, find_device(goal.device), goal.concurrency, goal.context)


def vocabulary_of(spec: ResolvedRun, arm: str) -> int:
    """Rows of the embedding that stay in an arm."""
    asked, whole = spec.config.goal.vocabulary, spec.shape.vocab_size
    return padded(asked) if asked and arm == TRIMMED else whole


def _check_vocabulary(config: RunConfig, shape: ModelShape) -> None:
    """Raises UsageError for a size that cannot be, and UnsupportedModelError where a tokenizer that is on this machine
    cannot be trimmed; of another model the run says so once it is there.
    """
    size = config.goal.vocabulary
    if size and padded(size) >= shape.vocab_size:
        raise UsageError(f"--vocabulary {size} is not below the {shape.vocab_size} entries of {config.model}")
    if size and (model := registry.found_here(config.model)):
        check_size(model, size)


def _check_widths(spec: ResolvedRun) -> None:
    """Raises UsageError where a layer can only stay whole or be removed, which would leave the arms no difference."""
    least, size = spec.config.min_width, spec.shape.intermediate_size
    if widths_of_grid(spec) == (size,):
        given = f"--align {spec.config.align}" + (f" with --min-width {least}" if least else "")
        raise UsageError(f"{given} leaves no FFN width below {size} to choose; give a smaller one")


def _check_reachable(spec: ResolvedRun, goal: Goal) -> None:
    """Raises UsageError where the limits that are known by formula need nothing to be removed, or cannot be kept."""
    asked = " ".join(goal.options)
    if goal.is_timed and goal.params is None and goal.fits is None:
        return
    if not goal.is_timed and all(c.met for c in shape_conditions(goal, spec.shape, spec.shape)):
        raise UsageError(f"{spec.config.model} meets {asked} as it is; nothing has to be removed")
    if not is_reachable(spec, goal, computed_costs(spec)):
        raise UsageError(
            f"no plan of {spec.config.model} meets {asked}: one layer of {spec.shape.num_hidden_layers} at FFN width "
            f"{widths_of_grid(spec)[0]} is too much beside what is in no layer; ask for less"
        )


def is_reachable(spec: ResolvedRun, goal: Goal, costs: CostTable | None) -> bool:
    """Whether a plan keeps the limits: the smallest leaves one layer, which has attention, at the least width. costs:
    None where they are not known yet.
    """
    grid, rows = grid_of(spec), vocabulary_of(spec, TRIMMED)
    shares = goal_shares(goal, spec.shape, costs, first_speedup(goal), grid, rows)
    return shares is not None and any(
        share <= 1 for share, choice in zip(shares, grid, strict=True) if choice.attention
    )


def _check_whole(spec: ResolvedRun) -> None:
    """Raises MeasurementError for a model that cannot be scored here, or not be measured as a whole."""
    scoring_place(spec)
    if probe_place(spec.shape, spec.calibration_request.samples).source == "layers":
        raise MeasurementError(
            f"--structure joint measures damage on the whole model in memory, and {spec.config.model} does not fit; "
            "free some memory, or use --structure neuron"
        )
