"""Results of a sweep: points of the curves, thresholds, claims and failed cells, as in run.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Verdict = Literal["supported", "not supported", "cannot say"]


@dataclass(frozen=True)
class Claim:
    """A claim about pruning, the rule by which it is judged, and the deciding figure with its 95 % interval.

    Attributes:
        rule: The rule in words.
        figure: What `value` is.
        unit: points (a difference of shares), share, factor or ratio.
        n: Items or pairs behind the figure.
        n_needed: How many would decide an open verdict; None where no number would.
        details: Further figures, one sentence each.
    """

    claim: str
    rule: str
    figure: str
    unit: Literal["points", "share", "factor", "ratio"]
    value: float | None
    ci_low: float | None
    ci_high: float | None
    verdict: Verdict
    n: int | None
    n_needed: int | None
    details: tuple[str, ...] = ()


@dataclass(frozen=True)
class SweepPoint:
    """One arm at one ratio on one task, over its masks, compared with the dense model on the same items.

    Attributes:
        arm: The way of pruning without ratio and seed, such as selective-best.
        variants: The variants behind the point that were evaluated on every task, one per seed.
        sd: Standard deviation over masks; None for one.
        ci_low, ci_high: 95 % interval over items; of two or more random masks over masks and items. Of one random mask
            it holds for that mask alone.
        difference: Value minus the dense model's, with its 95 % interval.
        holm_p: p-value of the difference after Holm over all points.
        failure_rate: Rate of generation failures; failure_low and failure_high are its 95 % interval, over items of
            these masks.
        collapsed: Whether accuracy counts as lost; None for a likelihood metric.
        specificity: How many points more the target lost than this task, with its interval; of off-target tasks that
            the dense model can do.
        beyond_random, beyond_matched: Specificity minus that of random neurons, and of neurons of matched
            contribution, at the same ratio.
        distractor: Whether prompts of this task were among the distractors.
        masks: All random masks behind the point, `variants` and those that were evaluated on the target alone; empty
            for an arm that is not random.
        detectable: The loss that the items of this task find in four of five runs, as planned (see Threshold).
    """

    arm: str
    ratio_requested: float
    ratio_neurons: float
    variants: tuple[str, ...]
    task: str
    metric: str
    n: int
    value: float
    sd: float | None
    ci_low: float | None
    ci_high: float | None
    difference: float
    difference_low: float
    difference_high: float
    holm_p: float | None
    failure_rate: float | None
    failures: Mapping[str, float | None]
    collapsed: bool | None
    specificity: tuple[float, float, float] | None
    failure_low: float | None = None
    failure_high: float | None = None
    masks: tuple[str, ...] = ()
    detectable: float | None = None
    beyond_random: tuple[float, float, float] | None = None
    beyond_matched: tuple[float, float, float] | None = None
    distractor: bool = False


@dataclass(frozen=True)
class Threshold:
    """How far an arm can be pruned without loss on the target.

    Attributes:
        margin: The loss that still counts as none, as a share of all items.
        non_inferior: The largest ratio of neurons up to which less than `margin` is shown to be lost; 0 if not shown,
            or if the dense model cannot do the target.
        detectable: The loss that this number of items finds in four of five runs where twice the margin of them
            changes; None where no loss is found.
        knee: The ratio at which the curve bends down, with its interval; None where it does not.
        support: Share of resamplings with a knee; None where there are too few ratios.
        shape: What the curve is; lost where all is lost before the first ratio; None where there are too few ratios.
        everywhere: The largest ratio up to which less than `margin` on the target and less than `off_target_margin` on
            every other task that the dense model can do is shown to be lost; None without such tasks.
        masks: The fewest random masks at one of the ratios; 0 for an arm that is not random. `non_inferior` and
            `everywhere` pass over ratios with fewer than 19.
    """

    arm: str
    margin: float
    non_inferior: float
    detectable: float | None
    knee: float | None
    knee_low: float | None
    knee_high: float | None
    support: float | None
    masks: int = 0
    shape: Literal["knee", "line", "curve", "edge", "flat", "lost"] | None = None
    everywhere: float | None = None
    off_target_margin: float | None = None


@dataclass(frozen=True)
class FailedCell:
    """A cell of the sweep that failed, and why."""

    cell: str
    reason: str


@dataclass(frozen=True)
class SweepSummary:
    """Everything a sweep adds to a run.

    Attributes:
        collapse_below: The accuracy below which the target counts as collapsed.
        seconds: Duration of all stages, those of earlier starts included.
        rules: Version of the rules by which the claims were judged.
        items: Task with right answers -> the items that were asked, in order.
        outcomes: Variant or mask -> task -> one character per item, 1 right and 0 wrong.
    """

    points: tuple[SweepPoint, ...]
    thresholds: tuple[Threshold, ...]
    failed: tuple[FailedCell, ...]
    collapse_below: float
    seconds: float
    rules: int = 1
    items: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    outcomes: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
