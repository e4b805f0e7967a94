"""What `harness dissociate` will do, before any weights are touched."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from harness.config.settings import RunConfig
from harness.core.errors import UsageError
from harness.core.types.evaluation import has_right_answers
from harness.engine.devices import check_gpus
from harness.models import registry
from harness.pipeline.arms import check_neurons
from harness.pipeline.data_check import check_data
from harness.pipeline.resolve import ResolvedRun, check_several_items, tasks_and_shape, without_arms
from harness.pipeline.scoring import placement_of
from harness.sweeps.dissociation.sets import DOSES, FACTORS, MATCHED, OTHERS, SAMPLES, SetRequest
from pruning.checkpoint import check_uniform_width
from pruning.placement import Placement
from reports.parts import Table

_MOST = 0.5  # of a layer's neurons, so that each has another one as its match
_SINGLE = 7  # surface, difference, super alone, without super, mean, general mean, re-fitted


def resolve_dissociation(config: RunConfig, chat: bool = True) -> ResolvedRun:
    """Every check that needs no weights.

    Raises:
        UsageError: For the first setting that is wrong, such as fewer than two tasks with right answers.
    """
    check_neurons(config, "dissociate")
    if config.engine_arg.get("enforce_eager") is False:
        raise UsageError(
            "--engine-arg enforce_eager=false: a compiled layer takes no mean in a neuron's place; leave it out"
        )
    if config.sweep.launcher == "local":
        check_gpus(config.tensor_parallel, config.sweep.workers or 1)
    tasks, shape = tasks_and_shape(config, chat, all_scored=True)
    asked = len(config.task) > 1
    if asked and (scored := next((task for task in tasks if not has_right_answers(task.metric)), None)):
        raise UsageError(f"{scored.name} is measured as {scored.metric}, which has no right answers; leave it out")
    tasks = tuple(task for task in tasks if has_right_answers(task.metric))
    if len(tasks) < 2:
        raise UsageError(f"{tasks[0].name} alone cannot be dissociated from anything; give two tasks, --task A,B")
    check_uniform_width(shape, config.model)
    count = round(config.ratio * shape.intermediate_size)
    if not 1 <= count <= _MOST * shape.intermediate_size:
        raise UsageError(
            f"ratio {config.ratio:g} is {count} of {shape.intermediate_size} neurons; each needs another one as its "
            f"match, so that a --ratio of at most {_MOST:g} can be taken, and of at least one neuron"
        )
    spec = without_arms(config, tasks, shape)
    check_several_items(spec)
    return spec


def set_request(spec: ResolvedRun) -> SetRequest:
    config = spec.config
    return SetRequest(
        tasks=tuple(task.name for task in spec.tasks),
        count=round(config.ratio * spec.shape.intermediate_size),
        size=spec.shape.intermediate_size,
        samples=config.calibration_samples,
        matched_sets=config.dissociate.matched_sets,
        random_sets=config.dissociate.random_sets,
    )


def default_out(spec: ResolvedRun) -> Path:
    return Path("runs") / f"dissociate-{registry.short_name(spec.config.model)}"


@dataclass(frozen=True)
class DissociationForecast:
    """What a dissociation would do. `harness dissociate --dry-run --json` prints these fields.

    Attributes:
        neurons: Of a reverse set, in every layer of `intermediate_size`.
        interventions: How many are evaluated, besides the dense model; `evaluations`: on one task each.
        items: Task -> number of test items.
        scoring: Where the weights are while the prompts pass through the model.
    """

    model: str
    task: tuple[str, ...]
    neurons: int
    intermediate_size: int
    interventions: int
    evaluations: int
    items: dict[str, int]
    scoring: Placement
    out: str


def forecast(spec: ResolvedRun, out: Path | None) -> DissociationForecast:
    """By formula from the model's config.json; no weights are read. Raises MeasurementError where the model cannot be
    scored here.
    """
    check_data(spec)
    request, tasks = set_request(spec), len(spec.tasks)
    seeds = spec.config.dissociate.calibration_seeds
    doses = sum(1 <= round(dose * request.size) < request.count for dose in DOSES)
    fewer = sum(samples < request.samples for samples in SAMPLES)
    alone = tasks * (len(MATCHED) * request.matched_sets + fewer)
    everywhere = tasks * (tasks * seeds + _SINGLE + OTHERS + doses + len(FACTORS)) + request.random_sets
    return DissociationForecast(
        model=spec.model,
        task=request.tasks,
        neurons=request.count,
        intermediate_size=request.size,
        interventions=alone + everywhere,
        evaluations=alone + tasks * (everywhere + 1),
        items={task.name: spec.items_of(task) for task in spec.tasks},
        scoring=placement_of(spec.shape, request.samples, set()),
        out=str(out or default_out(spec)),
    )


def forecast_table(found: DissociationForecast) -> Table:
    """The forecast for a terminal."""
    rows = (
        ("model", found.model),
        ("tasks", ", ".join(f"{task} ({found.items[task]} items)" for task in found.task)),
        ("neurons of a set", f"{found.neurons} of {found.intermediate_size} in every layer"),
        ("interventions", str(found.interventions)),
        ("evaluations", f"{found.evaluations}, of one task each"),
        ("scoring", found.scoring.text),
        ("would write to", found.out),
    )
    return Table("What this dissociation would do", ("what", "value"), rows)
