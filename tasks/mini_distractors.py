"""Examples of the embedded corpora; as distractors questions and plain texts, like the paper's QnA and
conversation.
"""

from __future__ import annotations

from itertools import islice

from harness.core.types.calibration import Example
from tasks.mini_code.functions import functions
from tasks.mini_facts.facts import facts
from tasks.mini_facts.texts import texts
from tasks.mini_math.problems import problems
from tasks.splits import sample


def math_examples(n: int, seed: int) -> list[Example]:
    """The first `n` word problems of the training stream."""
    return [Example(p.question, p.solution) for p in islice(problems("train", seed), n)]


def code_examples(n: int, seed: int) -> list[Example]:
    """The first `n` functions of the training stream."""
    return [Example(f.prompt, f.body) for f in islice(functions("train", seed), n)]


def fact_examples(n: int, seed: int) -> list[Example]:
    """Up to `n` questions in their training wordings."""
    pairs = [Example(wording, fact.answer) for fact in facts() for wording in fact.wordings("train")]
    return sample(pairs, n, seed)


def text_examples(n: int, seed: int) -> list[Example]:
    """The first `n` plain texts of the training stream: no prompt, the text as answer."""
    return [Example("", text) for text in islice(texts("train", seed), n)]


SOURCES = {
    "mini_math": math_examples,
    "mini_code": code_examples,
    "mini_facts": fact_examples,
    "mini_texts": text_examples,
}


def others(task: str, n: int, seed: int) -> tuple[tuple[str, ...], list[Example]]:
    """`n` distractors, half and half: questions and texts, or texts and word problems where the questions are the
    task.
    """
    names = ("mini_texts", "mini_math") if task == "mini_facts" else ("mini_facts", "mini_texts")
    parts = [SOURCES[name](n // 2 + (i < n % 2), seed) for i, name in enumerate(names)]
    return names, [example for part in parts for example in part]
