"""WikiText-2, raw, test split (Merity et al. 2016, arXiv 1609.07843, CC BY-SA), one document an article, as lm-eval's `wikitext`.

One raw example (an article's beginning):

     = Robert Boulter = \n \n Robert Boulter is an English film , television and theatre actor . He had a guest @-@ starring role ...
"""

from __future__ import annotations

import re
from typing import Any

from harness.types import Example
from tasks.data import general_prompts, hub_rows, local_file
from tasks.splits import Split

_TITLE = re.compile(r" = [^=].* = ")
_HEADING = re.compile(r" (= )+[^=].*( =)+ ")


def articles(split: Split) -> list[str]:
    """Every article of the split as one text, with a blank line around each heading, as in the raw file."""
    lines = [f" {line.strip()} " for line in _lines(split) if line.strip()]
    starts = [i for i, line in enumerate(lines) if _TITLE.fullmatch(line)]
    return ["".join(_spaced(line) for line in lines[i:j]) for i, j in zip(starts, [*starts[1:], len(lines)], strict=True)]


def _lines(split: Split) -> list[str]:
    file = local_file("wikitext2_test.txt") if split == "test" else None
    if file:
        return file.read_text(encoding="utf-8").splitlines()
    return [row["text"] for row in hub_rows("Salesforce/wikitext", "wikitext-2-raw-v1", split)]


def _spaced(line: str) -> str:
    if _TITLE.fullmatch(line):
        return f"{line}\n \n"
    return f" \n{line}\n \n" if _HEADING.fullmatch(line) else f"{line}\n"


def load(**_: Any) -> dict[str, Any]:
    from datasets import Dataset

    return {"test": Dataset.from_list([{"page": page} for page in articles("test")])}


def text(doc: dict[str, str]) -> str:
    """The article as ordinary text, by lm-eval's own rules, so that the figures compare with everybody's."""
    from lm_eval.tasks.wikitext.preprocess_wikitext import wikitext_detokenizer

    return str(wikitext_detokenizer(doc))


def process(doc: dict[str, str], results: list[float]) -> dict[str, tuple[float, int]]:
    return {"bits_per_byte": (results[0], len(doc["page"].encode()))}


def calibration(_task: str, n: int, seed: int) -> tuple[str, list[Example]]:
    import random

    pages = articles("train")
    return "WikiText-2 (train)", [Example("", page[:4000]) for page in random.Random(seed).sample(pages, min(n, len(pages)))]


def distractors(n: int, seed: int) -> tuple[tuple[str, ...], list[Example]]:
    return general_prompts(n, seed)
