"""General questions out of BIG-Bench Hard (Suzgun et al. 2022, arXiv 2210.09261, MIT licence): the control beside a
target task.

One raw example: input: Is the following sentence plausible? "Elias Lindholm beat the buzzer."    target: no

Eight tasks that need neither code nor arithmetic. A tenth of the items, by the hash of their text, is evaluated; the
rest may serve as distractors, so that nothing evaluated is ever calibrated on.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

from harness.core.jsonl import read_rows
from harness.core.types.calibration import Example
from tasks.data import hub_rows, local_file, plain_texts
from tasks.failures import GradedAnswer
from tasks.grading import Document, graded
from tasks.splits import Split, normalised, sample, split_of
from tasks.task import Task, TrainingItems, worked

_TASKS = (
    "disambiguation_qa",
    "sports_understanding",
    "movie_recommendation",
    "ruin_names",
    "hyperbaton",
    "causal_judgement",
    "snarks",
    "penguins_in_a_table",
)
_SYSTEM = "Answer with the option's letter in parentheses, or in one word, and nothing else."  # as in the YAML
_OPTION = re.compile(r"\(([A-Z])\)")
_STATED = re.compile(r"answer is:?[ \t]*([^\n]{1,200})", re.I)


def rows() -> list[dict[str, Any]]:
    """The items of the eight tasks, with `input` and `target`."""
    file = local_file("bbh_general.jsonl")
    if file:
        return read_rows(file)
    return [row for task in _TASKS for row in hub_rows("lukaemon/bbh", task, "test", "bbh_general.jsonl")]


def documents() -> dict[str, list[dict[str, str]]]:
    """The test split: a tenth of the items."""
    return {"test": _documents("test")}


def _documents(split: Split) -> list[dict[str, str]]:
    return [
        {"question": row["input"], "answer": str(row["target"])} for row in rows() if split_of(row["input"]) == split
    ]


def extract(_doc: Document, text: str) -> str | None:
    """What follows "the answer is", else the first line: its option letter, or its words."""
    stated = _STATED.findall(text)
    line = (stated[-1] if stated else text.strip().partition("\n")[0]).strip()
    option = _OPTION.search(line) or re.fullmatch(r"([A-Z])[.)]?.{0,200}", line)
    if option and (option[0].startswith("(") or line[1:2] in ("", ".", ")")):
        return f"({option[1]})"
    return normalised(line) or None


def grade(doc: Document, text: str) -> GradedAnswer:
    """An option by its letter, yes and no and the like by the first word."""
    prediction, target = extract(doc, text), doc["answer"]
    if _OPTION.fullmatch(target):
        return graded(text, prediction, prediction == target)
    return graded(text, prediction, (prediction or "").split(" ")[0] == normalised(target))


def training(n: int, seed: int) -> tuple[str, list[dict[str, str]]]:
    """The nine tenths that are not evaluated."""
    return "BIG-Bench Hard (what is not evaluated)", sample(_documents("train"), n, seed)


def bare_example(doc: Document) -> Example:
    """The question alone, for calibration."""
    return Example(doc["question"], doc["answer"])


def example(doc: Document) -> Example:
    """As the evaluation asks, with the answer in the form that the system prompt asks for."""
    return Example(f"Q: {doc['question']}\nA:", f" {doc['answer']}", system=_SYSTEM)


TASK = Task(
    name="bbh_general",
    summary="general questions out of BIG-Bench Hard",
    kind="general",
    metric="exact_match",
    folder=Path(__file__).parent,
    max_new_tokens=64,
    items=182,
    documents=documents,
    calibration=partial(worked, training, bare_example),
    distractors=plain_texts,  # the questions of the general prompts would be the task itself
    grade=grade,
    extract=extract,
    training=TrainingItems(documents=training, example=example, items=1394),
)
load, process_results = TASK.load, TASK.process_results  # for the YAML
