"""WikiText-2, raw, test split (Merity et al. 2016, arXiv 1609.07843, CC BY-SA), one document an article, as lm-eval's `wikitext`.

One raw example (an article's beginning):

     = Robert Boulter = \n \n Robert Boulter is an English film , television and theatre actor . He had a guest @-@ starring role ...
"""

from __future__ import annotations

import random
from typing import Any

from harness.core.types.calibration import Example
from tasks.data import general_prompts, hub_rows, local_file
from tasks.splits import Split
from tasks.wikitext.articles import articles, halves


def pages(split: Split) -> list[str]:
    """From the Hub every article; of a local test file, whose other half stands in for general prompts, every second
    one.
    """
    file = local_file("wikitext2_test.txt") if split == "test" else None
    if file:
        return halves(articles(file.read_text(encoding="utf-8").splitlines()))[0]
    return articles(row["text"] for row in hub_rows("Salesforce/wikitext", "wikitext-2-raw-v1", split))


def load(**_: Any) -> dict[str, Any]:
    from datasets import Dataset

    return {"test": Dataset.from_list([{"page": page} for page in pages("test")])}


def text(doc: dict[str, str]) -> str:
    """The article as ordinary text, by lm-eval's own rules, so that the figures compare with everybody's."""
    from lm_eval.tasks.wikitext.preprocess_wikitext import wikitext_detokenizer

    return str(wikitext_detokenizer(doc))


def process(doc: dict[str, str], results: list[float]) -> dict[str, tuple[float, int]]:
    return {"bits_per_byte": (results[0], len(doc["page"].encode()))}


def calibration(_task: str, n: int, seed: int) -> tuple[str, list[Example]]:
    found = pages("train")
    return "WikiText-2 (train)", [
        Example("", page[:4000]) for page in random.Random(seed).sample(found, min(n, len(found)))
    ]


def distractors(n: int, seed: int) -> tuple[tuple[str, ...], list[Example]]:
    return general_prompts(n, seed)
