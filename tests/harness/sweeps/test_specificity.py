"""Claim 2: reverse pruning has to be specific beyond random and matched neurons."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from harness.sweeps.evidence import MATCHED, PAPER, RANDOM, REVERSE, Evidence
from harness.sweeps.specificity import beyond, specificity_on
from tests.support.claims import Levels, N, along, claim, evidence, masks

CONTROLLED: Levels = {RANDOM: {0.1: masks(0.7), 0.35: masks(0.02)}, MATCHED: {0.1: 0.75, 0.5: 0.03}}
FRAGILE: Levels = {REVERSE: {0.1: 0.93}, RANDOM: {0.1: 0.93, 0.35: 0.5}, MATCHED: {0.1: 0.93, 0.5: 0.4}}


def reversed_to(level: float, elsewhere: Levels = FRAGILE, **more: Any) -> Evidence:
    return evidence({REVERSE: {0.1: level}, **CONTROLLED}, elsewhere, **more)


def test_reverse_has_to_collapse_and_to_be_specific_beyond_the_controls() -> None:
    found = claim(2, reversed_to(0.0))
    assert found.verdict == "supported" and found.value == pytest.approx(0.93 - 0.5, abs=0.01)
    assert "facts beyond random at 35.0 %" in found.details[1] and "facts beyond matched at 50.0 %" in found.details[2]
    alike = {REVERSE: {0.1: 0.5}, RANDOM: {0.35: 0.5}, MATCHED: {0.5: 0.5}}
    salience = claim(2, reversed_to(0.0, alike))
    assert salience.verdict == "cannot say", "as good as by random removal that hits the target as hard"
    assert salience.value == pytest.approx(0, abs=0.01)
    worse = {**alike, REVERSE: {0.1: 0.1}}
    assert claim(2, reversed_to(0.0, worse)).verdict == "not supported"
    assert claim(2, reversed_to(0.3)).verdict == "not supported", "it did not collapse"
    half = {**FRAGILE, MATCHED: {0.1: 0.93, 0.5: 0.95}}
    assert claim(2, reversed_to(0.0, half)).verdict != "supported", "matched neurons are as specific: the worst decides"
    nearly = claim(2, reversed_to(0.08))
    assert nearly.verdict == "cannot say" and nearly.n_needed > N and "gone below 9.0 %" in nearly.details[0]
    assert claim(2, evidence({PAPER: along(0.5)})).value is None


@pytest.mark.parametrize(("kept_elsewhere", "verdict"), [(0.4, "supported"), (0.93, "cannot say")])
def test_a_control_that_never_loses_as_much_of_the_target(kept_elsewhere: float, verdict: str) -> None:
    """Half of all matched neurons cost half of the target. Where that costs the other task more than reverse pruning
    does, losing all of the target would cost even more; where it costs nothing, nothing is known.
    """
    target = {REVERSE: {0.1: 0.0}, RANDOM: CONTROLLED[RANDOM], MATCHED: {0.1: 0.75, 0.5: 0.45}}
    found = claim(2, evidence(target, {**FRAGILE, MATCHED: {0.1: 0.93, 0.5: kept_elsewhere}}))
    assert found.verdict == verdict
    assert any("missing: matched" in line for line in found.details) == (verdict == "cannot say")


def test_of_several_alike_controls_the_one_that_removes_least_is_compared() -> None:
    """At a floor every further ratio loses as much of the target, and ever more of the other tasks."""
    target = {REVERSE: {0.1: 0.0}, RANDOM: {0.1: [0.5] * 3, 0.2: [0.02] * 3, 0.35: [0.0] * 3}, MATCHED: {0.2: 0.02}}
    elsewhere: Levels = {REVERSE: {0.1: 0.6}, RANDOM: {0.1: 0.95, 0.2: 0.92, 0.35: 0.3}, MATCHED: {0.2: 0.92}}
    found = claim(2, evidence(target, elsewhere))
    assert found.verdict == "not supported" and any("beyond random at 20.0 %" in line for line in found.details)


@pytest.mark.parametrize(("count", "verdict"), [(1, "cannot say"), (2, "cannot say"), (3, "supported")])
def test_few_random_masks_off_target_are_no_sample_of_all(count: int, verdict: str) -> None:
    target = {REVERSE: {0.1: 0.0}, RANDOM: {0.35: masks(0.02, count)}, MATCHED: {0.5: 0.03}}
    found = claim(2, evidence(target, FRAGILE))
    assert found.verdict == verdict
    assert any(f"cannot say: {count} random mask" in line for line in found.details) == (verdict == "cannot say")


def test_a_control_of_which_a_planned_ratio_failed_does_not_support() -> None:
    e = reversed_to(0.0)
    planned = replace(e, outcomes=replace(e.outcomes, planned={RANDOM: (0.1, 0.2, 0.35)}))
    assert claim(2, e).verdict == "supported"
    found = claim(2, planned)
    assert found.verdict == "cannot say" and "missing: random at 20.0 %" in found.details


def test_without_a_control_or_a_task_to_compare_with_there_is_no_verdict() -> None:
    alone = claim(2, evidence({REVERSE: {0.1: 0.0}}, FRAGILE))
    assert alone.verdict == "cannot say" and alone.details[0].startswith("missing: random at a ratio at which it loses")
    unable = reversed_to(0.0)
    for table in unable.outcomes.right.values():
        table["facts"][:] = 0.0  # type: ignore[index]
    found = claim(2, unable)
    assert (found.verdict, found.value) == ("cannot say", None)
    assert "facts: cannot say, the dense model cannot do it" in found.details
    distractor = claim(2, reversed_to(0.0, distractors=frozenset({"facts"})))
    assert distractor.verdict == "cannot say" and "facts: was a distractor, not judged" in distractor.details


def test_few_items_can_never_show_a_collapse() -> None:
    """0 of 34 right: the interval ends at 10.2 %."""
    few = reversed_to(0.0, dense=1.0, items=500)
    for table in few.outcomes.right.values():
        for task in table:
            table[task] = table[task][:, ::20]  # type: ignore[index]
    found = claim(2, few)
    assert (found.verdict, found.n_needed) == ("cannot say", 35)
    assert found.details[0] == "cannot say: with 20 items it can never be supported; at least 35 are needed"
    close = claim(2, reversed_to(0.0975, dense=0.995, items=500))
    assert close.n_needed is None and close.details[0].endswith("items would decide, and math has 500")


@pytest.mark.parametrize(
    ("without", "elsewhere", "says"),
    [
        (MATCHED, FRAGILE, "missing: matched at a ratio at which it loses about as much of the target"),
        (None, {**FRAGILE, RANDOM: {0.1: 0.93, 0.35: 0.85}}, "facts beyond random at 35.0 %"),
        (None, {**FRAGILE, MATCHED: {0.1: 0.93, 0.5: 0.86}}, "facts beyond matched at 50.0 %"),
    ],
)
@pytest.mark.parametrize("items", [None, 500])
def test_items_that_would_show_the_collapse_alone_decide_nothing(
    without: str | None, elsewhere: Levels, says: str, items: int | None
) -> None:
    """35 of 400 right is below a tenth of dense, and not shown to be. More items would show that, and bring neither
    masks nor an arm that is missing.
    """
    arms: Levels = {REVERSE: {0.1: 0.0875}, **CONTROLLED}
    left: Levels = {arm: found for arm, found in arms.items() if arm != without}
    open_too = claim(2, evidence(left, elsewhere, dense=0.995, items=items))
    alone = claim(2, evidence(arms, FRAGILE, dense=0.995))
    assert (open_too.verdict, open_too.n_needed, alone.verdict) == ("cannot say", None, "cannot say")
    beyond = ", and math has 500" if items else ""
    assert open_too.details[0] == f"cannot say: {alone.n_needed:,} items would show the collapse{beyond}"
    assert any(says in line for line in open_too.details)


def test_specificity_is_per_task_and_beyond_the_controls_at_the_same_ratio() -> None:
    e = reversed_to(0.05, distractors=frozenset({"facts"}))
    place, control = e.place(REVERSE, 0.1), e.place(MATCHED, 0.1)
    assert place is not None and control is not None
    value, low, high = specificity_on(e.outcomes, place, "facts")
    assert value == pytest.approx((0.9 - 0.05) - (0.95 - 0.93)) and low < value < high <= 1
    over, least, most = beyond(e.outcomes, place, control, "facts")
    assert over == pytest.approx(value - specificity_on(e.outcomes, control, "facts")[0]) and least < over < most
