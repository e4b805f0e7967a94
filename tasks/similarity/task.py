"""What pruning did to everything else: questions and conversation answered by both models, and how alike the answers
are.

One raw example:

    kind: qna    question: Is the following sentence plausible? "Elias Lindholm beat the buzzer."

The paper's off-target control (arXiv 2604.27115): BERTScore F1 on questions, SBERT cosine on conversation, against the
dense model's own answers. There is no reference answer in the data; harness/evaluation/similarity.py compares once both
models have answered.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from harness.core.types.calibration import Example
from tasks.bbh.task import rows as bbh_rows
from tasks.data import general_prompts, hub_rows, local_file, paragraphs
from tasks.failures import GradedAnswer
from tasks.grading import result_row
from tasks.splits import split_of

EACH = 100  # items of each kind
_SEED = 42


def load(**_: Any) -> dict[str, Any]:
    from datasets import Dataset

    chosen = [
        (kind, text)
        for kind, texts in (("qna", _questions()), ("conversation", _openings()))
        for text in _sample(texts)
    ]
    return {"test": Dataset.from_list([{"kind": kind, "question": text} for kind, text in chosen])}


def _sample(texts: list[str]) -> list[str]:
    return random.Random(_SEED).sample(texts, min(EACH, len(texts)))


def _questions() -> list[str]:
    """SQuAD's validation questions with their context; local stand-in: the BIG-Bench-Hard items that bbh_general
    evaluates.
    """
    if local_file("bbh_general.jsonl"):
        return [row["input"] for row in bbh_rows() if split_of(row["input"]) == "test"]
    return [f"{row['context']}\n{row['question']}" for row in hub_rows("rajpurkar/squad", None, "validation")]


def _openings() -> list[str]:
    """First turns of everyday conversations; local stand-in: beginnings of encyclopedia paragraphs to talk about."""
    if local_file("wikitext2_test.txt"):
        return [f"Let us talk about this. {text[:200]}" for text in paragraphs()]
    rows = hub_rows("suriya7/everyday-Conversational-cleaned", None, "train")
    return [str(next(iter(row.values()))) for row in rows]


def extract(_name: str, _doc: Mapping[str, Any], text: str) -> str | None:
    return text.strip() or None


def grade(name: str, doc: Mapping[str, Any], text: str) -> GradedAnswer:
    """No answer is right or wrong here; the failure kinds of any text still count."""
    return GradedAnswer(text, extract(name, doc, text), True, meta=getattr(text, "meta", {}))


def process_results(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """The similarity itself needs the other model's answers, so stock lm-eval sees the failure kinds alone."""
    row = result_row("similarity", grade, "similarity", doc, results[0])
    return {key: value for key, value in row.items() if key != "similarity"}


def calibration(_name: str, n: int, seed: int) -> tuple[str, list[Example]]:
    """The general questions: similarity is a control, rarely a target."""
    sources, examples = general_prompts(4 * n, seed)
    return sources[0], [example for example in examples if example.prompt][:n]


def distractors(n: int, seed: int) -> tuple[tuple[str, ...], list[Example]]:
    texts = [Example("", text) for text in paragraphs()]
    return ("WikiText-2",), random.Random(seed).sample(texts, min(n, len(texts)))
