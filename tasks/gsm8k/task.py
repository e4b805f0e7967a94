"""GSM8K (Cobbe et al. 2021, arXiv 2110.14168, MIT licence): boxed for chat models, few-shot for base models, answers to
be scored.

One raw example (answer shortened):

    question: Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May. How many ...
    answer:   Natalia sold 48/2 = <<48/2=24>>24 clips in May. ... #### 72
"""

from __future__ import annotations

import functools
import math
import random
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from harness.core.jsonl import read_rows
from harness.core.types.calibration import Example
from tasks.answers import boxes, final_answer, hashes, same_number, statements
from tasks.data import general_prompts, hub_rows, local_file
from tasks.failures import GradedAnswer
from tasks.grading import result_row
from tasks.splits import Split

SYSTEM = "Please reason step by step, and put your final answer within \\boxed{}."
_SHOTS = 4  # as in gsm8k_cot.yaml
_CALCULATOR = re.compile(r"<<[^>]*>>")


def rows(split: Split) -> list[dict[str, Any]]:
    file = local_file(f"gsm8k_{split}.jsonl")
    return read_rows(file) if file else hub_rows("openai/gsm8k", "main", split)


def load(**_: Any) -> dict[str, Any]:
    from datasets import Dataset

    return {split: Dataset.from_list([_document(row) for row in rows(split)]) for split in ("train", "test")}


def _document(row: dict[str, Any]) -> dict[str, str]:
    return {
        "question": row["question"],
        "solution": _CALCULATOR.sub("", row["answer"]),
        "answer": row["answer"].rpartition("####")[2].strip(),
    }


# the asked form first; another explicit mark counts where that is missing
FINDERS = {"gsm8k_boxed": (boxes, hashes, statements), "gsm8k_cot": (hashes, boxes, statements)}


def extract(name: str, _doc: Mapping[str, Any], text: str) -> str | None:
    return final_answer(text, FINDERS[name], getattr(text, "meta", {}).get("finish_reason") == "length")


def grade(name: str, doc: Mapping[str, Any], text: str) -> GradedAnswer:
    prediction = extract(name, doc, text)
    return GradedAnswer(text, prediction, same_number(prediction, doc["answer"]), meta=getattr(text, "meta", {}))


def process_boxed(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    return result_row("exact_match", grade, "gsm8k_boxed", doc, results[0])


def process_cot(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    return result_row("exact_match", grade, "gsm8k_cot", doc, results[0])


def process_answers(_doc: dict[str, Any], results: list[tuple[float, bool]]) -> dict[str, tuple[float, float]]:
    """(log likelihood, tokens) of the worked answer; the tokens are unknown to engines that do not say them."""
    log_likelihood = results[0][0] if isinstance(results[0], tuple) else results[0]
    return {"perplexity": (log_likelihood, getattr(log_likelihood, "n_tokens", math.nan))}


def calibration(task: str, n: int, seed: int) -> tuple[str, list[Example]]:
    documents = [_document(row) for row in rows("train")]
    chosen = random.Random(seed).sample(documents, min(n, len(documents)))
    return "GSM8K (train)", [_example(task, d["question"], d["solution"]) for d in chosen]


def _example(task: str, question: str, solution: str) -> Example:
    """In the frame of the task's YAML, without the worked examples."""
    if task == "gsm8k_boxed":
        return Example(question, solution, system=SYSTEM)
    return Example(f"Question: {question}\nAnswer:", f" {solution}")


def training(_name: str, n: int, seed: int) -> tuple[str, list[dict[str, str]]]:
    """Of the training split, but for the items that stand in every few-shot prompt."""
    documents = [_document(row) for row in rows("train")][_SHOTS:]
    return "GSM8K (train)", random.Random(seed).sample(documents, min(n, len(documents)))


def example(name: str, doc: Mapping[str, str]) -> Example:
    """As the evaluation asks, worked examples included, with the answer in the asked form."""
    if name == "gsm8k_boxed":
        steps = doc["solution"].rpartition("####")[0].strip()
        return Example(doc["question"], f"{steps}\nThe final answer is \\boxed{{{doc['answer']}}}.", system=SYSTEM)
    plain = _example(name, doc["question"], doc["solution"])
    return replace(plain, prompt=_shots() + plain.prompt) if name == "gsm8k_cot" else plain


@functools.cache
def _shots() -> str:
    worked = [_example("gsm8k_cot", d["question"], d["solution"]) for d in map(_document, rows("train")[:_SHOTS])]
    return "".join(f"{e.prompt}{e.answer}\n\n" for e in worked)


def distractors(n: int, seed: int) -> tuple[tuple[str, ...], list[Example]]:
    return general_prompts(n, seed)
