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


@pytest.fixture()
def data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    monkeypatch.setenv("HARNESS_DATA_DIR", str(folder))
    return make_data_folder(folder)


@pytest.fixture(scope="session")
def reference_texts() -> list[str]:
    """Answers that are right: HumanEval's (from its package), the embedded tasks', and GSM8K's and MBPP's where they
    are at hand.
    """
    from tasks.humaneval.task import rows as humaneval_rows
    from tasks.mini_code.task import items as code_items

    found = [row["canonical_solution"] for row in humaneval_rows()] + [p.solution for p in items("test")]
    found += [function.prompt + function.body for function in code_items("test")]
    folder = os.environ.get("HARNESS_DATA_DIR")
    for name, field in (("gsm8k_test", "answer"), ("gsm8k_train", "answer"), ("mbpp", "code")) if folder else ():
        found += [json.loads(line)[field] for line in (Path(folder) / f"{name}.jsonl").read_text().splitlines()]
    return found
