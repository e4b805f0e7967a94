"""A sweep's curves: accuracy and failures against the ratio for every arm, from the sample files of its run
directory.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from harness.core.contained_files import path_below
from harness.core.curve_statistics import knee, non_inferiority_threshold
from harness.core.mask_statistics import (
    FEWEST_MASKS,
    accuracy_over_masks,
    difference_over_masks,
    masks_p_value,
    widened,
)
from harness.core.power import detectable_loss
from harness.core.statistics import (
    Difference,
    collapsed,
    from_nats,
    holm,
    is_able,
    ratio_mean,
)
from harness.core.types.arrays import FloatArray
from harness.core.types.evaluation import LIKELIHOOD_METRICS, EvalResult, has_right_answers
from harness.core.types.run import Variant
from harness.core.types.sweep import SweepPoint, Threshold
from harness.evaluation.paired import Samples, compare_samples, read_samples
from reports.figures import mean

_FEWEST = 5  # ratios, dense included, that a knee needs
_CHANGED = 2.0  # margins: the share of items that is planned to change


@dataclass(frozen=True)
class GridPoint:
    """One arm at one ratio, over its seeds; the dense model is at ratio 0. `masks`: further random masks, which were
    evaluated on the target alone.
    """

    arm: str
    ratio: float  # as requested
    variants: tuple[Variant, ...]
    masks: tuple[Variant, ...] = ()

    @property
    def ratio_neurons(self) -> float:
        return self.variants[0].ratio_neurons

    @property
    def random_masks(self) -> tuple[str, ...]:
        """The names of all masks; empty for an arm that is not random."""
        found = (*self.variants, *self.masks)
        return tuple(variant.name for variant in found) if found[0].method == "random" else ()


@dataclass(frozen=True)
class Outcomes:
    """What every variant answered.

    Attributes:
        metrics: Task -> metric, the target first.
        places: All points of the grid.
        right: (arm, ratio) -> task -> right or wrong, [masks, items], for the tasks with right answers.
        planned: Arm -> requested ratios, failed ones included.
    """

    run: Path
    metrics: Mapping[str, str]  # task -> metric, the target first
    dense: GridPoint
    places: tuple[GridPoint, ...]
    right: Mapping[tuple[str, float], Mapping[str, FloatArray]]
    planned: Mapping[str, Sequence[float]] = field(default_factory=dict)  # arm -> ratios, with those that failed

    @property
    def target(self) -> str:
        return next(iter(self.metrics))

    @property
    def others(self) -> list[str]:
        """Off-target tasks with right answers on which the dense model has something to lose."""
        answered = [task for task in list(self.metrics)[1:] if has_right_answers(self.metrics[task])]
        return [task for task in answered if is_able(sum(self.before(task)), len(self.before(task)))]

    @property
    def unable(self) -> list[str]:
        """Off-target tasks with right answers that the dense model cannot do: no evidence for or against anything."""
        answered = [task for task in list(self.metrics)[1:] if has_right_answers(self.metrics[task])]
        return [task for task in answered if task not in self.others]

    @property
    def arms(self) -> list[str]:
        return list(dict.fromkeys(place.arm for place in self.places))

    def answered(self, place: GridPoint, task: str) -> tuple[Variant, ...]:
        """What was evaluated on a task at a point of the grid."""
        return (*place.variants, *place.masks) if task == self.target else place.variants

    def of(self, place: GridPoint, task: str) -> FloatArray:
        """Right or wrong at a point of the grid, [masks, items]."""
        return self.right[place.arm, place.ratio][task]

    def before(self, task: str) -> list[bool]:
        """The dense model's outcomes, [items]."""
        return [bool(value) for value in self.of(self.dense, task)[0]]

    def missing(self, arm: str) -> list[float]:
        """Ratios that were planned and have no result."""
        return sorted(set(self.planned.get(arm, ())) - {place.ratio for place in self.places if place.arm == arm})

    def along(self, arm: str) -> list[GridPoint]:
        """The points of an arm by ascending ratio."""
        return sorted((place for place in self.places if place.arm == arm), key=lambda place: place.ratio)


def read_outcomes(run: Path, metrics: Mapping[str, str], dense: Variant, places: Sequence[GridPoint]) -> Outcomes:
    """Reads the outcomes on the items that the dense model answered; every variant has answered the same items."""
    whole = GridPoint("dense", 0.0, (dense,))
    tasks = [task for task, metric in metrics.items() if has_right_answers(metric)]
    ids = {task: sorted(_samples(run, dense, task)) for task in tasks}

    found = Outcomes(run=run, metrics=metrics, dense=whole, places=tuple(places), right={})

    def table(place: GridPoint, task: str) -> FloatArray:
        rows = [_samples(run, variant, task) for variant in found.answered(place, task)]
        return np.asarray([[float(row[i]["correct"]) for i in ids[task]] for row in rows])

    right = {(place.arm, place.ratio): {task: table(place, task) for task in tasks} for place in (whole, *places)}
    return replace(found, right=right)


