"""The word problems as an lm-eval task; problems.py shows one raw example."""

from __future__ import annotations

from functools import partial
from itertools import islice
from pathlib import Path

from harness.core.types.calibration import Example
from tasks.answers import boxes, hashes, statements
from tasks.grading import Document, extract_number, grade_number
from tasks.mini_distractors import others
from tasks.mini_math.problems import Problem, problems
from tasks.splits import Split
from tasks.task import Task, TrainingItems, worked

SIZE = 500
_EVALUATED: tuple[Split, ...] = ("validation", "test")


def items(split: Split, n: int = SIZE) -> list[Problem]:
    """The first `n` different problems of a split's stream."""
    unique: dict[str, Problem] = {}
    for problem in problems(split):
        unique.setdefault(problem.question, problem)
        if len(unique) == n:
            return list(unique.values())
    raise AssertionError("problems() is endless")


def documents() -> dict[str, list[dict[str, str]]]:
    """The validation and the test split."""
    return {split: [_document(problem) for problem in items(split)] for split in _EVALUATED}


def _document(problem: Problem) -> dict[str, str]:
    return {"question": problem.question, "solution": problem.solution, "answer": str(problem.answer)}


def training(n: int, seed: int) -> tuple[str, list[dict[str, str]]]:
    """The stream has no end, so there are as many as are asked for."""
    return "mini_math (train)", [_document(problem) for problem in islice(problems("train", seed), n)]


def example(doc: Document) -> Example:
    """The bare question with its worked solution."""
    return Example(doc["question"], doc["solution"])


_FINDERS = (hashes, boxes, statements)
TASK = Task(
    name="mini_math",
    summary="generated word problems",
    kind="math",
    metric="exact_match",
    folder=Path(__file__).parent,
    max_new_tokens=64,
    items=SIZE,
    documents=documents,
    calibration=partial(worked, training, example),
    distractors=partial(others, "mini_math"),
    grade=partial(grade_number, _FINDERS),
    extract=partial(extract_number, _FINDERS),
    training=TrainingItems(documents=training, example=example, items=None),
    off_target=("mini_facts", "mini_code"),
)
load, process_results = TASK.load, TASK.process_results  # for the YAML
