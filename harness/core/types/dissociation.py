"""Results of `harness dissociate`: interventions on sets of neurons, and what explains their effect, as in run.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from harness.core.types.sweep import Verdict

_Figure = tuple[float, float, float]  # with the two ends of its interval
InterventionKind = Literal[
    "reverse",  # the neurons that are specific to the target by S, against all other tasks and general text
    "held out",  # the same without one of the other tasks among the distractors
    "surface",  # S against the target's own prompts with their words shuffled
    "super alone",  # the few neurons of the reverse set with the largest contribution to a single prompt
    "without super",  # the reverse set without those
    "without others",  # the reverse set without as many others of it, at random
    "contribution by layer",  # random sets matched on contribution
    "contribution in total",
    "activation by layer",  # random sets matched on activation
    "activation in total",
    "difference",  # important for the target and not for general text
    "random",
    "dose",  # fewer neurons
    "scaled",  # the reverse set multiplied by a factor
    "mean",  # the reverse set replaced by its mean on the target's prompts
    "general mean",  # the same by its mean on general text
    "samples",  # the reverse set from fewer calibration prompts
    "re-fitted",  # the reverse set removed and the other columns re-fitted on general text
]
Explained = Literal["explains most", "explains part", "explains little", "cannot say", "nothing to explain"]


@dataclass(frozen=True)
class Intervention:
    """A set of neurons and what was done to it, with every task's outcomes.

    Attributes:
        target: The task whose neurons the set is about; None for random sets.
        number: Calibration seed of S, or number of a random set, from 0.
        distractors: Names of what S contrasted the target with; empty where S was not used.
        held_out: The task that was not among them.
        samples: Calibration prompts of each source.
        factor: What the neurons' activations were multiplied by: 0 where they were removed.
        neurons: Neurons of the set in all layers; `ratio`: their share of all neurons.
        contribution: Share of the sum over all neurons of E|h_j| * ||W_j|| on the target's prompts that the set makes.
        overlap: Share of the set that is in the reverse set of its target.
        outcomes: Task -> one character per item, 1 right and 0 wrong.
    """

    name: str
    kind: InterventionKind
    target: str | None
    number: int
    distractors: tuple[str, ...]
    held_out: str | None
    samples: int
    factor: float
    neurons: int
    ratio: float
    contribution: float | None
    overlap: float | None
    outcomes: Mapping[str, str]


@dataclass(frozen=True)
class Explanation:
    """One explanation of the collapse of a task without the neurons that are specific to it by S.

    Attributes:
        rule: How it is judged, in words.
        figure: What `value` is, a share of the target's loss.
    """

    target: str
    explanation: str
    rule: str
    figure: str
    value: float | None
    ci_low: float | None
    ci_high: float | None
    verdict: Explained | Verdict
    details: tuple[str, ...] = ()


@dataclass(frozen=True)
class DoubleDissociation:
    """Whether two tasks' neurons are each the own task's alone.

    Attributes:
        held_out: Whether each task was left out of the other one's distractors.
        own: Loss of the first task without its neurons, and of the second without its own, with 95 % intervals.
        other: Loss of the second task without the first one's neurons, and of the first without the second one's.
    """

    first: str
    second: str
    held_out: bool
    own: tuple[_Figure, _Figure]
    other: tuple[_Figure, _Figure]
    verdict: Verdict


@dataclass(frozen=True)
class Dissociation:
    """Everything that `harness dissociate` adds to a run.

    Attributes:
        ratio: Share of each layer's neurons in a reverse set.
        samples: Calibration prompts of each source.
        margin: A loss of accuracy that counts as none, as a share of all items.
        items: Task -> the items that were asked, in order.
        dense: Task -> the dense model's outcomes, one character per item.
        failed: Interventions that failed -> why.
        seconds: Duration of all stages, those of earlier starts included.
        rules: Version of the rules by which explanations were judged.
    """

    tasks: tuple[str, ...]
    ratio: float
    samples: int
    margin: float
    items: Mapping[str, tuple[int, ...]]
    dense: Mapping[str, str]
    interventions: tuple[Intervention, ...]
    explanations: tuple[Explanation, ...]
    double: tuple[DoubleDissociation, ...]
    failed: Mapping[str, str]
    seconds: float
    rules: int
