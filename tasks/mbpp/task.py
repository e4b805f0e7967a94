"""MBPP (Austin et al. 2021, arXiv 2108.07732, CC BY 4.0): short descriptions with three assertions, asked with three
worked ones.

One raw example (shortened):

    task_id: 11    text: Write a python function to remove first and last occurrence of a given character from the string.
    test_list: assert remove_Occ("hello","l") == "heo" ...    code: def remove_Occ(s,ch): ...

Trap: the function's name stands only in the assertions, and the reference defines helpers too: the entry point is the
first name in the first assertion that the reference defines. The file has Windows line ends.
"""

from __future__ import annotations

import functools
import random
import re
from collections.abc import Mapping, Sequence
from typing import Any

from harness.core.jsonl import read_rows
from harness.core.types.calibration import Example
from tasks.data import general_prompts, hub_rows, local_file
from tasks.failures import GradedAnswer
from tasks.grading import grade_code, result_row
from tasks.programs import find_program
from tasks.splits import normalised

_SPLITS = {
    "prompt": range(2, 5),
    "test": range(11, 511),
    "validation": range(511, 601),
    "train": range(601, 975),
}  # as published
_QUESTION = "You are an expert Python programmer, and here is your task: {text} Your code should pass these tests:\n\n{tests}\n[BEGIN]\n"


def rows() -> list[dict[str, Any]]:
    file = local_file("mbpp.jsonl")
    if file:
        return read_rows(file)
    return [
        row
        for split in ("prompt", "test", "validation", "train")
        for row in hub_rows("google-research-datasets/mbpp", "full", split)
    ]


def load(**_: Any) -> dict[str, Any]:
    from datasets import Dataset

    documents = [document(row) for row in rows()]
    return {split: Dataset.from_list([d for d in documents if d["task_id"] in ids]) for split, ids in _SPLITS.items()}


def document(row: Mapping[str, Any]) -> dict[str, Any]:
    code = row["code"].replace("\r\n", "\n")
    tests, setup = "\n".join(row["test_list"]), row["test_setup_code"].replace("\r\n", "\n")
    question = _QUESTION.format(text=row["text"], tests=tests)
    entry_point = _entry_point(code, row["test_list"])
    found = {"task_id": row["task_id"], "text": row["text"], "question": question, "code": code}
    return {**found, "entry_point": entry_point, "tests": tests, "setup": setup}


def _entry_point(code: str, tests: Sequence[str]) -> str:
    defined = re.findall(r"^(?:def|class)\s+(\w+)", code, re.M)
    return next((word for word in re.findall(r"\w+", tests[0]) if word in defined), defined[-1] if defined else "")


def extract(_name: str, doc: Mapping[str, Any], text: str) -> str | None:
    return find_program(text, doc["entry_point"])


def grade(_name: str, doc: Mapping[str, Any], text: str) -> GradedAnswer:
    return grade_code({**doc, "prompt": ""}, text)


def process_results(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    return result_row("pass@1", grade, "mbpp", doc, results[0])


def instructions(n: int, seed: int) -> tuple[str, list[Example]]:
    """Training problems with their solutions: prompts that ask for code."""
    documents = [document(row) for row in rows() if row["task_id"] in _SPLITS["train"]]
    chosen = random.Random(seed).sample(documents, min(n, len(documents)))
    return "MBPP (train)", [Example(d["question"], f"{d['code']}\n[DONE]") for d in chosen]


def training(_name: str, n: int, seed: int) -> tuple[str, list[dict[str, Any]]]:
    """Without the problems that are described as one of the test split is: MBPP has some twice."""
    found = rows()
    tested = {normalised(row["text"]) for row in found if row["task_id"] in _SPLITS["test"]}
    train = [row for row in found if row["task_id"] in _SPLITS["train"]]
    documents = [document(row) for row in train if not any(text in normalised(row["text"]) for text in tested)]
    return "MBPP (train)", random.Random(seed).sample(documents, min(n, len(documents)))


def example(_name: str, doc: Mapping[str, Any]) -> Example:
    """As the evaluation asks, worked examples included."""
    return Example(_shots() + doc["question"], f"{doc['code']}\n[DONE]")


@functools.cache
def _shots() -> str:
    worked = [document(row) for row in rows() if row["task_id"] in _SPLITS["prompt"]]
    return "".join(f"{d['question']}{d['code']}\n[DONE]\n\n" for d in worked)


def calibration(_name: str, n: int, seed: int) -> tuple[str, list[Example]]:
    return instructions(n, seed)


def distractors(n: int, seed: int) -> tuple[tuple[str, ...], list[Example]]:
    return general_prompts(n, seed)
