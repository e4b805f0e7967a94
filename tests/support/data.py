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


needs_data = pytest.mark.skipif(
    "HARNESS_DATA_DIR" not in os.environ, reason="HARNESS_DATA_DIR is not set, GSM8K is not at hand"
)


OURS = ("mini_math", "mini_facts", "mini_code")
