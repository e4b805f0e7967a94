"""What pruning did to everything else: questions and conversation answered by both models, and how alike the answers
are.

One raw example:

    kind: qna    question: Is the following sentence plausible? "Elias Lindholm beat the buzzer."

The paper's off-target control (arXiv 2604.27115): BERTScore F1 on questions, SBERT cosine on conversation, against the
dense model's own answers. There is no reference answer in the data; harness/evaluation/similarity.py compares once both
models have answered.
"""

from __future__ import annotations

from pathlib import Path

from harness.core.types.calibration import Example
from harness.core.types.evaluation import SIMILARITY
from tasks.bbh.task import rows as bbh_rows
from tasks.data import conversations, general_prompts, hub_rows, local_file, paragraphs, plain_texts
from tasks.failures import GradedAnswer
from tasks.grading import Document, graded
from tasks.splits import paper_split, sample, split_of
from tasks.task import Task

EACH = 100  # items of each kind
_SEED = 42


def documents() -> dict[str, list[dict[str, str]]]:
    """The test split: questions (kind "qna") and openings of conversations."""
    chosen = {"qna": sample(_questions(), EACH, _SEED), "conversation": sample(_openings(), EACH, _SEED)}
    return {"test": [{"kind": kind, "question": text} for kind, texts in chosen.items() for text in texts]}


def _questions() -> list[str]:
    """SQuAD's validation questions with their context; local stand-in: the BIG-Bench-Hard items that bbh_general
    evaluates.
    """
    if local_file("bbh_general.jsonl"):
        return [row["input"] for row in bbh_rows() if split_of(row["input"]) == "test"]
    return [
        f"{row['context']}\n{row['question']}"
        for row in hub_rows("rajpurkar/squad", None, "validation", "bbh_general.jsonl")
    ]


def _openings() -> list[str]:
    """Everyday conversations to go on with, those that the paper's split holds out, which are never distractors; local
    stand-in: beginnings of encyclopedia paragraphs to talk about.
    """
    if local_file("wikitext2_test.txt"):
        return [f"Let us talk about this. {text[:200]}" for text in paragraphs()]
    return paper_split(conversations(), "conversations")[1]


def extract(_doc: Document, text: str) -> str | None:
    """The whole answer."""
    return text.strip() or None


def grade(doc: Document, text: str) -> GradedAnswer:
    """No answer is right or wrong here; the failure kinds of any text still count."""
    return graded(text, extract(doc, text), True)


def calibration(n: int, seed: int) -> tuple[str, list[Example]]:
    """The questions among the general prompts: similarity is a control, rarely a target."""
    sources, examples = general_prompts(4 * n, seed)
    return sources[0], [example for example in examples if example.prompt][:n]


TASK = Task(
    name="similarity",
    summary="answers beside the dense model's own",
    kind="general",
    metric=SIMILARITY,
    folder=Path(__file__).parent,
    max_new_tokens=128,
    items=2 * EACH,
    documents=documents,
    calibration=calibration,
    distractors=plain_texts,
    grade=grade,
    extract=extract,
)
load = TASK.load  # this and the next for the YAML


def process_results(doc: Document, results: list[str]) -> dict[str, float]:
    """The similarity itself needs the other model's answers, so stock lm-eval sees the failure kinds alone."""
    return {key: value for key, value in TASK.process_results(doc, results).items() if key != SIMILARITY}
