"""HumanEval+ and MBPP+ (EvalPlus, Liu et al. 2023, arXiv 2305.01210, Apache 2.0): the problems of HumanEval and of the
sanitised MBPP with many more inputs. The files are EvalPlus's own, in the folder HARNESS_DATA_DIR.

One raw example (shortened):

    task_id: Mbpp/2    entry_point: similar_elements    atol: 0
    prompt:  \"\"\" Write a function to find the shared elements ... assert set(similar_elements((3, 4), (4, 5))) == ...
    canonical_solution: def similar_elements(test_tup1, test_tup2): ...    base_input: [[[3, 4], [4, 5]], ...]
    plus_input: ...

Trap: the files hold no outputs. What is expected is what the canonical solution gives, which runs in the sandbox too.
"""

from __future__ import annotations

import re
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any

from harness.core.errors import UsageError
from harness.core.jsonl import numbered_rows
from harness.core.types.calibration import Example
from tasks.data import EVALPLUS_HUMANEVAL, EVALPLUS_MBPP, evalplus_file
from tasks.evalplus.inputs import example_in, packed_inputs
from tasks.grading import Document, extract_code, grade_code
from tasks.mbpp.task import instructions
from tasks.task import Task

_TEST = (
    "from tasks.evalplus.judge import judge as _judge\n_judge({name}, {name!r}, reference_cases, {atol!r}, {as_sets!r})"
)
_TEXTS = ("task_id", "prompt", "entry_point", "canonical_solution")


def humaneval_documents() -> dict[str, list[dict[str, Any]]]:
    """HumanEval+; an answer may be the rest of the prompt's function."""
    return {"test": _documents(EVALPLUS_HUMANEVAL, completes=True)}


def mbpp_documents() -> dict[str, list[dict[str, Any]]]:
    """MBPP+; an answer is a whole function."""
    return {"test": _documents(EVALPLUS_MBPP, completes=False)}


def _documents(pattern: str, completes: bool) -> list[dict[str, Any]]:
    """The problems of an EvalPlus file.

    Args:
        pattern: the file's name in HARNESS_DATA_DIR.
        completes: whether an answer may be the rest of the prompt's function.

    Raises:
        UsageError: there is no such file, it is not trusted, or a row is not in EvalPlus's form.
    """
    file = evalplus_file(pattern)
    return [_document(row, f"{file}, line {number}", completes) for number, row in numbered_rows(file)]


def _document(row: Document, where: str, completes: bool) -> dict[str, Any]:
    _check_row(row, where)
    name, asked = row["entry_point"], row["prompt"]
    example = example_in(asked, name)
    inputs = packed_inputs([*row["base_input"], *row["plus_input"]], example)
    if not inputs:
        raise UsageError(f"{where} has no input that can be handed to a program; take the row out")
    return {
        "task_id": row["task_id"],
        "question": asked,
        "prompt": asked if completes else "",
        "entry_point": name,
        "reference": f"{asked}{row['canonical_solution']}",
        "inputs": inputs,
        "tests": _TEST.format(name=name, atol=float(row["atol"]), as_sets=example.as_sets),
    }


def _check_row(row: Document, where: str) -> None:
    """Raises UsageError: parts of the row become the source of a test, which runs outside the sandbox."""
    atol = row.get("atol")
    good = (
        all(isinstance(row.get(name), str) for name in _TEXTS)
        and re.fullmatch(r"[A-Za-z]+/\d{1,9}", row["task_id"])
        and re.fullmatch(r"[A-Za-z_]\w{0,99}", row["entry_point"], re.A)
        and isinstance(atol, int | float)
        and 0 <= atol < 1
        and all(isinstance(row.get(name), list) for name in ("base_input", "plus_input"))
        and all(isinstance(given, list) for given in chain(row["base_input"], row["plus_input"]))
    )
    if not good:
        raise UsageError(
            f"{where} is not in EvalPlus's form: task_id, prompt, entry_point, canonical_solution, base_input, "
            "plus_input, atol; get the file again"
        )


def mbpp_prompts(n: int, seed: int) -> tuple[str, list[Example]]:
    """MBPP's training problems without those that EvalPlus tests."""
    tested = {int(row["task_id"].rpartition("/")[2]) for row in _documents(EVALPLUS_MBPP, completes=False)}
    return instructions(n, seed, tested=tested)


HUMANEVAL_PLUS = Task(
    name="humaneval_plus",
    summary="HumanEval+ (EvalPlus), functions asked for in chat",
    kind="code",
    metric="pass@1",
    folder=Path(__file__).parent,
    max_new_tokens=512,
    items=164,
    documents=humaneval_documents,
    calibration=instructions,  # HumanEval has no training split
    grade=grade_code,
    extract=extract_code,
    code_files=(EVALPLUS_HUMANEVAL, "mbpp.jsonl"),
    id_prefixes=("HumanEval",),
    question=itemgetter("question"),
)
MBPP_PLUS = Task(
    name="mbpp_plus",
    summary="MBPP+, EvalPlus's edition of MBPP with other tests",
    kind="code",
    metric="pass@1",
    folder=Path(__file__).parent,
    max_new_tokens=512,
    items=378,
    documents=mbpp_documents,
    calibration=mbpp_prompts,
    grade=grade_code,
    extract=extract_code,
    code_files=(EVALPLUS_MBPP, "mbpp.jsonl"),
    id_prefixes=("Mbpp",),
    question=itemgetter("question"),
)
load_humaneval, load_mbpp = HUMANEVAL_PLUS.load, MBPP_PLUS.load  # for the YAML files
process_results = HUMANEVAL_PLUS.process_results  # both are graded alike
