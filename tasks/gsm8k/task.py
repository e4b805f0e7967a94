"""GSM8K (Cobbe et al. 2021, arXiv 2110.14168, MIT licence): boxed for chat models, few-shot for base models, answers to
be scored.

One raw example (answer shortened):

    question: Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May. ...
    answer:   Natalia sold 48/2 = <<48/2=24>>24 clips in May. ... #### 72
"""

from __future__ import annotations

import functools
import math
import random
import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from harness.core.jsonl import read_rows
from harness.core.types.calibration import Example
from tasks.answers import boxes, hashes, statements
from tasks.data import hub_rows, local_file
from tasks.grading import Document, extract_number, grade_number
from tasks.splits import PAPER_SOURCE, Split, paper_split, sample
from tasks.task import Task, TrainingItems, worked

SYSTEM = "Please reason step by step, and put your final answer within \\boxed{}."
_PAPER_SYSTEM = f"{SYSTEM.rstrip('.')} on the last line."
_PAPER_SEED, _PAPER_HELD_OUT = 42, 0.1  # of the split for training
_PLATINUM_FILE = "gsm8k_platinum_test.jsonl"
_SHOTS = 4  # as in gsm8k_cot.yaml
_SPLITS: tuple[Split, ...] = ("train", "test")
_CALCULATOR = re.compile(r"<<[^>]*>>")


def rows(split: Split) -> list[dict[str, Any]]:
    """The data set's own rows."""
    name = f"gsm8k_{split}.jsonl"
    file = local_file(name)
    return read_rows(file) if file else hub_rows("openai/gsm8k", "main", split, name)


def platinum_rows() -> list[dict[str, Any]]:
    """GSM8K-Platinum's own rows (Vendrow et al. 2025, arXiv 2502.03461): the test split with its labels checked and
    ambiguous items left out.
    """
    file = local_file(_PLATINUM_FILE)
    return read_rows(file) if file else hub_rows("madrylab/gsm8k-platinum", "main", "test", _PLATINUM_FILE)


def documents() -> dict[str, list[dict[str, str]]]:
    """Both splits; the worked examples of gsm8k_cot are the first of "train"."""
    return {split: [_document(row) for row in rows(split)] for split in _SPLITS}


def platinum_documents() -> dict[str, list[dict[str, str]]]:
    """GSM8K's training split and the test split of GSM8K-Platinum."""
    return {"train": [_document(row) for row in rows("train")], "test": [_document(row) for row in platinum_rows()]}


def _document(row: dict[str, Any]) -> dict[str, str]:
    return {
        "question": row["question"],
        "solution": _CALCULATOR.sub("", row["answer"]),
        "answer": row["answer"].rpartition("####")[2].strip(),
    }


def process_answers(_doc: Document, results: list[tuple[float, bool]]) -> dict[str, tuple[float, float]]:
    """(log likelihood, tokens) of the worked answer; the tokens are unknown to engines that do not say them."""
    log_likelihood = results[0][0] if isinstance(results[0], tuple) else results[0]
    return {"perplexity": (log_likelihood, getattr(log_likelihood, "n_tokens", math.nan))}


def scored(n: int, seed: int) -> tuple[str, list[dict[str, str]]]:
    """Training problems with their solutions, the worked examples among them."""
    return "GSM8K (train)", sample([_document(row) for row in rows("train")], n, seed)


def paper_scored(n: int, seed: int) -> tuple[str, list[dict[str, str]]]:
    """`scored` out of the rows that the paper's scripts score."""
    kept, _ = paper_split(rows("train"), "math")
    return f"GSM8K (train), {PAPER_SOURCE}", [_document(row) for row in sample(kept, n, seed)]


def _asked_in_chat(question: str, solution: str) -> Example:
    return Example(question, solution, system=SYSTEM)


def chat_example(doc: Document) -> Example:
    """The solution as the data set has it."""
    return _asked_in_chat(doc["question"], doc["solution"])


def training(n: int, seed: int) -> tuple[str, list[dict[str, str]]]:
    """Of the training split, without the items that are in every few-shot prompt."""
    return "GSM8K (train)", sample([_document(row) for row in rows("train")][_SHOTS:], n, seed)


