"""What a sweep finds: points of its curves, thresholds, claims and what failed, as they stand in run.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Verdict = Literal["supported", "not supported", "cannot say"]


@dataclass(frozen=True)
class Claim:
    """A claim about pruning, the rule by which it is judged, and the figure that decides, with its 95 % interval.

    figure: what `value` is. unit: points (a difference of shares), share, factor or ratio. n: items or pairs behind it;
    n_needed: how many would decide where nothing can be said, None where no number would. details: what stands behind
    or beside it, in sentences."""

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
    """One way of pruning at one ratio on one task, over its seeds; against the dense model on the same items.

    arm: method, metric and re-fitting, without ratio and seed. sd: over seeds, None for one. Intervals are over items,
    95 %. For a likelihood metric there is no collapse. failure_low, failure_high: of failure_rate, 95 %. specificity:
    how much more the target falls than the mean of the other tasks, of the target."""

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
    """How far an arm can go on the target. non_inferior: the largest ratio (of neurons) up to which less than `margin`
    is lost, shown.

    detectable: the loss that so many items find. knee: None where one straight line does as well; support: share of
    resamplings with one."""

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
    cell: str
    reason: str


@dataclass(frozen=True)
class SweepSummary:
    """`collapse_below`: the accuracy below which the target counts as gone. seconds: of all stages, those done before
    included.
    """

    points: tuple[SweepPoint, ...]
    thresholds: tuple[Threshold, ...]
    failed: tuple[FailedCell, ...]
    collapse_below: float
    seconds: float
