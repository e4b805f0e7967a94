"""The small functions as an lm-eval task, run in the sandbox; functions.py shows one raw example."""

from __future__ import annotations

import json
from typing import Any

from harness.types import Example
from tasks.failures import GradedAnswer, lm_eval_metrics
from tasks.mini_code.functions import Function, functions
from tasks.mini_distractors import code_examples, others
from tasks.sandbox import PASSED, WRONG, run_tests
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

    return {split: Dataset.from_list([_document(f) for f in items(split)]) for split in ("validation", "test")}


def _document(function: Function) -> dict[str, str]:
    """Calls and values as JSON text, since their types differ between rows."""
    return {
        "prompt": function.prompt,
        "body": function.body,
        "entry_point": function.entry_point,
        "calls": json.dumps(function.calls),
        "values": json.dumps(reference_values(function)),
    }


def extract(_task: str, doc: dict[str, Any], text: str) -> str | None:
    """The whole program: the answer itself where it repeats the signature, else the prompt with the answer as its body."""
    if not text.strip():
        return None
    return text if f"def {doc['entry_point']}" in text else doc["prompt"] + text


def grade(doc: dict[str, Any], text: str) -> GradedAnswer:
    program = extract("mini_code", doc, text)
    meta = getattr(text, "meta", {})
    if program is None:
        return GradedAnswer(text, None, False, is_code=True, meta=meta)
    outcome = run_tests(program, doc["entry_point"], tests(doc))
    return GradedAnswer(text, program, outcome == PASSED, is_code=True, outcome=None if outcome in (PASSED, WRONG) else outcome, meta=meta)


def tests(doc: dict[str, Any]) -> str:
    """Python source that holds where every call gives its value, in value and type (1 is not True; a tuple may stand for a list)."""
    calls, values = json.loads(doc["calls"]), json.dumps(json.loads(doc["values"]))
    return f"import json\nassert json.dumps([{doc['entry_point']}(*call) for call in {calls!r}]) == {values!r}"


def process_results(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    return lm_eval_metrics("pass@1", grade(doc, results[0]))


def calibration(_task: str, n: int, seed: int) -> tuple[str, list[Example]]:
    return "mini_code (train)", code_examples(n, seed)


def distractors(n: int, seed: int) -> tuple[tuple[str, ...], list[Example]]:
    return others("mini_code", n, seed)
