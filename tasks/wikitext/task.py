"""WikiText-2, raw, test split (Merity et al. 2016, arXiv 1609.07843, CC BY-SA), one article a document.

The same documents and figures as lm-eval's own `wikitext`.

One raw example (an article's beginning):

     = Robert Boulter = \n \n Robert Boulter is an English film , television and theatre actor . He had ...
"""

from __future__ import annotations

from pathlib import Path

from harness.core.types.calibration import Example
from tasks.data import hub_rows, local_lines
from tasks.grading import Document
from tasks.splits import Split, sample
from tasks.task import Task
from tasks.wikitext.articles import articles, halves

_BEGINNING = 40  # words
_LONGEST = 4000  # characters of an article that is calibrated on


def pages(split: Split) -> list[str]:
    """From the Hub every article; of a local test file, whose other half stands in for general prompts, every second
    one.
    """
    lines = local_lines("wikitext2_test.txt") if split == "test" else None
    if lines is not None:
        return halves(articles(lines))[0]
    rows = hub_rows("Salesforce/wikitext", "wikitext-2-raw-v1", split, "wikitext2_test.txt" if split == "test" else "")
    return articles(row["text"] for row in rows)


def documents() -> dict[str, list[dict[str, str]]]:
    """The test split, one article an item."""
    return {"test": [{"page": page} for page in pages("test")]}


def text(doc: Document) -> str:
    """The article as ordinary text, by lm-eval's own rules, so that the figures compare with everybody's."""
    from lm_eval.tasks.wikitext.preprocess_wikitext import wikitext_detokenizer

    return str(wikitext_detokenizer(doc))


def process(doc: Document, results: list[float]) -> dict[str, tuple[float, int]]:
    """(log likelihood in nats, bytes of UTF-8) of an article."""
    return {"bits_per_byte": (results[0], len(doc["page"].encode()))}


def beginning(doc: Document) -> str:
    """The first words of an article, by which it is recognised in training items."""
    return " ".join(doc["page"].split()[:_BEGINNING])


def calibration(n: int, seed: int) -> tuple[str, list[Example]]:
    """The beginnings of articles of the training split: no prompt, the text as answer."""
    return "WikiText-2 (train)", [Example("", page[:_LONGEST]) for page in sample(pages("train"), n, seed)]


TASK = Task(
    name="wikitext",
    summary="WikiText-2 test, bits per byte",
    kind="general",
    metric="bits_per_byte",
    folder=Path(__file__).parent,
    max_new_tokens=1024,
    items=62,
    documents=documents,
    calibration=calibration,
    question=beginning,
)
load = TASK.load  # for the YAML
