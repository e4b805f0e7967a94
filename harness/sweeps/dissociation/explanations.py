"""Why a task collapses without the neurons that are specific to it by S: six explanations, each with a figure, its
95 % interval and a verdict by the rules here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from harness.core.loss_shares import loss, rest_of, scaled, share_of
from harness.core.mask_statistics import FEWEST_MASKS, rank_p_value
from harness.core.statistics import Difference, is_able
from harness.core.types.dissociation import DoubleDissociation, Explained, Explanation, Intervention, InterventionKind
from harness.core.types.sweep import Verdict
from harness.sweeps.dissociation.sets import MATCHED, SUPER
from reports.figures import count_text

RULES = 2  # of this module; a change of a rule raises it
MOST, LITTLE = 0.5, 0.2  # shares of the target's loss
_LEVEL = 1 / (FEWEST_MASKS + 1)
SHARE_RULE = (
    f"explains most: the interval of the share lies above {MOST:.0%}; explains little: below {LITTLE:.0%}; explains "
    f"part: between 0 and {MOST:.0%}; else cannot say"
)
SET_RULE = (
    "supported: the target loses more than the margin, more than without any of 19 random sets (rank test at 5 %) and "
    "than without sets matched on contribution and on activation, and with every draw of prompts no other task that "
    "the model can do loses the margin where it was left out of the distractors; not supported: one does and no draw "
    "says otherwise, or the target does not; by 95 % intervals over items; where a set failed it cannot be supported"
)


@dataclass(frozen=True)
class Answers:
    """Right and wrong answers of the dense model and of every intervention.

    Attributes:
        dense: Task -> one character per item.
        margin: A loss that counts as none.
    """

    tasks: Sequence[str]
    dense: Mapping[str, str]
    interventions: Sequence[Intervention]
    margin: float

    def of(self, kind: InterventionKind, target: str | None, **given: object) -> list[Intervention]:
        """The interventions of a kind, in order."""
        return [
            one
            for one in self.interventions
            if (one.kind, one.target) == (kind, target) and all(getattr(one, k) == v for k, v in given.items())
        ]

    def loss(self, some: Sequence[Intervention], task: str, confidence: float = 0.95) -> Difference:
        """What the task loses over sets like these; of one set over its items alone."""
        return loss(_bits(self.dense[task]), [_bits(one.outcomes[task]) for one in some], confidence)

    def of_draws(self, some: Sequence[Intervention], task: str) -> Difference:
        """The mean of what the task loses with the sets of these draws of prompts, and of the intervals over items."""
        return _mean([self.loss([one], task) for one in some])

    def able(self, task: str) -> bool:
        """Whether the dense model can do the task and has something to lose."""
        return is_able(self.dense[task].count("1"), len(self.dense[task]))

    def accuracy(self, task: str) -> float:
        return self.dense[task].count("1") / len(self.dense[task])


Judge = Callable[[Answers, str, Difference], Explanation]


def explanations(
    tasks: Sequence[str], dense: Mapping[str, str], interventions: Sequence[Intervention], margin: float
) -> tuple[Explanation, ...]:
    """Six explanations for every task.

    Args:
        dense: Task -> the dense model's outcomes, one character per item.
        margin: A loss of accuracy that counts as none.
    """
    answers = Answers(tasks, dense, interventions, margin)
    return tuple(_explained(answers, target, name) for target in tasks for name in _JUDGES)


def _explained(answers: Answers, target: str, name: str) -> Explanation:
    reverse = answers.of("reverse", target)
    if not reverse:
        return _unsaid(target, name, "cannot say", "no reverse set could be evaluated")
    if not answers.able(target):
        return _unsaid(target, name, "nothing to explain", "the dense model cannot do the task")
    whole = answers.of_draws(reverse, target)
    if whole[1] > answers.margin:
        return _JUDGES[name](answers, target, whole)
    shown = whole[2] < answers.margin
    verdict: Explained | Verdict = "cannot say"
    if shown:
        verdict = "not supported" if name == _SET else "nothing to explain"
    return _unsaid(target, name, verdict, f"without its neurons the task loses {_points(whole)}")


def _unsaid(target: str, name: str, verdict: Explained | Verdict, why: str) -> Explanation:
    rule = SET_RULE if name == _SET else SHARE_RULE
    return Explanation(target, name, rule, "share of the loss", None, None, None, verdict, (why,))


def _by_share(target: str, name: str, figure: str, share: Difference, details: Sequence[str]) -> Explanation:
    value, low, high = share
    verdict: Explained = "cannot say"
    if low > MOST:
        verdict = "explains most"
    elif high < LITTLE:
        verdict = "explains little"
    elif low > 0 and high < MOST:
        verdict = "explains part"
    return Explanation(target, name, SHARE_RULE, figure, value, low, high, verdict, tuple(details))


def _missing(target: str, name: str) -> Explanation:
    return _unsaid(target, name, "cannot say", "its interventions failed")


def _general_importance(answers: Answers, target: str, whole: Difference) -> Explanation:
    """The matched sets that cost most; their interval allows for four kinds."""
    name, figure = _GENERAL, "loss without matched random sets, of the loss"
    kinds = {kind: found for kind in MATCHED if (found := answers.of(kind, target))}
    if not kinds:
        return _missing(target, name)
    shares = _matched_shares(answers, target, whole)
    own = np.mean([one.contribution for one in answers.of("reverse", target)])
    details = [
        f"matched on {kind}: {_share(shares[kind])}, {np.mean([one.contribution for one in found]):.1%} of the "
        f"contribution, the set {own:.1%}"
        for kind, found in kinds.items()
    ]
    worst = max(shares, key=lambda kind: shares[kind][0])
    return _by_share(target, name, figure, shares[worst], [*details, *_beside(answers, target, whole)])


def _matched_shares(answers: Answers, target: str, whole: Difference) -> dict[str, Difference]:
    """Of the kinds of matched sets that were evaluated: the share of the loss that the target loses without them."""
    kinds = {kind: found for kind in MATCHED if (found := answers.of(kind, target))}
    confidence = 1 - 0.05 / max(1, len(kinds))
    return {kind: share_of(answers.loss(found, target, confidence), whole) for kind, found in kinds.items()}


def _random_losses(answers: Answers, target: str) -> list[float]:
    return [answers.loss([one], target)[0] for one in answers.of("random", None)]


def _beside(answers: Answers, target: str, whole: Difference) -> list[str]:
    """Random sets, and neurons that matter for the target and not for general text."""
    said = []
    if masks := answers.of("random", None):
        losses = _random_losses(answers, target)
        p = rank_p_value(whole[0], losses)
        few = f"; {FEWEST_MASKS} would show it at 5 %" if len(losses) < FEWEST_MASKS else ""
        said.append(f"random sets: {_points(answers.loss(masks, target))} lost, p = {p:.3f} of {len(losses)} sets{few}")
    if found := answers.of("difference", target):
        losses_of = ", ".join(f"{task} {_points(answers.loss(found, task))}" for task in answers.tasks)
        said.append(f"important for the target and not for general text: {losses_of}")
    return said


def _few_neurons(answers: Answers, target: str, whole: Difference) -> Explanation:
    name, figure = _SUPER, f"loss that is gone where the {SUPER} largest stay, of the loss"
    alone, without = answers.of("super alone", target), answers.of("without super", target)
    if not (alone and without):
        return _missing(target, name)
    share = rest_of(share_of(answers.loss(without, target), whole))
    details = f"those {alone[0].neurons} alone: {_share(share_of(answers.loss(alone, target), whole))}"
    more = answers.of("without others", target)
    beside = (
        [f"where {SUPER} others stay: {_share(rest_of(share_of(answers.loss(more, target), whole)))}"] if more else []
    )
    return _by_share(target, name, figure, share, [details, *beside])


def _repaired(name: str, kind: InterventionKind, figure: str, also: InterventionKind | None = None) -> Judge:
    """An explanation by which another choice or another operation would not cost the task what removal costs it."""

    def judge(answers: Answers, target: str, whole: Difference) -> Explanation:
        other = answers.of(kind, target)
        if not other:
            return _missing(target, name)
        share = rest_of(share_of(answers.loss(other, target), whole))
        details = [f"{_points(answers.loss(other, target))} lost"]
        if also and (beside := answers.of(also, target)):
            details.append(f"{also}: {_points(answers.loss(beside, target))} lost")
        return _by_share(target, name, figure, share, details)

    return judge


def _distractor_choice(answers: Answers, target: str, whole: Difference) -> Explanation:
    """How much more the other task loses when it was not among the distractors; both as shares of the dense model's
    accuracy, which is taken as it is.
    """
    name, figure = _DISTRACTORS, "further loss of another task that is not a distractor, of the target's loss"
    others = [task for task in answers.tasks if task != target and answers.able(task)]
    found, details = {}, []
    for task in others:
        held_out, inside = answers.of("held out", target, held_out=task), answers.of("reverse", target)
        further = _further(inside, held_out, task, 1 - 0.05 / len(others))
        if further:
            own = scaled(whole, 1 / answers.accuracy(target))
            found[task] = share_of(scaled(further, 1 / answers.accuracy(task)), own)
            lost = (_points(answers.of_draws(some, task)) for some in (held_out, inside))
            details.append(f"{task} loses {next(lost)} where it is not a distractor, {next(lost)} where it is")
    if not found:
        return _missing(target, name)
    return _by_share(target, name, figure, max(found.values(), key=lambda share: share[0]), details)


def _further(
    inside: Sequence[Intervention], outside: Sequence[Intervention], task: str, confidence: float
) -> Difference | None:
    """What is lost from one choice of distractors to the other, over the draws of prompts, paired by draw. None where
    no draw has both.
    """
    before = {one.number: _bits(one.outcomes[task]) for one in inside}
    pairs = [(before[one.number], _bits(one.outcomes[task])) for one in outside if one.number in before]
    return _mean([loss(a, [b], confidence) for a, b in pairs]) if pairs else None


def _task_specific(answers: Answers, target: str, whole: Difference) -> Explanation:
    others = [task for task in answers.tasks if task != target and answers.able(task)]
    sets = {task: found for task in others if (found := answers.of("held out", target, held_out=task))}
    if not sets:
        return _unsaid(target, _SET, "cannot say", "the model can do no other task")
    lost = {task: answers.of_draws(found, task) for task, found in sets.items()}
    own = scaled(whole, 1 / answers.accuracy(target))
    shares = {task: share_of(scaled(found, 1 / answers.accuracy(task)), own) for task, found in lost.items()}
    draws = [
        [answers.loss([one], task) for task, found in sets.items() for one in found if one.number == number]
        for number in dict.fromkeys(one.number for found in sets.values() for one in found)
    ]
    verdict = _over_draws([_spared(losses, answers.margin) for losses in draws])
    open_points = [*_beyond_others(answers, target, whole), *_failed(answers, target, others)]
    if open_points and verdict == "supported":
        verdict = "cannot say"
    each = ", ".join(_points(answers.loss([one], target)) for one in answers.of("reverse", target))
    details = [
        *open_points,
        f"{target} loses {each}",
        *(f"{task} loses {_points(found)}" for task, found in lost.items()),
    ]
    figure = "loss of the worst other task that is not a distractor, of the target's loss"
    worst = max(shares, key=lambda task: shares[task][0])
    return Explanation(target, _SET, SET_RULE, figure, *shares[worst], verdict, tuple(details))


def _beyond_others(answers: Answers, target: str, whole: Difference) -> list[str]:
    """What is missing for a loss beyond that of random and of matched sets."""
    losses, shares = _random_losses(answers, target), _matched_shares(answers, target, whole)
    p = rank_p_value(whole[0], losses)
    missing = [f"not shown beyond random sets: p = {p:.2g} of {len(losses)} sets"] if p > _LEVEL else []
    for kind in MATCHED:
        if kind not in shares:
            missing.append(f"sets matched on {kind} failed")
        elif shares[kind][2] >= 1:
            missing.append(f"not shown beyond sets matched on {kind}: {_share(shares[kind])} of the loss")
    return missing


def _failed(answers: Answers, target: str, others: Sequence[str]) -> list[str]:
    """Draws of prompts of which a set is missing."""
    own = {one.number for one in answers.of("reverse", target)}
    found = {task: {one.number for one in answers.of("held out", target, held_out=task)} for task in others}
    numbers = own.union(*found.values())
    lacking = {f"without {task} among the distractors": numbers - there for task, there in found.items()}
    lacking["of the target"] = numbers - own
    return [f"failed: {count_text(len(gone), 'set')} {name}" for name, gone in lacking.items() if gone]


def _spared(losses: Sequence[Difference], margin: float) -> Verdict:
    """Whether none of the tasks loses the margin."""
    if all(high < margin for _, _, high in losses):
        return "supported"
    return "not supported" if any(low > margin for _, low, _ in losses) else "cannot say"


def _over_draws(verdicts: Sequence[Verdict]) -> Verdict:
    """Supported where every draw of prompts says so; not supported where one says no and none says yes."""
    if set(verdicts) == {"supported"}:
        return "supported"
    return "not supported" if "not supported" in verdicts and "supported" not in verdicts else "cannot say"


def double_dissociations(
    tasks: Sequence[str], dense: Mapping[str, str], interventions: Sequence[Intervention], margin: float
) -> tuple[DoubleDissociation, ...]:
    """Every pair of tasks that the model can do, with each among the other one's distractors, and not."""
    answers = Answers(tasks, dense, interventions, margin)
    able = [task for task in tasks if answers.able(task)]
    pairs = [(a, b) for i, a in enumerate(able) for b in able[i + 1 :]]
    made = (_double(answers, a, b, held_out) for a, b in pairs for held_out in (False, True))
    return tuple(one for one in made if one)


