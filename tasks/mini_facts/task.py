"""The closed-book questions as an lm-eval task; facts.py shows one raw example."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from harness.core.types.calibration import Example
from tasks.failures import GradedAnswer
from tasks.grading import Document, graded
from tasks.mini_distractors import others
from tasks.mini_facts.facts import facts
from tasks.splits import Split, normalised, sample
from tasks.task import Task, TrainingItems, worked


def items(split: Split) -> list[dict[str, str]]:
    """Every fact in the wording kept for `split`."""
    return [{"question": wording, "answer": fact.answer} for fact in facts() for wording in fact.wordings(split)]


def documents() -> dict[str, list[dict[str, str]]]:
    """The validation and the test split."""
    return {"validation": items("validation"), "test": items("test")}


def extract(_doc: Document, text: str) -> str | None:
    """The first line that contains a word."""
    line = text.strip().partition("\n")[0]
    return line if normalised(line) else None


def grade(doc: Document, text: str) -> GradedAnswer:
    """Right where the first line holds the expected word, so that a chat model may answer in a sentence."""
    prediction = extract(doc, text)
    return graded(text, prediction, normalised(doc["answer"]) in normalised(prediction or "").split())


def training(n: int, seed: int) -> tuple[str, list[dict[str, str]]]:
    """The questions in their training wordings."""
    return "mini_facts (train)", sample(items("train"), n, seed)


def example(doc: Document) -> Example:
    """The bare question with its one-word answer."""
    return Example(doc["question"], doc["answer"])


TASK = Task(
    name="mini_facts",
    summary="closed-book questions, one word each",
    kind="general",
    metric="exact_match",
    folder=Path(__file__).parent,
    max_new_tokens=16,
    items=232,
    documents=documents,
    calibration=partial(worked, training, example),
    distractors=partial(others, "mini_facts"),
    grade=grade,
    extract=extract,
    training=TrainingItems(documents=training, example=example, items=1392),
    off_target=("mini_math",),
)
load, process_results = TASK.load, TASK.process_results  # for the YAML
