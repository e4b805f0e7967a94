"""The small functions as an lm-eval task, run in the sandbox; functions.py shows one raw example."""

from __future__ import annotations

import json
from functools import partial
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import Any

from harness.core.types.calibration import Example
from tasks.grading import Document, extract_code, grade_code
from tasks.mini_code.functions import Function, functions
from tasks.mini_distractors import others
from tasks.splits import Split
from tasks.task import Task, TrainingItems, worked

SIZE = 150
_EVALUATED: tuple[Split, ...] = ("validation", "test")


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


def documents() -> dict[str, list[dict[str, str]]]:
    """The validation and the test split."""
    return {split: [document(function) for function in items(split)] for split in _EVALUATED}


def document(function: Function) -> dict[str, str]:
    """A function as an item: its head and docstring, its body, its name, its tests as Python source."""
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


def training(n: int, seed: int) -> tuple[str, list[dict[str, str]]]:
    """The stream has no end, so there are as many as are asked for."""
    return "mini_code (train)", [document(function) for function in islice(functions("train", seed), n)]


def example(doc: Document) -> Example:
    """The function's head with its body."""
    return Example(doc["prompt"], doc["body"])


TASK = Task(
    name="mini_code",
    summary="generated functions, sandboxed",
    kind="code",
    metric="pass@1",
    folder=Path(__file__).parent,
    max_new_tokens=48,
    items=SIZE,
    documents=documents,
    calibration=partial(worked, training, example),
    distractors=partial(others, "mini_code"),
    grade=grade_code,
    extract=extract_code,
    training=TrainingItems(documents=training, example=example, items=None),
    off_target=("mini_math", "mini_facts"),
    question=itemgetter("prompt"),
)
load, process_results = TASK.load, TASK.process_results  # for the YAML