def _double(answers: Answers, first: str, second: str, held_out: bool) -> DoubleDissociation | None:
    sets = [
        answers.of("held out", a, held_out=b) if held_out else answers.of("reverse", a)
        for a, b in ((first, second), (second, first))
    ]
    if not all(sets):
        return None
    own = answers.of_draws(sets[0], first), answers.of_draws(sets[1], second)
    other = answers.of_draws(sets[0], second), answers.of_draws(sets[1], first)
    numbers = [{one.number for one in some} for some in sets]
    pairs = [[one for some in sets for one in some if one.number == number] for number in sorted(set.union(*numbers))]
    verdict = _over_draws([_each_its_own(answers, (first, second), pair) for pair in pairs if len(pair) == 2])
    if verdict == "supported" and any(len(pair) < 2 for pair in pairs):
        verdict = "cannot say"
    return DoubleDissociation(first, second, held_out, own, other, verdict)


def _each_its_own(answers: Answers, tasks: Sequence[str], sets: Sequence[Intervention]) -> Verdict:
    """Of one draw: whether each task falls without its own set, and not without the other one's."""
    own = [answers.loss([one], task) for one, task in zip(sets, tasks, strict=True)]
    other = [answers.loss([one], task) for one, task in zip(sets, reversed(tasks), strict=True)]
    spared = _spared(other, answers.margin)
    if any(high < answers.margin for _, _, high in own):
        return "not supported"
    return "cannot say" if spared == "supported" and any(low <= answers.margin for _, low, _ in own) else spared


def _mean(figures: Sequence[Difference]) -> Difference:
    value, low, high = np.mean(np.asarray(figures), axis=0)
    return float(value), float(low), float(high)


def _bits(outcomes: str) -> list[bool]:
    return [character == "1" for character in outcomes]


def _points(figure: Difference) -> str:
    value, low, high = (100 * end for end in figure)
    return f"{value:.1f} points ({low:.1f} to {high:.1f})"


def _share(figure: Difference) -> str:
    value, low, high = figure
    return f"{value:.0%} ({low:.0%} to {high:.0%})"


_GENERAL, _SUPER, _SURFACE = "general importance", "a few super neurons", "surface form"
_ZERO, _DISTRACTORS, _SET = "zeroing artefact", "distractor choice", "task-specific set"
_JUDGES: Mapping[str, Judge] = {
    _GENERAL: _general_importance,
    _SUPER: _few_neurons,
    _SURFACE: _repaired(
        _SURFACE, "surface", "loss that is gone where the distractors are the target's words shuffled, of the loss"
    ),
    _ZERO: _repaired(
        _ZERO, "mean", "loss that is gone where the mean stays in place of 0, of the loss", "general mean"
    ),
    _DISTRACTORS: _distractor_choice,
    _SET: _task_specific,
}
