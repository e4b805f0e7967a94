"""Which sets of neurons are looked at, and what is done to each: one row for each intervention."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from harness.core.types.arrays import BoolArray
from harness.core.types.dissociation import InterventionKind
from harness.sweeps.dissociation.sources import GENERAL, Statistics, shuffled_name
from pruning.group_statistics import contribution, largest_contribution, some_prompts, specificity_scores
from pruning.neuron_sets import difference, largest, matched, random_set, top

SUPER, OTHERS = 10, 3  # neurons of all layers, and draws of as many others
DOSES = (0.005, 0.01, 0.02, 0.05)
FACTORS = (0.5, 0.9, 1.1, 1.25)
SAMPLES = (5, 20, 80)
MATCHED: Mapping[InterventionKind, tuple[str, bool]] = {  # kind -> what is matched, and whether layer by layer
    "contribution by layer": ("contribution", True),
    "contribution in total": ("contribution", False),
    "activation by layer": ("activation", True),
    "activation in total": ("activation", False),
}
ON_TARGET_ALONE: tuple[InterventionKind, ...] = (*MATCHED, "samples")  # the others are evaluated on all tasks


@dataclass(frozen=True)
class ChosenSet:
    """A set of neurons and what is done to it; see `Intervention`.

    Attributes:
        neurons: [layers, intermediate_size], True for those of the set.
        mean: The source on whose prompts the mean is taken that the set is replaced by; None: it is replaced by 0.
        refitted: The other columns are re-fitted on general text.
    """

    name: str
    kind: InterventionKind
    neurons: BoolArray
    target: str | None = None
    number: int = 0
    distractors: tuple[str, ...] = ()
    held_out: str | None = None
    samples: int = 0
    factor: float = 0.0
    mean: str | None = None
    refitted: bool = False


@dataclass(frozen=True)
class SetRequest:
    """How many sets of which size.

    Attributes:
        count: Neurons of a set in every layer, of `size`.
        samples: Calibration prompts of each source.
    """

    tasks: tuple[str, ...]
    count: int
    size: int
    samples: int
    matched_sets: int
    random_sets: int


def random_sets(request: SetRequest, layers: int) -> Iterator[ChosenSet]:
    """Of the size of a reverse set, the same for all tasks."""
    for number in range(request.random_sets):
        neurons = random_set((layers, request.size), request.count, number)
        yield ChosenSet(f"random-{number:02d}", "random", neurons, number=number)


def reverse_sets(request: SetRequest, found: Statistics, number: int) -> Iterator[ChosenSet]:
    """The neurons of every task by one draw of prompts, with each other task in and out of the distractors."""
    for target in request.tasks:
        for held_out in (None, *(task for task in request.tasks if task != target)):
            distractors = _distractors(request, target, held_out)
            scores = specificity_scores(found.groups[target], [found.groups[d] for d in distractors], found.down_norm)
            name = f"{target}-without-{held_out}" if held_out else f"{target}-reverse"
            yield ChosenSet(
                f"{name}-{number}",
                "held out" if held_out else "reverse",
                top(scores, request.count),
                target=target,
                number=number,
                distractors=distractors,
                held_out=held_out,
                samples=request.samples,
            )


def _distractors(request: SetRequest, target: str, held_out: str | None = None) -> tuple[str, ...]:
    return (*(task for task in request.tasks if task not in (target, held_out)), GENERAL)


def controls(request: SetRequest, found: Statistics, target: str, reverse: ChosenSet) -> Iterator[ChosenSet]:
    """What a task's reverse set is compared with, from the same draw of prompts."""
    yield from _by_score(request, found, target)
    yield from _of_the_set(found, target, reverse)
    yield from _matched_sets(request, found, target, reverse)


def _by_score(request: SetRequest, found: Statistics, target: str) -> Iterator[ChosenSet]:
    """Other scores, other sizes and fewer prompts."""
    own, norm, distractors = found.groups[target], found.down_norm, _distractors(request, target)
    others = [found.groups[d] for d in distractors]
    shuffled = found.groups[shuffled_name(target)]
    surface = top(specificity_scores(own, [shuffled], norm), request.count)
    yield ChosenSet(f"{target}-surface", "surface", surface, target, distractors=(shuffled_name(target),))
    here, elsewhere = (contribution(group, norm) for group in (own, found.groups[GENERAL]))
    yield ChosenSet(f"{target}-difference", "difference", difference(here, elsewhere, request.count), target)
    scores = specificity_scores(own, others, norm)
    for dose in DOSES:
        if 1 <= (count := round(dose * request.size)) < request.count:
            yield ChosenSet(f"{target}-dose-{dose:g}", "dose", top(scores, count), target, distractors=distractors)
    for samples in SAMPLES:
        if samples < request.samples:
            target_some, *some = (some_prompts(group, samples, seed=samples) for group in (own, *others))
            neurons = top(specificity_scores(target_some, some, norm), request.count)
            name = f"{target}-samples-{samples}"
            yield ChosenSet(name, "samples", neurons, target, distractors=distractors, samples=samples)


def _of_the_set(found: Statistics, target: str, reverse: ChosenSet) -> Iterator[ChosenSet]:
    """Parts of the reverse set, and other things than removal done to it."""
    single = largest_contribution(found.groups[target], found.down_norm)
    few = largest(single, SUPER, reverse.neurons)
    yield ChosenSet(f"{target}-super", "super alone", few, target)
    yield ChosenSet(f"{target}-without-super", "without super", reverse.neurons & ~few, target)
    for number in range(OTHERS):
        others = _some(reverse.neurons & ~few, SUPER, number)
        yield ChosenSet(
            f"{target}-without-others-{number}", "without others", reverse.neurons & ~others, target, number
        )
    yield ChosenSet(f"{target}-mean", "mean", reverse.neurons, target, mean=target)
    yield ChosenSet(f"{target}-general-mean", "general mean", reverse.neurons, target, mean=GENERAL)
    yield ChosenSet(f"{target}-refitted", "re-fitted", reverse.neurons, target, refitted=True)
    for factor in FACTORS:
        yield ChosenSet(f"{target}-times-{factor:g}", "scaled", reverse.neurons, target, factor=factor)


def _some(among: BoolArray, count: int, seed: int) -> BoolArray:
    """`count` neurons of a set at random."""
    return largest(np.random.default_rng(seed).random(among.shape), count, among)


def _matched_sets(request: SetRequest, found: Statistics, target: str, reverse: ChosenSet) -> Iterator[ChosenSet]:
    own = found.groups[target]
    values = {"contribution": contribution(own, found.down_norm), "activation": own.mean_abs}
    for kind, (what, by_layer) in MATCHED.items():
        for number in range(request.matched_sets):
            neurons = matched(reverse.neurons, values[what], number, by_layer)
            name = f"{target}-{kind.replace(' ', '-')}-{number}"
            yield ChosenSet(name, kind, neurons, target, number=number)


def overlap(chosen: ChosenSet, reverse: ChosenSet) -> float:
    """The share of the chosen set that is in the reverse set."""
    return float((chosen.neurons & reverse.neurons).sum() / max(1, chosen.neurons.sum()))


def contribution_share(chosen: ChosenSet, found: Statistics) -> float:
    """The share of the sum of all neurons' E|h_j| * ||W_j|| on the target's prompts that the set makes."""
    values = contribution(found.groups[str(chosen.target)], found.down_norm)
    return float(np.where(chosen.neurons, values, 0.0).sum() / values.sum())
