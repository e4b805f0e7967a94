"""What a search for a goal would do, from the model's config alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from harness.core.run_directory import check_run_directory
from harness.pipeline.cpu_time import time_text
from harness.pipeline.data_check import check_data
from harness.pipeline.dry_run import (
    SecondMoments,
    estimated_seconds,
    generated_answers,
    own_answer_rows,
    scoring_place,
    second_moment_rows,
    second_moments,
)
from harness.pipeline.resolve import ResolvedRun
from harness.sweeps.goal.conditions import least_bound
from harness.sweeps.goal.resolve import limited_tasks, search_space
from harness.sweeps.goal.search import most_calls
from pruning.placement import Placement
from reports.figures import count_text, percent
from reports.parts import Table


@dataclass(frozen=True)
class SearchForecast:
    """What a search would do. `harness run --max-loss 1 --dry-run --json` prints these fields.

    Attributes:
        task: The tasks, the target first.
        goal: The conditions as they are typed.
        ways: Ways of pruning that are searched.
        intermediate_size: FFN width of the dense model.
        widths: How many aligned widths meet what follows from the width alone; lowest and highest are the ends.
        parameters: Of the model at these two widths.
        looks: Variants that are compared with a limit of loss, at most.
        level: One-sided level of each bound.
        shown: Task whose loss is limited -> the bound of its loss where no answer changes.
        variants: How many are evaluated on every task at most, the dense model among them.
        timed: How many are timed at most, beside the dense model.
        scoring: Where the model's weights are while it is scored.
        second_moments: None where no metric and no re-fitting needs them.
        out: The run directory.
        seconds: Upper bound for this CPU without the timing; None where a GPU would be used.
        own_answers: That the dense model gives to calibration prompts, at most.
    """

    model: str
    task: tuple[str, ...]
    goal: tuple[str, ...]
    ways: tuple[str, ...]
    intermediate_size: int
    widths: int
    lowest: int
    highest: int
    parameters: tuple[int, int]
    looks: int
    level: float
    shown: Mapping[str, float]
    variants: int
    timed: int
    scoring: Placement | None
    second_moments: SecondMoments | None
    out: str
    seconds: float | None
    own_answers: int = 0


def forecast_search(spec: ResolvedRun, out: Path | None = None) -> SearchForecast:
    """Everything by formula from the model's config.json; no weights are read. `out`: the run directory, None for the
    default.
    """
    check_data(spec)
    check_run_directory(out or spec.default_out)
    assert spec.goal is not None
    space = search_space(spec)
    lowest, highest = space.widths[0], space.widths[-1]
    candidates = space.looks or len(space.ways)
    every = spec.goal.is_timed and not space.looks
    return SearchForecast(
        model=spec.model,
        task=tuple(task.name for task in spec.tasks),
        goal=spec.goal.options,
        ways=tuple(arm.kind for arm in spec.arms),
        intermediate_size=spec.shape.intermediate_size,
        widths=len(space.widths),
        lowest=lowest,
        highest=highest,
        parameters=(spec.shape.narrowed(lowest).parameters, spec.shape.narrowed(highest).parameters),
        looks=space.looks,
        level=space.level,
        shown={task.name: least_bound(spec.items_of(task), space.level) for task in limited_tasks(spec)},
        variants=1 + candidates,
        timed=most_calls(len(space.widths)) + 1 if every else 1,
        scoring=scoring_place(spec),
        second_moments=second_moments(spec),
        out=str(out or spec.default_out),
        seconds=_seconds(spec, candidates),
        own_answers=generated_answers(spec),
    )


def _seconds(spec: ResolvedRun, candidates: int) -> float | None:
    """With each way once, as all are scored for, and the dearest for the other candidates."""
    others = candidates - len(spec.arms)
    found = (estimated_seconds(replace(spec, arms=(*spec.arms, *(arm,) * others))) for arm in spec.arms)
    return max((seconds for seconds in found if seconds is not None), default=None)


def search_table(found: SearchForecast) -> Table:
    """The forecast for a terminal."""
    each = f"; each bound at {percent(found.level, 2)}, 5 % divided by {found.looks}" if found.looks else ""
    least = (f"{task}: {100 * bound:.2f} points" for task, bound in found.shown.items())
    rows = (
        ("model", f"{found.model}, FFN width {found.intermediate_size}"),
        ("tasks", ", ".join(found.task)),
        ("goal", " ".join(found.goal)),
        ("searched", ", ".join(found.ways)),
        ("widths", f"{found.lowest} to {found.highest}, {found.widths} that meet what follows from the width"),
        ("parameters", f"{found.parameters[0]:,} to {found.parameters[1]:,}"),
        ("cells", f"at most {count_text(found.variants, 'variant')} on every task, dense among them{each}"),
        *([("least bound", f"{', '.join(least)}, where no answer changes")] if found.shown else []),
        ("timed", f"at most {count_text(found.timed, 'variant')} beside dense"),
        *([("scoring", found.scoring.text)] if found.scoring else []),
        *own_answer_rows(found.own_answers),
        *second_moment_rows(found.second_moments),
        ("time", f"{time_text(found.seconds)}, without the timing"),
        ("would write to", found.out),
    )
    return Table("What this search would do", ("what", "value"), rows)
