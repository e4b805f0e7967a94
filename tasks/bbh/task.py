"""General questions out of BIG-Bench Hard (Suzgun et al. 2022, arXiv 2210.09261, MIT licence): the control beside a
target task.

One raw example: input: Is the following sentence plausible? "Elias Lindholm beat the buzzer."    target: no

Eight tasks that need neither code nor arithmetic. A tenth of the items, by the hash of their text, is evaluated; the
rest may serve as distractors, so that nothing evaluated is ever calibrated on.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from typing import Any

from harness.core.jsonl import read_rows
from harness.core.types.calibration import Example
from tasks.data import hub_rows, local_file, paragraphs
from tasks.failures import GradedAnswer
from tasks.grading import result_row
from tasks.splits import Split, normalised, split_of

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
    file = local_file("bbh_general.jsonl")
    if file:
        return read_rows(file)
    return [row for task in _TASKS for row in hub_rows("lukaemon/bbh", task, "test")]


def load(**_: Any) -> dict[str, Any]:
    from datasets import Dataset

    return {"test": Dataset.from_list(_documents("test"))}


def _documents(split: Split) -> list[dict[str, str]]:
    return [
        {"question": row["input"], "answer": str(row["target"])} for row in rows() if split_of(row["input"]) == split
    ]


def extract(_name: str, _doc: Mapping[str, Any], text: str) -> str | None:
    """What follows "the answer is", else the first line: its option letter, or its words."""
    stated = _STATED.findall(text)
    line = (stated[-1] if stated else text.strip().partition("\n")[0]).strip()
    option = _OPTION.search(line) or re.fullmatch(r"([A-Z])[.)]?.{0,200}", line)
    if option and (option[0].startswith("(") or line[1:2] in ("", ".", ")")):
        return f"({option[1]})"
    return normalised(line) or None


def grade(name: str, doc: Mapping[str, Any], text: str) -> GradedAnswer:
    """An option by its letter, yes and no and the like by the first word."""
    prediction = extract(name, doc, text)
    target = doc["answer"]
    correct = (
        prediction == target if _OPTION.fullmatch(target) else (prediction or "").split(" ")[0] == normalised(target)
    )
    return GradedAnswer(text, prediction, correct, meta=getattr(text, "meta", {}))


def process_results(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    return result_row("exact_match", grade, "bbh_general", doc, results[0])


def calibration(_name: str, n: int, seed: int) -> tuple[str, list[Example]]:
    source, chosen = training(_name, n, seed)
    return source, [Example(d["question"], d["answer"]) for d in chosen]


def training(_name: str, n: int, seed: int) -> tuple[str, list[dict[str, str]]]:
    documents = _documents("train")
    return "BIG-Bench Hard (what is not evaluated)", random.Random(seed).sample(documents, min(n, len(documents)))


def example(_name: str, doc: Mapping[str, str]) -> Example:
    return Example(f"Q: {doc['question']}\nA:", f" {doc['answer']}", system=_SYSTEM)


def distractors(n: int, seed: int) -> tuple[tuple[str, ...], list[Example]]:
    """Plain texts: the general prompts' questions would be the task itself."""
    texts = [Example("", text) for text in paragraphs()]
    return ("WikiText-2",), random.Random(seed).sample(texts, min(n, len(texts)))