def paper_training(n: int, seed: int) -> tuple[str, list[dict[str, str]]]:
    """The 90 % of the training split that the paper's scripts train on, calculator marks kept."""
    unique: dict[str, dict[str, Any]] = {}
    for row in rows("train"):
        unique.setdefault(row["question"].strip(), row)
    found = list(unique.values())
    random.Random(_PAPER_SEED).shuffle(found)
    kept = found[: len(found) - round(_PAPER_HELD_OUT * len(found))]
    return "GSM8K (train), 90 %", sample([{**_document(row), "solution": row["answer"]} for row in kept], n, seed)


def boxed_example(doc: Document) -> Example:
    """The answer in the form that the system prompt asks for."""
    steps = doc["solution"].rpartition("####")[0].strip()
    return _asked_in_chat(doc["question"], f"{steps}\nThe final answer is \\boxed{{{doc['answer']}}}.")


def paper_example(doc: Document) -> Example:
    """The question and the box as the paper's scripts train them; the frame around both is the trainer's."""
    steps = doc["solution"].rpartition("####")[0].strip()
    return Example(doc["question"], f"{steps}\n\n\\boxed{{{doc['answer']}}}\n", system=_PAPER_SYSTEM)


def cot_example(doc: Document) -> Example:
    """The prompt begins with the worked examples."""
    plain = plain_example(doc)
    return replace(plain, prompt=_shots() + plain.prompt)


def plain_example(doc: Document) -> Example:
    """Question and worked answer alone."""
    return Example(f"Question: {doc['question']}\nAnswer:", f" {doc['solution']}")


@functools.cache
def _shots() -> str:
    worked = [plain_example(_document(row)) for row in rows("train")[:_SHOTS]]
    return "".join(f"{e.prompt}{e.answer}\n\n" for e in worked)


# the form that the prompt asks for first; another explicit mark counts where that is missing
_BOXES_FIRST, _HASHES_FIRST = (boxes, hashes, statements), (hashes, boxes, statements)
_ITEMS, _PLATINUM_ITEMS, _TRAINING_ITEMS, _PAPER_TRAINING_ITEMS = 1319, 1209, 7469, 6726
_PAPER = TrainingItems(documents=paper_training, example=paper_example, items=_PAPER_TRAINING_ITEMS)
_FOLDER = Path(__file__).parent
BOXED = Task(
    name="gsm8k_boxed",
    summary="GSM8K, the paper's chat prompt, \\boxed",
    kind="math",
    metric="exact_match",
    folder=_FOLDER,
    max_new_tokens=1024,
    items=_ITEMS,
    documents=documents,
    calibration=partial(worked, scored, chat_example),
    paper_calibration=partial(worked, paper_scored, chat_example),
    grade=partial(grade_number, _BOXES_FIRST),
    extract=partial(extract_number, _BOXES_FIRST),
    training=TrainingItems(documents=training, example=boxed_example, items=_TRAINING_ITEMS, paper=_PAPER),
    paper_items=_FOLDER / "paper_items.json",
)
COT = replace(
    BOXED,
    name="gsm8k_cot",
    summary="GSM8K, 4-shot, #### answers",
    max_new_tokens=256,
    calibration=partial(worked, scored, plain_example),
    paper_calibration=partial(worked, paper_scored, plain_example),
    grade=partial(grade_number, _HASHES_FIRST),
    extract=partial(extract_number, _HASHES_FIRST),
    training=TrainingItems(documents=training, example=cot_example, items=_TRAINING_ITEMS, paper=_PAPER),
)
ANSWERS = replace(
    COT,
    name="gsm8k_answers",
    summary="perplexity of GSM8K's worked answers",
    metric="perplexity",
    max_new_tokens=512,
    grade=None,
    extract=None,
    training=TrainingItems(documents=training, example=plain_example, items=_TRAINING_ITEMS, paper=_PAPER),
)
PLATINUM_BOXED = replace(
    BOXED,
    name="gsm8k_platinum_boxed",
    summary="GSM8K Platinum (checked labels), \\boxed",
    items=_PLATINUM_ITEMS,
    documents=platinum_documents,
    paper_items=None,
)
PLATINUM_COT = replace(
    COT,
    name="gsm8k_platinum_cot",
    summary="GSM8K Platinum (checked labels), 4-shot",
    items=_PLATINUM_ITEMS,
    documents=platinum_documents,
    paper_items=None,
)
load, load_platinum = BOXED.load, PLATINUM_BOXED.load  # these for the YAML files
process_boxed, process_cot = BOXED.process_results, COT.process_results
