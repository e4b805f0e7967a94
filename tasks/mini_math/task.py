"""The word problems as an lm-eval task; problems.py shows one raw example."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any

from harness.core.types.calibration import Example
from tasks.answers import boxes, final_answer, hashes, same_number, statements
from tasks.failures import GradedAnswer
from tasks.grading import result_row
from tasks.mini_distractors import math_examples, others
from tasks.mini_math.problems import Problem, problems
from tasks.splits import Split

SIZE = 500


def items(split: Split, n: int = SIZE) -> list[Problem]:
    """The first `n` different problems of a split's stream."""
    unique: dict[str, Problem] = {}
    for problem in problems(split):
        unique.setdefault(problem.question, problem)
        if len(unique) == n:
            return list(unique.values())
    raise AssertionError("problems() is endless")


def load(**_: Any) -> dict[str, Any]:
    from datasets import Dataset

    return {split: Dataset.from_list([_document(p) for p in items(split)]) for split in ("validation", "test")}


def _document(problem: Problem) -> dict[str, str]:
    return {"question": problem.question, "solution": problem.solution, "answer": str(problem.answer)}


def extract(_name: str, _doc: Mapping[str, Any], text: str) -> str | None:
    return final_answer(text, (hashes, boxes, statements), getattr(text, "meta", {}).get("finish_reason") == "length")


def grade(name: str, doc: Mapping[str, Any], text: str) -> GradedAnswer:
    prediction = extract(name, doc, text)
    return GradedAnswer(text, prediction, same_number(prediction, doc["answer"]), meta=getattr(text, "meta", {}))


def process_results(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    return result_row("exact_match", grade, "mini_math", doc, results[0])


def calibration(_task: str, n: int, seed: int) -> tuple[str, list[Example]]:
    return "mini_math (train)", math_examples(n, seed)


def training(_name: str, n: int, seed: int) -> tuple[str, list[dict[str, str]]]:
    """The stream has no end, so there are as many as are asked for."""
    return "mini_math (train)", [_document(problem) for problem in islice(problems("train", seed), n)]


def example(_name: str, doc: Mapping[str, str]) -> Example:
    return Example(doc["question"], doc["solution"])


def distractors(n: int, seed: int) -> tuple[tuple[str, ...], list[Example]]:
    return others("mini_math", n, seed)
