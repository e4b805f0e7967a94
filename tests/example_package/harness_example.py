"""A task of another package: `pip install` it, and `--task example_sums` works in every command."""

from __future__ import annotations

import random
from functools import partial
from pathlib import Path

from harness.core.types.calibration import Example
from tasks.answers import hashes, statements
from tasks.grading import Document, extract_number, grade_number
from tasks.mini_distractors import others
from tasks.task import Task, TrainingItems

_TEST, _TRAIN = range(10), range(10, 60)


def document(number: int) -> dict[str, str]:
    """The item of a number."""
    return {"question": f"What is {number} + {number + 3}?", "answer": str(2 * number + 3)}


def documents() -> dict[str, list[dict[str, str]]]:
    """The test split."""
    return {"test": [document(number) for number in _TEST]}


def training(n: int, seed: int) -> tuple[str, list[dict[str, str]]]:
    """Up to `n` other items in random order."""
    numbers = random.Random(seed).sample(_TRAIN, min(n, len(_TRAIN)))
    return "example_sums (train)", [document(number) for number in numbers]


def example(doc: Document) -> Example:
    """The question with its answer."""
    return Example(doc["question"], f"#### {doc['answer']}")


def calibration(n: int, seed: int) -> tuple[str, list[Example]]:
    """Up to `n` training items as prompts."""
    source, chosen = training(n, seed)
    return source, [example(doc) for doc in chosen]


_FINDERS = (hashes, statements)
TASK = Task(
    name="example_sums",
    summary="sums, from another package",
    kind="math",
    metric="exact_match",
    folder=Path(__file__).parent,
    max_new_tokens=16,
    items=len(_TEST),
    documents=documents,
    calibration=calibration,
    distractors=partial(others, "mini_math"),
    grade=partial(grade_number, _FINDERS),
    extract=partial(extract_number, _FINDERS),
    training=TrainingItems(documents=training, example=example, items=len(_TRAIN)),
)
load, process_results = TASK.load, TASK.process_results  # for the YAML
