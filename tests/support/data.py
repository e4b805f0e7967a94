"""A data folder in the format of GSM8K and of the general prompts, made of the project's own generated problems."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tasks.mini_facts.facts import facts
from tasks.mini_facts.texts import texts
from tasks.mini_math.problems import Problem
from tasks.mini_math.task import items


def row(problem: Problem) -> dict[str, str]:
    """With GSM8K's calculator marks: 1+2=<<1+2=3>>3."""
    marked = problem.solution
    for step in problem.steps:
        left, value = step.split("=")
        marked = marked.replace(step, f"{left}=<<{step}>>{value}")
    return {"question": problem.question, "answer": marked}


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(value) + "\n" for value in rows))


def make_data_folder(folder: Path) -> Path:
    write_jsonl(folder / "gsm8k_train.jsonl", [row(p) for p in items("validation", 60)])
    write_jsonl(folder / "gsm8k_test.jsonl", [row(p) for p in items("test", 20)])
    write_jsonl(folder / "gsm8k_platinum_test.jsonl", [row(p) for p in items("test", 20)[:15]])
    write_jsonl(
        folder / "bbh_general.jsonl", [{"input": fact.wordings("train")[0], "target": fact.answer} for fact in facts()]
    )
    stream = texts("train", 0)
    paragraphs = [" ".join(next(stream) for _ in range(8)) for _ in range(40)]
    pairs = list(zip(paragraphs[::2], paragraphs[1::2], strict=True))
    pages = [
        f" = Page {i} = \n\n {first} \n {second} \n\n = = Part = = \n\n {first} \n"
        for i, (first, second) in enumerate(pairs)
    ]
    (folder / "wikitext2_test.txt").write_text("\n".join(pages) + "\n")
    return folder


def write_evalplus_files(folder: Path) -> None:
    """Problems of our own in EvalPlus's form, in files that are called like EvalPlus's."""
    shared = {
        "task_id": "Mbpp/2",
        "prompt": '"""\nFind what both tuples have.\nassert set(share((3, 4),(4, 5))) == set((4,))\n"""\n',
        "entry_point": "share",
        "canonical_solution": "\ndef share(a, b):\n    return tuple({*a} & {*b}) if isinstance(a, tuple) else 1 / 0\n",
        "base_input": [[[3, 4], [4, 5]]],
        "plus_input": [[[1, 2, 3], [3, 2]], [[], [1]]],
        "contract": "\n  assert a\n",
        "atol": 0,
    }
    half = {
        **shared,
        "task_id": "Mbpp/12",
        "prompt": '"""\nWrite a function to halve.\nassert half(3) == 1.5\n"""\n',
        "entry_point": "half",
        "canonical_solution": "\ndef half(x):\n    return x / 3 * 1.5\n",
        "base_input": [[3]],
        "plus_input": [[number] for number in range(50)] + [["no number"]],
    }
    add = {
        **shared,
        "task_id": "HumanEval/0",
        "prompt": 'def add(x, y):\n    """Gives the sum."""\n',
        "entry_point": "add",
        "canonical_solution": "    return x + y\n",
        "base_input": [[1, 2]],
        "plus_input": [[1.5, 2]],
    }
    write_jsonl(folder / "MbppPlus-v0.2.0.jsonl", [shared, half])
    write_jsonl(folder / "HumanEvalPlus-v0.1.10.jsonl", [add])


needs_data = pytest.mark.skipif(
    "HARNESS_DATA_DIR" not in os.environ, reason="HARNESS_DATA_DIR is not set, GSM8K is not at hand"
)


PLATINUM = ("gsm8k_platinum_boxed", "gsm8k_platinum_cot")  # may not be in HARNESS_DATA_DIR; test_gsm8k.py
EVALPLUS = ("humaneval_plus", "mbpp_plus")  # from EvalPlus's files, which nobody downloads here
OURS = ("mini_math", "mini_facts", "mini_code")
