"""Data sets of others: from HARNESS_DATA_DIR where it is set, else from the Hub. None of them is part of this
project.
"""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

from harness.core.errors import UsageError
from harness.core.jsonl import read_rows
from harness.core.types.calibration import Example
from tasks.splits import sample, split_of
from tasks.wikitext.articles import articles, halves

DATA_DIR = "HARNESS_DATA_DIR"


def local_file(name: str) -> Path | None:
    """The path of a file in HARNESS_DATA_DIR; None if the variable is unset.

    Raises:
        UsageError: the variable is set and the file is missing.
    """
    folder = os.environ.get(DATA_DIR)
    if not folder:
        return None
    path = Path(folder) / name
    if not path.exists():
        raise UsageError(f"{path} is missing; put it there, or unset {DATA_DIR} to use the Hub")
    return path


def hub_rows(dataset: str, config: str | None, split: str) -> list[dict[str, Any]]:
    """All rows of one split of a Hub data set.

    Args:
        dataset: Hub id.
        config: the name of its configuration, None for the only one.
        split: such as "train".

    Raises:
        UsageError: it cannot be loaded; says how to do without the network.
    """
    from datasets import load_dataset

    try:
        return list(load_dataset(dataset, config, split=split))
    except Exception as error:  # the libraries below raise many kinds for one cause: not reachable
        raise UsageError(
            f"{dataset} cannot be loaded from the Hub ({type(error).__name__}); set {DATA_DIR} to a local copy"
        ) from error


def general_prompts(n: int, seed: int) -> tuple[tuple[str, ...], list[Example]]:
    """Distractors as in the paper: half SQuAD questions, half everyday conversations, or local stand-ins for them.

    Returns:
        The names of both sources, and up to `n` prompts.

    Raises:
        UsageError: a data set cannot be loaded.
    """
    rng = random.Random(seed)
    questions = local_file("bbh_general.jsonl")
    if questions is None:
        first, second = _squad(), _conversations()
        names = ("SQuAD", "everyday-Conversational-cleaned")
    else:
        rows = [Example(row["input"], str(row["target"])) for row in read_rows(questions)]
        first = [row for row in rows if split_of(row.prompt) == "train"]
        second = [Example("", text) for text in paragraphs()]
        names = ("BIG-Bench-Hard inputs (stand-in)", "WikiText-2 (stand-in)")
    return names, rng.sample(first, min(n - n // 2, len(first))) + rng.sample(second, min(n // 2, len(second)))


def _squad() -> list[Example]:
    rows = hub_rows("rajpurkar/squad", None, "train")
    return [Example(f"{row['context']}\n{row['question']}", row["answers"]["text"][0]) for row in rows]


def _conversations() -> list[Example]:
    rows = hub_rows("suriya7/everyday-Conversational-cleaned", None, "train")
    return [Example("", " ".join(str(value) for value in row.values())) for row in rows]


def plain_texts(n: int, seed: int) -> tuple[tuple[str, ...], list[Example]]:
    """Distractors without questions, for tasks that are such questions themselves: up to `n` paragraphs."""
    return ("WikiText-2",), sample([Example("", text) for text in paragraphs()], n, seed)


def paragraphs(shortest: int = 200, longest: int = 1500) -> list[str]:
    """Of WikiText-2: the local articles that the task `wikitext` does not evaluate, else the training split."""
    file = local_file("wikitext2_test.txt")
    if file:
        _, ours = halves(articles(file.read_text(encoding="utf-8").splitlines()))
    else:
        ours = articles(row["text"] for row in hub_rows("Salesforce/wikitext", "wikitext-2-raw-v1", "train"))
    return [line.strip()[:longest] for page in ours for line in page.splitlines() if len(line) >= shortest]
