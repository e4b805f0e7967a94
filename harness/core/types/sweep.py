"""Results of a sweep: points of the curves, thresholds, claims and failed cells, as in run.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Verdict = Literal["supported", "not supported", "cannot say"]


@dataclass(frozen=True)
class Claim:
    """A claim about pruning, the rule by which it is judged, and the deciding figure with its 95 % interval.

    Attributes:
        rule: The rule in words, fixed before the data were seen.
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
    """One arm at one ratio on one task, over its seeds, compared with the dense model on the same items.

    Attributes:
        arm: The way of pruning without ratio and seed, such as selective-best.
        variants: The variants behind the point, one per seed.
        sd: Standard deviation over seeds; None for one seed.
        ci_low, ci_high: 95 % interval over items.
        difference: Value minus the dense model's, with its 95 % interval.
        holm_p: p-value of the difference after Holm over all points.
        failure_rate: Rate of generation failures; failure_low and failure_high are its 95 % interval.
        collapsed: Whether accuracy counts as lost; None for a likelihood metric.
        specificity: How many points more the target lost than the mean of the other tasks, with its interval; target
            only.
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


@dataclass(frozen=True)
class Threshold:
    """How far an arm can be pruned without loss on the target.

    Attributes:
        margin: The loss that still counts as none, as a share of all items.
        non_inferior: The largest ratio of neurons up to which less than `margin` is shown to be lost; 0 if not shown.
        detectable: The loss that this number of items can find with 80 % power.
        knee: The ratio at which the curve bends down, with its interval; None where a straight line fits as well.
        support: Share of resamplings with a knee; None where there are too few ratios.
    """

    arm: str
    margin: float
    non_inferior: float
    detectable: float
    knee: float | None
    knee_low: float | None
    knee_high: float | None
    support: float | None


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
    """

    points: tuple[SweepPoint, ...]
    thresholds: tuple[Threshold, ...]
    failed: tuple[FailedCell, ...]
    collapse_below: float
    seconds: float
