"""The small functions as an lm-eval task, run in the sandbox; functions.py shows one raw example."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import islice
from typing import Any

from harness.core.types.calibration import Example
from tasks.failures import GradedAnswer
from tasks.grading import grade_code, result_row
from tasks.mini_code.functions import Function, functions
from tasks.mini_distractors import code_examples, others
from tasks.programs import find_program
from tasks.splits import Split

SIZE = 150


def items(split: Split, n: int = SIZE) -> list[Function]:
    """The first `n` functions of a split's stream, each family and constant once."""
    unique: dict[str, Function] = {}
    for function in functions(split):
        unique.setdefault(function.key, function)
        if len(unique) == n:
            return list(unique.values())
    raise AssertionError("functions() is endless")


def reference_values(function: Function) -> list[Any]:
    """What our own reference returns for each call; this is our code, so it runs here."""
    space: dict[str, Any] = {}
    exec(function.prompt + function.body, space)
    return [space[function.entry_point](*call) for call in function.calls]


def load(**_: Any) -> dict[str, Any]:
    from datasets import Dataset

    return {split: Dataset.from_list([document(f) for f in items(split)]) for split in ("validation", "test")}


def document(function: Function) -> dict[str, str]:
    return {
        "prompt": function.prompt,
        "body": function.body,
        "entry_point": function.entry_point,
        "tests": _tests(function),
    }


def _tests(function: Function) -> str:
    """Python source that holds where every call gives its value, in value and type (1 is not True; a tuple may stand
    for a list).
    """
    calls, values = list(function.calls), json.dumps(reference_values(function))
    return f"import json\nassert json.dumps([{function.entry_point}(*call) for call in {calls!r}]) == {values!r}"


def extract(_name: str, doc: Mapping[str, Any], text: str) -> str | None:
    return find_program(text, doc["entry_point"], doc["prompt"])


def grade(_name: str, doc: Mapping[str, Any], text: str) -> GradedAnswer:
    return grade_code(doc, text)


def process_results(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    return result_row("pass@1", grade, "mini_code", doc, results[0])


def calibration(_task: str, n: int, seed: int) -> tuple[str, list[Example]]:
    return "mini_code (train)", code_examples(n, seed)


def training(_name: str, n: int, seed: int) -> tuple[str, list[dict[str, str]]]:
    """The stream has no end, so there are as many as are asked for."""
    return "mini_code (train)", [document(function) for function in islice(functions("train", seed), n)]


def example(_name: str, doc: Mapping[str, str]) -> Example:
    return Example(doc["prompt"], doc["body"])


def distractors(n: int, seed: int) -> tuple[tuple[str, ...], list[Example]]:
    return others("mini_code", n, seed)
