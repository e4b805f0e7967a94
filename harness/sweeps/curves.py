"""A sweep's curves: accuracy and failures against the ratio for every arm, from the sample files of its run
directory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from harness.core.contained_files import path_below
from harness.core.statistics import (
    Difference,
    collapsed,
    difference_over_seeds,
    holm,
    knee,
    likelihood_metric,
    minimum_detectable_effect,
    non_inferiority_threshold,
    over_seeds,
    ratio_mean,
    specificity,
    wilson,
)
from harness.core.types.arrays import FloatArray
from harness.core.types.evaluation import LIKELIHOOD_METRICS, SIMILARITY, EvalResult
from harness.core.types.run import Variant
from harness.core.types.sweep import SweepPoint, Threshold
from harness.evaluation.paired import Samples, compare_samples, read_samples
from reports.figures import mean

_ABLE = 0.1  # the dense model can do a task if its accuracy's interval starts at or above this
_FEWEST = 5  # ratios, dense included, that a knee needs
_DISCORDANT = 0.1  # assumed share of changed items where the first ratio has none


@dataclass(frozen=True)
class GridPoint:
    """One arm at one ratio, over its seeds; the dense model is at ratio 0."""

    arm: str
    ratio: float  # as requested
    variants: tuple[Variant, ...]

    @property
    def ratio_neurons(self) -> float:
        return self.variants[0].ratio_neurons


@dataclass(frozen=True)
class Outcomes:
    """What every variant answered.

    Attributes:
        metrics: Task -> metric, the target first.
        places: All points of the grid.
        right: (arm, ratio) -> task -> right or wrong, [seeds, items], for the tasks with right answers.
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
        return [task for task in answered if wilson(sum(self.before(task)), len(self.before(task)))[0] >= _ABLE]

    @property
    def arms(self) -> list[str]:
        return list(dict.fromkeys(place.arm for place in self.places))

    def of(self, place: GridPoint, task: str) -> FloatArray:
        """Right or wrong at a point of the grid, [seeds, items]."""
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


def has_right_answers(metric: str) -> bool:
    return metric not in (*LIKELIHOOD_METRICS, SIMILARITY)


def read_outcomes(run: Path, metrics: Mapping[str, str], dense: Variant, places: Sequence[GridPoint]) -> Outcomes:
    """Reads the outcomes on the items that the dense model answered; every variant has answered the same items."""
    whole = GridPoint("dense", 0.0, (dense,))
    tasks = [task for task, metric in metrics.items() if has_right_answers(metric)]
    ids = {task: sorted(_samples(run, dense, task)) for task in tasks}

    def table(place: GridPoint, task: str) -> FloatArray:
        rows = [_samples(run, variant, task) for variant in place.variants]
        return np.asarray([[float(seed[i]["correct"]) for i in ids[task]] for seed in rows])

    right = {(place.arm, place.ratio): {task: table(place, task) for task in tasks} for place in (whole, *places)}
    return Outcomes(run=run, metrics=metrics, dense=whole, places=tuple(places), right=right)


def _samples(run: Path, variant: Variant, task: str) -> Samples:
    return read_samples(path_below(run, variant.eval[task].samples))


def difference(outcomes: Outcomes, place: GridPoint, task: str) -> Difference:
    """Pruned minus dense on a task with right answers: Newcombe's interval for one seed, else over items with seeds
    pooled.
    """
    return difference_over_seeds(outcomes.before(task), outcomes.of(place, task).astype(bool).tolist())[0]


def specificity_of(outcomes: Outcomes, place: GridPoint) -> Difference | None:
    """Specificity at a point; None where no other task has right answers."""
    if not outcomes.others:
        return None
    return specificity(
        difference(outcomes, place, outcomes.target), [difference(outcomes, place, task) for task in outcomes.others]
    )


def is_collapsed(outcomes: Outcomes, place: GridPoint, task: str, chance: float, share: float) -> bool:
    """Whether accuracy collapsed for every seed."""
    dense = float(outcomes.of(outcomes.dense, task).mean())
    return all(collapsed(int(seed.sum()), seed.size, dense, chance, share) for seed in outcomes.of(place, task))


