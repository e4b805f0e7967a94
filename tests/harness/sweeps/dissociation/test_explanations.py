"""Verdicts of made-up outcomes whose explanation is known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from harness.core.types.dissociation import Explanation, Intervention
from harness.sweeps.dissociation.explanations import double_dissociations, explanations

TASKS, N, MARGIN = ("math", "code"), 200, 0.05
DENSE = {"math": "1" * N, "code": "1" * N}
NOTHING = {"math": 0.0, "code": 0.0}


def outcomes(lost: float, first: int = 0) -> str:
    """Of N right answers this share is lost, beginning with item `first`."""
    gone = {(first + i) % N for i in range(round(lost * N))}
    return "".join("0" if i in gone else "1" for i in range(N))


def done(kind: str, target: str | None, lost: Mapping[str, float], number: int = 0, **more: Any) -> Intervention:
    return Intervention(
        name=f"{target}-{kind}-{number}",
        kind=kind,  # type: ignore[arg-type]
        target=target,
        number=number,
        distractors=(),
        held_out=more.get("held_out"),
        samples=160,
        factor=0.0,
        neurons=64,
        ratio=0.1,
        contribution=0.2,
        overlap=1.0,
        outcomes={task: outcomes(share, 3 * number) for task, share in lost.items()},
    )


def world(**lost: float) -> list[Intervention]:
    """Interventions on math's neurons, and on code's, which are code's own; `lost`: what math loses by each."""
    of = {"reverse": 0.95, "matched": 0.02, "without": 0.95, "alone": 0.01, "surface": 0.95, "mean": 0.95}
    of |= {"code": 0.0, "code_held_out": 0.0, **lost}
    math = [done("reverse", "math", {"math": of["reverse"], "code": of["code"]}, number) for number in range(3)]
    math += [
        done("held out", "math", {"math": of["reverse"], "code": of["code_held_out"]}, number, held_out="code")
        for number in range(3)
    ]
    math += [
        done("super alone", "math", {"math": of["alone"], "code": 0}),
        done("without super", "math", {"math": of["without"], "code": 0}),
        done("surface", "math", {"math": of["surface"], "code": 0}),
        done("mean", "math", {"math": of["mean"], "code": 0}),
    ]
    kinds = [f"{what} {how}" for what in ("contribution", "activation") for how in ("by layer", "in total")]
    math += [done(kind, "math", {"math": of["matched"]}, number) for kind in kinds for number in range(8)]
    math += [done("random", None, NOTHING, number) for number in range(19)]
    code = [done("reverse", "code", {"math": 0, "code": 0.9}, number) for number in range(3)]
    code += [done("held out", "code", {"math": 0, "code": 0.9}, number, held_out="math") for number in range(3)]
    return math + code


def judged(found: list[Intervention], dense: Mapping[str, str] = DENSE) -> dict[str, Explanation]:
    made = explanations(TASKS, dense, found, MARGIN)
    return {e.explanation: e for e in made if e.target == "math"}


def test_a_set_of_its_own_is_explained_by_nothing_else() -> None:
    found = judged(world())
    assert {name: e.verdict for name, e in found.items()} == {
        "general importance": "explains little",
        "a few super neurons": "explains little",
        "surface form": "explains little",
        "zeroing artefact": "explains little",
        "distractor choice": "explains little",
        "task-specific set": "supported",
    }
    assert any("p = 0.050 of 19 sets" in line for line in found["general importance"].details)


@pytest.mark.parametrize(
    ("lost", "name", "value"),
    [
        ({"matched": 0.9}, "general importance", 0.9 / 0.95),
        ({"without": 0.05, "alone": 0.9}, "a few super neurons", 1 - 0.05 / 0.95),
        ({"surface": 0.1}, "surface form", 1 - 0.1 / 0.95),
        ({"mean": 0.0}, "zeroing artefact", 1.0),
        ({"code_held_out": 0.8}, "distractor choice", 0.8 / 0.95),
    ],
)
def test_each_explanation_is_found_where_it_holds(lost: dict[str, float], name: str, value: float) -> None:
    found = judged(world(**lost))
    assert found[name].verdict == "explains most"
    assert found[name].value == pytest.approx(value, abs=1e-9)
    others = {e.verdict for n, e in found.items() if n not in (name, "task-specific set")}
    assert others == {"explains little"}


def test_part_of_the_loss_and_what_cannot_be_said() -> None:
    assert judged(world(mean=0.95 - 0.33))["zeroing artefact"].verdict == "explains part"
    assert judged(world(mean=0.95 - 0.48))["zeroing artefact"].verdict == "cannot say"


def test_a_share_that_may_be_none_is_no_part() -> None:
    found = judged(world(reverse=0.3, mean=0.3))["zeroing artefact"]
    assert found.value == pytest.approx(0, abs=1e-9) and found.ci_low is not None and found.ci_high is not None
    assert found.ci_low < 0 and 0.2 < found.ci_high < 0.5 and found.verdict == "cannot say"


