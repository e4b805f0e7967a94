"""MBPP (Austin et al. 2021, arXiv 2108.07732, CC BY 4.0): short descriptions with three assertions, asked with three
worked ones.

One raw example (shortened):

    task_id: 11    text: Write a python function to remove first and last occurrence of a given character ...
    test_list: assert remove_Occ("hello","l") == "heo" ...    code: def remove_Occ(s,ch): ...

Trap: the function's name stands only in the assertions, and the reference defines helpers too: the entry point is the
first name in the first assertion that the reference defines. The file has Windows line ends.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence, Set
from operator import itemgetter
from pathlib import Path
from typing import Any

from harness.core.jsonl import read_rows
from harness.core.types.calibration import Example
from tasks.data import hub_rows, local_file
from tasks.grading import Document, extract_code, grade_code
from tasks.splits import normalised, sample
from tasks.task import Task, TrainingItems

_SPLITS = {  # task_ids, as published
    "prompt": range(2, 5),
    "test": range(11, 511),
    "validation": range(511, 601),
    "train": range(601, 975),
    "other": (1, *range(5, 11)),  # published with the worked examples, and not used as such
}
_TESTED = frozenset(_SPLITS["test"])
_STOP = "[DONE]"  # as in the YAML
_QUESTION = (
    "You are an expert Python programmer, and here is your task: {text} "
    "Your code should pass these tests:\n\n{tests}\n[BEGIN]\n"
)


def rows() -> list[dict[str, Any]]:
    """The data set's own rows, of all splits."""
    file = local_file("mbpp.jsonl")
    if file:
        return read_rows(file)
    return [
        row
        for split in ("prompt", "test", "validation", "train")
        for row in hub_rows("google-research-datasets/mbpp", "full", split, "mbpp.jsonl")
    ]


def documents() -> dict[str, list[dict[str, Any]]]:
    """The published splits; the worked examples are "prompt"."""
    found = [document(row) for row in rows()]
    return {split: [doc for doc in found if doc["task_id"] in ids] for split, ids in _SPLITS.items()}


def document(row: Document) -> dict[str, Any]:
    """A row as an item, with the function's name and with Unix line ends."""
    code = row["code"].replace("\r\n", "\n")
    tests, setup = "\n".join(row["test_list"]), row["test_setup_code"].replace("\r\n", "\n")
    question = _QUESTION.format(text=row["text"], tests=tests)
    entry_point = _entry_point(code, row["test_list"])
    found = {"task_id": row["task_id"], "text": row["text"], "question": question, "code": code}
    found |= {"entry_point": entry_point, "tests": tests, "test_list": row["test_list"], "setup": setup}
    return {**found, "stop": _STOP}


def _entry_point(code: str, tests: Sequence[str]) -> str:
    defined = re.findall(r"^(?:def|class)\s+(\w+)", code, re.M)
    return next((word for word in re.findall(r"\w+", tests[0]) if word in defined), defined[-1] if defined else "")


def instructions(n: int, seed: int, tested: Set[int] = frozenset()) -> tuple[str, list[Example]]:
    """Training problems with their solutions: prompts that ask for code; none that the task_ids in `tested` ask."""
    chosen = sample(_train(tested), n, seed)
    return "MBPP (train)", [Example(d["question"], f"{d['code']}\n{_STOP}", document=d) for d in chosen]


def training(n: int, seed: int) -> tuple[str, list[dict[str, Any]]]:
    """Training problems that the test split does not ask."""
    return "MBPP (train)", sample(_train(_TESTED), n, seed)


def _train(tested: Set[int]) -> list[dict[str, Any]]:
    """The training problems without those whose description a tested problem has too: MBPP has some twice."""
    found = rows()
    texts = {normalised(row["text"]) for row in found if row["task_id"] in tested}
    train = [row for row in found if row["task_id"] in _SPLITS["train"]]
    return [document(row) for row in train if not any(text in normalised(row["text"]) for text in texts)]


def example(doc: Document) -> Example:
    """As the evaluation asks, worked examples included."""
    return Example(_shots() + doc["question"], f"{doc['code']}\n{_STOP}")


@functools.cache
def _shots() -> str:
    worked = [document(row) for row in rows() if row["task_id"] in _SPLITS["prompt"]]
    return "".join(f"{d['question']}{d['code']}\n{_STOP}\n\n" for d in worked)


TASK = Task(
    name="mbpp",
    summary="MBPP, 3-shot",
    kind="code",
    metric="pass@1",
    folder=Path(__file__).parent,
    max_new_tokens=512,
    items=500,
    documents=documents,
    calibration=functools.partial(instructions, tested=_TESTED),
    grade=grade_code,
    extract=extract_code,
    training=TrainingItems(documents=training, example=example, items=368),
    code_files=("mbpp.jsonl",),
    id_prefixes=("MBPP",),
    question=itemgetter("text"),
)
load, process_results = TASK.load, TASK.process_results  # for the YAML