def sweep_points(outcomes: Outcomes, chance: float, share: float) -> tuple[SweepPoint, ...]:
    """One result per point and task; p-values are adjusted by Holm over all tasks with right answers."""
    found = [(place, task) for place in outcomes.places for task in outcomes.metrics]
    tested = [(place, task) for place, task in found if has_right_answers(outcomes.metrics[task])]
    p_values = holm(
        [difference_over_seeds(outcomes.before(t), outcomes.of(p, t).astype(bool).tolist())[1] for p, t in tested]
    )
    adjusted = {(place.arm, place.ratio, task): value for (place, task), value in zip(tested, p_values, strict=True)}
    points = (_point(outcomes, place, task, chance, share) for place, task in found)
    return tuple(replace(p, holm_p=adjusted.get((p.arm, p.ratio_requested, p.task))) for p in points)


def _point(outcomes: Outcomes, place: GridPoint, task: str, chance: float, share: float) -> SweepPoint:
    metric, evals = outcomes.metrics[task], [variant.eval[task] for variant in place.variants]
    answered = has_right_answers(metric)
    if answered:
        over, change = over_seeds(outcomes.of(place, task).tolist()), difference(outcomes, place, task)
        value, sd, low, high = over.mean, over.sd, over.ci_low, over.ci_high
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
        specificity=specificity_of(outcomes, place) if task == outcomes.target and answered else None,
        failure_low=mean([e.failure_low for e in evals]),
        failure_high=mean([e.failure_high for e in evals]),
    )


def _pooled(outcomes: Outcomes, place: GridPoint, task: str) -> tuple[Difference, float | None, Difference]:
    """For scores and likelihoods, items' means over seeds: value, standard deviation over seeds, difference."""
    metric, rows = outcomes.metrics[task], [_samples(outcomes.run, variant, task) for variant in place.variants]
    field = "nll" if metric in LIKELIHOOD_METRICS else "score"
    averaged: dict[int, dict[str, Any]] = {
        i: {**row, field: float(np.mean([seed[i][field] for seed in rows]))} for i, row in rows[0].items()
    }
    values = [averaged[i][field] for i in sorted(averaged)]
    units = [averaged[i]["units"] or 1 for i in sorted(averaged)]
    value = likelihood_metric(metric, values, units) if field == "nll" else ratio_mean(values, [1] * len(values))
    sd = float(np.std([variant.eval[task].value for variant in place.variants], ddof=1)) if len(rows) > 1 else None
    change = compare_samples(
        _samples(outcomes.run, outcomes.dense.variants[0], task), averaged, "dense", place.arm, task, metric
    )
    return value, sd, (change.difference, change.ci_low, change.ci_high)


def _failures(evals: Sequence[EvalResult]) -> dict[str, float | None]:
    return {kind: mean([e.failures[kind] for e in evals]) for kind in evals[0].failures}


def thresholds(outcomes: Outcomes, margin: float) -> tuple[Threshold, ...]:
    """How far every arm can be pruned on the target."""
    return (
        tuple(threshold(outcomes, arm, margin) for arm in outcomes.arms)
        if has_right_answers(outcomes.metrics[outcomes.target])
        else ()
    )


def threshold(outcomes: Outcomes, arm: str, margin: float) -> Threshold:
    places, target = outcomes.along(arm), outcomes.target
    dense = outcomes.before(target)
    whole = [
        p for p in places if p.ratio < min(outcomes.missing(arm), default=1.0)
    ]  # the fixed sequence ends at a missing ratio
    reached = non_inferiority_threshold(
        [(p.ratio_neurons, outcomes.of(p, target).astype(bool).tolist()) for p in whole], dense, margin
    )
    changed = float((outcomes.of(places[0], target) != outcomes.of(outcomes.dense, target)).mean())
    detectable = minimum_detectable_effect(len(dense), changed or _DISCORDANT)
    if len({p.ratio_neurons for p in places}) < _FEWEST - 1:
        return Threshold(
            arm=arm,
            margin=margin,
            non_inferior=reached,
            detectable=detectable,
            knee=None,
            knee_low=None,
            knee_high=None,
            support=None,
        )
    curve = {p.ratio_neurons: outcomes.of(p, target).mean(axis=0).tolist() for p in places}
    found = knee([0.0, *curve], [[float(right) for right in dense], *curve.values()])
    return Threshold(
        arm=arm,
        margin=margin,
        non_inferior=reached,
        detectable=detectable,
        knee=found.ratio,
        knee_low=found.ci_low,
        knee_high=found.ci_high,
        support=found.support,
    )