def test_a_set_that_hits_another_task_is_not_the_tasks_own() -> None:
    found = judged(world(code_held_out=0.3))
    assert found["task-specific set"].verdict == "not supported"
    assert found["task-specific set"].value == pytest.approx(0.3 / 0.95)
    assert judged(world(code_held_out=0.05))["task-specific set"].verdict == "cannot say"


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"random": [0.95] * 19}, "not shown beyond random sets: p = 1 of 19 sets"),
        ({"random": [0.0] * 18}, "not shown beyond random sets: p = 0.053 of 18 sets"),
        ({"random": [0.95, *[0.0] * 18]}, "not shown beyond random sets: p = 0.1 of 19 sets"),
        ({"activation in total": [0.95] * 8}, "not shown beyond sets matched on activation in total"),
        ({"activation in total": []}, "sets matched on activation in total failed"),
    ],
)
def test_a_set_is_the_tasks_own_only_beyond_random_and_matched_sets(changed: dict[str, list[float]], says: str) -> None:
    """A random set in the place of S's is spared elsewhere as well, where the target is the weakest task."""
    found = [one for one in world() if one.kind not in changed]
    for kind, lost in changed.items():
        found += [
            done(kind, None if kind == "random" else "math", {"math": share, "code": 0.0}, number)
            for number, share in enumerate(lost)
        ]
    explained = judged(found)["task-specific set"]
    assert explained.verdict == "cannot say" and any(says in line for line in explained.details)


def test_a_set_that_failed_supports_nothing() -> None:
    """Of three tasks; the third loses all where it is no distractor, in the last draw or in all."""
    tasks = ("math", "code", "facts")
    dense = dict.fromkeys(tasks, "1" * N)

    def verdict(facts: list[float], left_out: tuple[tuple[str, int], ...] = ()) -> str:
        found = [one for one in world() if one.target in ("math", None)]
        found = [replace(one, outcomes={**one.outcomes, "facts": outcomes(0.0)}) for one in found]
        found += [
            done("held out", "math", {"math": 0.95, "code": 0, "facts": lost}, number, held_out="facts")
            for number, lost in enumerate(facts)
        ]
        kept = [one for one in found if (one.held_out, one.number) not in left_out]
        return next(
            e.verdict
            for e in explanations(tasks, dense, kept, MARGIN)
            if (e.target, e.explanation) == ("math", "task-specific set")
        )

    assert verdict([0.0, 0.0, 0.0]) == "supported"
    assert verdict([1.0, 1.0, 1.0]) == "not supported"
    assert verdict([]) == "cannot say", "all sets of facts failed"
    assert verdict([0.0, 0.0, 1.0]) == "cannot say"
    assert verdict([0.0, 0.0, 1.0], (("code", 2),)) == "cannot say", "the draws are paired by their number"
    assert verdict([0.0, 0.0, 0.0], (("code", 1),)) == "cannot say", "one set failed"


def test_another_task_without_a_common_draw_is_left_out_of_the_choice_of_distractors() -> None:
    """Draws 0 and 1 of the one choice and draw 2 of the other were evaluated: as if all of the other had failed."""

    def choice(held_out: set[int]) -> Explanation:
        draws = {"reverse": {0, 1}, "held out": held_out}
        kept = [one for one in world() if one.target != "math" or one.number in draws.get(one.kind, {one.number})]
        return judged(kept)["distractor choice"]

    assert choice({2}) == choice(set()) and choice({2}).value is None
    assert choice({1, 2}).verdict == "explains little", "by draw 1"


def test_a_double_dissociation_needs_both_sets_of_every_draw() -> None:
    found = [one for one in world() if (one.kind, one.target, one.number) != ("reverse", "code", 2)]
    assert [d.verdict for d in double_dissociations(TASKS, DENSE, world(), MARGIN)] == ["supported"] * 2
    assert [d.verdict for d in double_dissociations(TASKS, DENSE, found, MARGIN)] == ["cannot say", "supported"]


def test_a_task_that_loses_nothing_has_nothing_to_explain() -> None:
    found = judged(world(reverse=0.0))
    assert found["task-specific set"].verdict == "not supported"
    assert {e.verdict for n, e in found.items() if n != "task-specific set"} == {"nothing to explain"}
    assert judged(world(reverse=0.05))["task-specific set"].verdict == "cannot say"


def test_a_task_that_the_model_cannot_do_is_not_judged() -> None:
    found = judged(world(), {"math": "0" * N, "code": DENSE["code"]})
    assert {e.verdict for e in found.values()} == {"nothing to explain"}
    alone = judged(world(), {"math": DENSE["math"], "code": "0" * N})
    assert (
        alone["task-specific set"].verdict == "cannot say" and "no other task" in alone["task-specific set"].details[0]
    )


def test_interventions_that_failed_leave_an_explanation_open() -> None:
    left = [one for one in world() if one.kind not in ("mean", "surface", "without super", "held out")]
    verdicts = {name: e.verdict for name, e in judged(left).items()}
    assert [name for name, verdict in verdicts.items() if verdict == "cannot say"] == [
        "a few super neurons",
        "surface form",
        "zeroing artefact",
        "distractor choice",
        "task-specific set",
    ]


@pytest.mark.parametrize(
    ("lost", "inside", "held_out"),
    [
        ({}, "supported", "supported"),
        ({"code_held_out": 0.4}, "supported", "not supported"),
        ({"code": 0.4, "code_held_out": 0.05}, "not supported", "cannot say"),
        ({"reverse": 0.0}, "not supported", "not supported"),
        ({"reverse": 0.06}, "cannot say", "cannot say"),
    ],
)
def test_double_dissociation(lost: dict[str, float], inside: str, held_out: str) -> None:
    found = double_dissociations(TASKS, DENSE, world(**lost), MARGIN)
    assert [(pair.first, pair.second, pair.held_out) for pair in found] == [
        ("math", "code", False),
        ("math", "code", True),
    ]
    assert [pair.verdict for pair in found] == [inside, held_out]
    assert found[0].own[1][0] == pytest.approx(0.9)