def item_outcomes(
    run: Path, metrics: Mapping[str, str], variants: Sequence[Variant]
) -> tuple[dict[str, tuple[int, ...]], dict[str, dict[str, str]]]:
    """Every right (1) and wrong (0) answer: task -> the dense model's items, variant -> task -> one character each."""
    tasks = [task for task, metric in metrics.items() if has_right_answers(metric)]
    items = {task: tuple(sorted(_samples(run, variants[0], task))) for task in tasks}
    outcomes: dict[str, dict[str, str]] = {variant.name: {} for variant in variants}
    for variant in variants:
        for task in (task for task in tasks if task in variant.eval):
            rows = _samples(run, variant, task)
            outcomes[variant.name][task] = "".join("1" if rows[i]["correct"] else "0" for i in items[task])
    return items, outcomes


def _samples(run: Path, variant: Variant, task: str) -> Samples:
    return read_samples(path_below(run, variant.eval[task].samples))


def difference(outcomes: Outcomes, place: GridPoint, task: str) -> Difference:
    """Pruned minus dense on a task with right answers, over items, and over masks where there are several."""
    return difference_over_masks(outcomes.before(task), outcomes.of(place, task).astype(bool).tolist())


def is_collapsed(outcomes: Outcomes, place: GridPoint, task: str, chance: float, share: float) -> bool:
    """Whether accuracy collapsed for every mask."""
    dense = float(outcomes.of(outcomes.dense, task).mean())
    return all(collapsed(int(mask.sum()), mask.size, dense, chance, share) for mask in outcomes.of(place, task))


def sweep_points(outcomes: Outcomes, chance: float, share: float, margin: float) -> tuple[SweepPoint, ...]:
    """One result per point and task; p-values are adjusted by Holm over all tasks with right answers."""
    found = [(place, task) for place in outcomes.places for task in outcomes.metrics]
    tested = [(place, task) for place, task in found if has_right_answers(outcomes.metrics[task])]
    p_values = holm([masks_p_value(outcomes.before(t), outcomes.of(p, t).astype(bool).tolist()) for p, t in tested])
    adjusted = {(place.arm, place.ratio, task): value for (place, task), value in zip(tested, p_values, strict=True)}
    points = (_point(outcomes, place, task, chance, share) for place, task in found)
    return tuple(
        replace(
            p,
            holm_p=adjusted.get((p.arm, p.ratio_requested, p.task)),
            detectable=planned_loss(p.n, margin) if has_right_answers(p.metric) else None,
        )
        for p in points
    )


def _point(outcomes: Outcomes, place: GridPoint, task: str, chance: float, share: float) -> SweepPoint:
    metric, evals = outcomes.metrics[task], [variant.eval[task] for variant in outcomes.answered(place, task)]
    answered = has_right_answers(metric)
    if answered:
        masks = outcomes.of(place, task)
        (value, low, high), change = accuracy_over_masks(masks.astype(bool).tolist()), difference(outcomes, place, task)
        sd = float(masks.mean(axis=1).std(ddof=1)) if len(masks) > 1 else None
    else:
        (value, low, high), sd, change = _pooled(outcomes, place, task)
    return SweepPoint(
        arm=place.arm,
        ratio_requested=place.ratio,
        ratio_neurons=place.ratio_neurons,
        variants=tuple(v.name for v in place.variants),
        task=task,
        metric=metric,
        n=evals[0].n,
        value=value,
        sd=sd,
        ci_low=low,
        ci_high=high,
        difference=change[0],
        difference_low=change[1],
        difference_high=change[2],
        holm_p=None,  # needs all points
        failure_rate=mean([e.failure_rate for e in evals]),
        failures=_failures(evals),
        collapsed=is_collapsed(outcomes, place, task, chance, share) if answered else None,
        specificity=None,  # of the other tasks, see specificity.py
        failure_low=mean([e.failure_low for e in evals]),
        failure_high=mean([e.failure_high for e in evals]),
        masks=place.random_masks if task == outcomes.target else place.random_masks[: len(place.variants)],
    )


