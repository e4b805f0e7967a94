"""What a joint search would do, from the model's config alone."""

from __future__ import annotations

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
from harness.serving.cost_table import attention_goes, probe_sizes, sizes_of
from harness.sweeps.joint.arms import ARMS, TRIMMED, to_measure
from harness.sweeps.joint.resolve import computed_costs, vocabulary_of, widths_of_grid
from harness.sweeps.joint.search import LOOKS, TOKENS
from pruning.placement import Placement
from pruning.search.choices import LayerChoice
from reports.figures import count_text, mebibytes
from reports.parts import Table

_TOKENS_READ = 2  # tokens of the texts, questions among them, for each scored one


@dataclass(frozen=True)
class JointForecast:
    """What a joint search would do. `harness run --structure joint --speedup 1.5 --dry-run --json` prints these fields.

    Attributes:
        task: The tasks, the target first.
        goal: The conditions as they are typed.
        arms: What is planned for the same goal, exported, timed beside dense and evaluated.
        probes: Structures that are timed for the costs, unless they were before; none where the costs are by formula.
        roofline: By whose roofline the costs are computed instead.
        widths: FFN widths that a layer may have; it may also be removed.
        attention_goes: Whether a layer may also lose its attention alone.
        vocabulary: Entries that stay in the arm joint.
        measured: Choices of each layer whose damage is measured.
        looks: Whole plans of each arm that are measured, at most; three times as many where an arm misses a measured
            goal twice.
        tokens: On which each is measured, about.
        scoring: Where the model's weights are while it is scored.
        second_moments: What re-fitting needs, beside the checkpoints.
        disk_bytes: Of all checkpoints that are there at a time, at most.
        out: The run directory.
        seconds: Upper bound for this CPU without the timing and a further search; None where a GPU would be used.
        own_answers: That the dense model gives to calibration prompts, at most.
    """

    model: str
    task: tuple[str, ...]
    goal: tuple[str, ...]
    arms: tuple[str, ...]
    probes: tuple[str, ...]
    roofline: str | None
    layers: int
    widths: tuple[int, ...]
    vocabulary: int
    measured: int
    looks: int
    tokens: int
    scoring: Placement | None
    second_moments: SecondMoments | None
    disk_bytes: int
    out: str
    seconds: float | None
    own_answers: int = 0
    attention_goes: bool = False


def forecast_joint(spec: ResolvedRun, out: Path | None = None) -> JointForecast:
    """Everything by formula from the model's config.json; no weights are read. `out`: the run directory, None for the
    default.
    """
    check_data(spec)
    check_run_directory(out or spec.default_out)
    goal, align = spec.goal, int(spec.config.align or 1)
    assert goal is not None, "a search needs a goal"
    timed = goal.is_timed
    table = computed_costs(spec)
    return JointForecast(
        model=spec.model,
        task=tuple(task.name for task in spec.tasks),
        goal=goal.options,
        arms=tuple(ARMS),
        probes=tuple(probe_sizes(sizes_of(spec.shape), align, attention_goes(spec.shape))) if timed else (),
        roofline=table.device if table else None,
        layers=spec.shape.num_hidden_layers,
        widths=widths_of_grid(spec),
        vocabulary=vocabulary_of(spec, TRIMMED),
        measured=len(_changed(spec, align)),
        looks=LOOKS,
        tokens=TOKENS,
        scoring=scoring_place(spec),
        second_moments=second_moments(spec),
        disk_bytes=len(ARMS) * spec.shape.parameters * spec.shape.dtype_bytes,
        out=str(out or spec.default_out),
        seconds=estimated_seconds(_with_repairs(spec), _flops(spec, align)),
        own_answers=generated_answers(spec),
        attention_goes=attention_goes(spec.shape),
    )


def _with_repairs(spec: ResolvedRun) -> ResolvedRun:
    """With the reconstruction in the arms that can be reconstructed."""
    repaired = spec.config.reconstruct
    arms = (
        arm if arm.kind == "depth-only" else replace(arm, request=replace(arm.request, reconstructed=repaired))
        for arm in spec.arms
    )
    return replace(spec, arms=tuple(arms))


def _changed(spec: ResolvedRun, align: int) -> list[LayerChoice]:
    whole = LayerChoice(spec.shape.intermediate_size)
    return [choice for choice in to_measure(spec.shape, align) if choice != whole]


def _flops(spec: ResolvedRun, align: int) -> float:
    """Of the measurements of damage: those of one layer start at it, in the middle of the model on average."""
    passes = len(_changed(spec, align)) * spec.shape.num_hidden_layers / 2 + len(ARMS) * LOOKS
    return 2 * spec.shape.parameters * passes * TOKENS * _TOKENS_READ


def _choices(found: JointForecast) -> str:
    bare = "with attention or without, " if found.attention_goes else ""
    return f"FFN width {', '.join(map(str, found.widths))}, {bare}or removed, for each of {found.layers} layers"


def joint_table(found: JointForecast) -> Table:
    """The forecast for a terminal."""
    costs = (
        f"by the roofline of {found.roofline}"
        if found.roofline
        else f"timed here once on {', '.join(found.probes)}"
        if found.probes
        else "parameters and bytes, by formula"
    )
    rows = (
        ("model", found.model),
        ("tasks", ", ".join(found.task)),
        ("goal", " ".join(found.goal)),
        ("arms", f"{', '.join(found.arms)}, each exported, timed beside dense and evaluated"),
        ("costs", costs),
        ("choices", _choices(found)),
        ("vocabulary", f"{found.vocabulary:,} entries in the arm {TRIMMED}"),
        (
            "damage",
            f"KL to dense on about {found.tokens} tokens: {count_text(found.measured, 'choice')} of each layer, then "
            f"up to {count_text(found.looks, 'plan')} of each arm",
        ),
        ("disk needed", f"at most {mebibytes(found.disk_bytes)} for checkpoints, one of each arm at a time"),
        *([("scoring", found.scoring.text)] if found.scoring else []),
        *own_answer_rows(found.own_answers),
        *second_moment_rows(found.second_moments),
        ("time", f"{time_text(found.seconds)}, without the timing"),
        ("would write to", found.out),
    )
    return Table("What this search would do", ("what", "value"), rows)
