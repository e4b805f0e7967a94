"""The closed-book questions as an lm-eval task; facts.py shows one raw example."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from harness.core.types.calibration import Example
from tasks.failures import GradedAnswer
from tasks.grading import result_row
from tasks.mini_distractors import fact_examples, others
from tasks.mini_facts.facts import facts
from tasks.splits import Split, normalised


def items(split: Split) -> list[dict[str, str]]:
    """Every fact in the wording kept for `split`."""
    return [{"question": wording, "answer": fact.answer} for fact in facts() for wording in fact.wordings(split)]


def load(**_: Any) -> dict[str, Any]:
    from datasets import Dataset

    return {split: Dataset.from_list(items(split)) for split in ("validation", "test")}


def extract(_name: str, _doc: Mapping[str, Any], text: str) -> str | None:
    """The first line, where it holds a word."""
    line = text.strip().partition("\n")[0]
    return line if normalised(line) else None


def grade(name: str, doc: Mapping[str, Any], text: str) -> GradedAnswer:
    """Right where the first line holds the expected word, so that a chat model may answer in a sentence."""
    prediction = extract(name, doc, text)
    correct = normalised(doc["answer"]) in normalised(prediction or "").split()
    return GradedAnswer(text, prediction, correct, meta=getattr(text, "meta", {}))


def process_results(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    return result_row("exact_match", grade, "mini_facts", doc, results[0])


def calibration(_task: str, n: int, seed: int) -> tuple[str, list[Example]]:
    return "mini_facts (train)", fact_examples(n, seed)


def training(_name: str, n: int, seed: int) -> tuple[str, list[dict[str, str]]]:
    documents = items("train")
    return "mini_facts (train)", random.Random(seed).sample(documents, min(n, len(documents)))


def example(_name: str, doc: Mapping[str, str]) -> Example:
    return Example(doc["question"], doc["answer"])


def distractors(n: int, seed: int) -> tuple[tuple[str, ...], list[Example]]:
    return others("mini_facts", n, seed)
