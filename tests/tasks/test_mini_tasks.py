"""The generated tasks: right answers, disjoint splits, and graders that cannot be talked round."""

from __future__ import annotations

import json
import random
import re
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest

from benchmarks.overlap import overlap
from harness.embedded.corpus import examples
from tasks.mini_code.task import TASK as MINI_CODE
from tasks.mini_code.task import document as code_document
from tasks.mini_code.task import items as code_items
from tasks.mini_facts.facts import facts
from tasks.mini_facts.task import TASK as MINI_FACTS
from tasks.mini_facts.task import items as fact_items
from tasks.mini_math.problems import FAMILIES, generate, problems
from tasks.mini_math.task import TASK as MINI_MATH
from tasks.mini_math.task import items as math_items
from tasks.splits import normalised
from tasks.splits import split_of as split_hash

TRAINED_ON = 2600 * 64  # steps and batch of the training run


@pytest.fixture(scope="module")
def trained_on() -> list[str]:
    """Normalised prompts of every example that the embedded model was trained on."""
    return [normalised(e.prompt) for e in islice(examples(0), TRAINED_ON)]


@pytest.mark.slow
def test_every_step_is_true_and_uses_numbers_of_the_question_or_earlier_steps() -> None:
    rng = random.Random(0)
    seen = set()
    for _ in range(3000):
        problem = generate(rng)
        seen.add(problem.family)
        known = set(re.findall(r"\d+", problem.question))
        for step in problem.steps:
            left, right = step.split("=")
            a, sign, b = re.fullmatch(r"(\d+)([-+*/])(\d+)", left).groups()  # type: ignore[union-attr]
            assert {a, b} <= known
            assert eval(f"{a}{'//' if sign == '/' else sign}{b}") == int(right) and 1 <= int(right) <= 99
            known.add(right)
        assert 2 <= len(problem.steps) <= 3
        assert MINI_MATH.grade({"answer": str(problem.answer)}, problem.solution).correct
    assert seen == {family.name for family in FAMILIES}


def test_sizes_and_uniqueness() -> None:
    for split in ("validation", "test"):
        assert len({normalised(p.question) for p in math_items(split)}) == 500  # type: ignore[arg-type]
        assert len({normalised(f["question"]) for f in fact_items(split)}) == len(facts()) >= 200  # type: ignore[arg-type]
        assert len({normalised(f.prompt) for f in code_items(split)}) == 150  # type: ignore[arg-type]


@pytest.mark.long
@pytest.mark.slow
def test_splits_share_no_normalised_text(trained_on: list[str]) -> None:
    held_out = {
        split: {normalised(p.question) for p in math_items(split)}  # type: ignore[arg-type]
        | {normalised(f["question"]) for f in fact_items(split)}  # type: ignore[arg-type]
        | {normalised(f.prompt) for f in code_items(split)}  # type: ignore[arg-type]
        for split in ("validation", "test")
    }
    assert not held_out["validation"] & held_out["test"]
    assert not (held_out["validation"] | held_out["test"]) & set(trained_on)


@pytest.mark.long
@pytest.mark.slow
def test_splits_share_no_equation_chain() -> None:
    chains = {split: {p.chain for p in islice(problems(split), 20_000)} for split in ("train", "validation", "test")}  # type: ignore[arg-type]
    assert not chains["train"] & chains["validation"]
    assert not chains["train"] & chains["test"]
    assert not chains["validation"] & chains["test"]
    assert all(split_hash(p.chain) == "test" for p in math_items("test"))


@pytest.mark.long
@pytest.mark.slow
def test_what_test_items_share_with_the_training_is_counted() -> None:
    """The committed figures, to which the tasks' pages refer."""
    committed = Path(__file__).resolve().parents[2] / "docs" / "overlap.json"
    assert overlap() == json.loads(committed.read_text())


def test_a_fact_is_asked_in_different_wordings_in_each_split() -> None:
    for fact in facts():
        train, validation, test = (set(fact.wordings(split)) for split in ("train", "validation", "test"))  # type: ignore[arg-type]
        assert len(train) == 6 and len(validation) == len(test) == 1
        assert not (train & validation or train & test or validation & test)


@pytest.mark.parametrize(
    ("text", "correct", "prediction"),
    [
        ("First 1+1=2.\n#### 2", True, "2"),
        ("#### 2\nNo, wait.\n#### 3", False, "3"),
        ("It is 2", False, None),
        ("", False, None),
        ("#### two", False, None),
    ],
)
def test_math_takes_the_last_marked_number(text: str, correct: bool, prediction: str | None) -> None:
    answer = MINI_MATH.grade({"answer": "2"}, text)
    assert (answer.correct, answer.prediction) == (correct, prediction)


@pytest.mark.parametrize(
    ("text", "correct"),
    [("Oslo", True), ("It is Oslo.", True), ("Oslofjord", False), ("Bergen\nOslo", False), ("  ", False)],
)
def test_a_fact_needs_the_word_in_the_first_line(text: str, correct: bool) -> None:
    assert MINI_FACTS.grade({"answer": "Oslo"}, text).correct is correct


def test_every_reference_function_passes_and_an_empty_one_fails() -> None:
    by_family = {f.family: f for f in code_items("test")}
    documents = {row["entry_point"]: row for row in MINI_CODE.documents()["test"]}
    for function in by_family.values():
        document = documents[function.entry_point]
        assert MINI_CODE.grade(document, function.body).correct
        assert MINI_CODE.grade(document, function.prompt + function.body).correct
        assert not MINI_CODE.grade(document, "    pass").correct


def small_document(body: str) -> dict[str, str]:
    function = replace(
        code_items("test")[0], prompt="def f(x):\n", body=f"    {body}\n", entry_point="f", calls=((1,),)
    )
    return code_document(function)


@pytest.mark.parametrize(
    ("body", "outcome"),
    [
        ("    return x +", "syntax_error"),
        ("    return y", "runtime_error"),
        ("    import os\n    os._exit(0)", "crash"),
    ],
)
def test_code_failures_have_their_kind(body: str, outcome: str) -> None:
    document = small_document("return x")
    answer = MINI_CODE.grade(document, body)
    assert (answer.outcome, answer.correct) == (outcome, False)


def test_true_is_not_one() -> None:
    document = small_document("return x == 1")
    assert not MINI_CODE.grade(document, "    return 1").correct
    assert MINI_CODE.grade(document, "    return True").correct