def _pooled(outcomes: Outcomes, place: GridPoint, task: str) -> tuple[Difference, float | None, Difference]:
    """For scores and likelihoods, items' means over masks: value, standard deviation over masks, difference. The
    intervals are over items, of several masks over both; likelihoods are widened in nats, as they are compared.
    """
    metric, variants = outcomes.metrics[task], outcomes.answered(place, task)
    rows = [_samples(outcomes.run, variant, task) for variant in variants]
    likelihood = metric in LIKELIHOOD_METRICS
    field, items = "nll" if likelihood else "score", sorted(rows[0])
    table = np.asarray([[row[i][field] for i in items] for row in rows], dtype=float)
    averages = table.mean(axis=0).tolist()
    averaged = {i: {**rows[0][i], field: average} for i, average in zip(items, averages, strict=True)}
    units = [rows[0][i]["units"] if likelihood else 1 for i in items]
    masks = table.sum(axis=1) / sum(units)
    figure = widened(ratio_mean(averages, units), masks.tolist())
    value = from_nats(metric, (figure[0], max(0.0, figure[1]), figure[2])) if likelihood else figure
    sd = float(np.std([variant.eval[task].value for variant in variants], ddof=1)) if len(rows) > 1 else None
    then = _samples(outcomes.run, outcomes.dense.variants[0], task)
    found = compare_samples(then, averaged, "dense", place.arm, task, metric)
    scale = np.log(2) if metric == "bits_per_byte" else 1.0
    change = widened((found.difference, found.ci_low, found.ci_high), (masks / scale).tolist())
    return value, sd, change


def _failures(evals: Sequence[EvalResult]) -> dict[str, float | None]:
    return {kind: mean([e.failures[kind] for e in evals]) for kind in evals[0].failures}


def thresholds(
    outcomes: Outcomes, margin: float, gone: tuple[float, float], elsewhere: float | None = None
) -> tuple[Threshold, ...]:
    """How far every arm can be pruned, on the target and on all tasks.

    Args:
        outcomes: What every variant answered.
        margin: The loss on the target that still counts as none.
        gone: Chance, and the share of dense below which all is lost.
        elsewhere: The margin of the other tasks; None: the same.
    """
    return (
        tuple(threshold(outcomes, arm, margin, gone, elsewhere) for arm in outcomes.arms)
        if has_right_answers(outcomes.metrics[outcomes.target])
        else ()
    )


def threshold(
    outcomes: Outcomes, arm: str, margin: float, gone: tuple[float, float], elsewhere: float | None = None
) -> Threshold:
    """How far an arm can be pruned; see `thresholds`."""
    places, target = outcomes.along(arm), outcomes.target
    dense = outcomes.before(target)
    reached = _non_inferior(outcomes, arm, target, margin)
    others = [_non_inferior(outcomes, arm, task, elsewhere or margin) for task in outcomes.others]
    masks, able = min(len(p.random_masks) for p in places), is_able(sum(dense), len(dense))
    found = Threshold(
        arm=arm,
        margin=margin,
        non_inferior=reached,
        detectable=planned_loss(len(dense), margin),
        knee=None,
        knee_low=None,
        knee_high=None,
        support=None,
        masks=masks,
        everywhere=min(reached, *others) if others else None,
        off_target_margin=elsewhere or margin,
    )
    if not able or len({p.ratio_neurons for p in places}) < _FEWEST - 1:
        return found
    if is_collapsed(outcomes, places[0], target, *gone):
        return replace(found, support=0.0, shape="lost")
    curve = {p.ratio_neurons: outcomes.of(p, target).mean(axis=0).tolist() for p in places}
    bend = knee([0.0, *curve], [[float(right) for right in dense], *curve.values()], margin)
    return replace(
        found,
        knee=bend.ratio,
        knee_low=bend.ci_low,
        knee_high=bend.ci_high,
        support=bend.support,
        shape=bend.shape,
    )


def _non_inferior(outcomes: Outcomes, arm: str, task: str, margin: float) -> float:
    """Up to which ratio less than the margin is shown to be lost. The fixed sequence is that of the ratios with masks
    enough, where the arm is random, and ends at a missing one. What the dense model cannot do it cannot lose.
    """
    dense, end = outcomes.before(task), min(outcomes.missing(arm), default=1.0)
    if not is_able(sum(dense), len(dense)):
        return 0.0
    whole = [p for p in outcomes.along(arm) if p.ratio < end]
    tables = [(p, outcomes.of(p, task).astype(bool).tolist()) for p in whole]
    shown = [(p.ratio_neurons, rows) for p, rows in tables if not p.random_masks or len(rows) >= FEWEST_MASKS]
    return non_inferiority_threshold(shown, dense, margin)


@functools.cache
def planned_loss(n: int, margin: float) -> float | None:
    """The loss that n items find in four of five runs where twice the margin of them changes."""
    return detectable_loss(n, min(1.0, _CHANGED * margin))
