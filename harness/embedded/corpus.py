"""What the embedded model is trained on: a stream of examples mixed from the project's own generators."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from tasks.mini_code.functions import functions
from tasks.mini_facts.facts import facts
from tasks.mini_facts.texts import texts
from tasks.mini_math.problems import problems

# kind -> (share of the examples, weight of an answer token in the loss); facts have two-token answers, so they weigh
# more
MIXTURE = {"math": (0.46, 1.0), "drill": (0.16, 1.0), "facts": (0.18, 4.0), "text": (0.07, 0.3), "code": (0.13, 1.0)}


@dataclass(frozen=True)
class TrainingExample:
    kind: str
    prompt: str  # empty for a plain text
    answer: str


def examples(seed: int = 0) -> Iterator[TrainingExample]:
    """An endless training stream; nothing of it belongs to the validation or test split of any task."""
    rng = random.Random(f"corpus {seed}")
    streams = {
        "math": (TrainingExample("math", p.question, p.solution) for p in problems("train", seed)),
        "drill": _drills(random.Random(f"drill {seed}")),
        "facts": _facts(random.Random(f"facts {seed}")),
        "text": (TrainingExample("text", "", text) for text in texts("train", seed)),
        "code": (TrainingExample("code", f.prompt, f.body) for f in functions("train", seed)),
    }
    kinds, shares = list(MIXTURE), [share for share, _ in MIXTURE.values()]
    while True:
        yield next(streams[rng.choices(kinds, shares)[0]])


def _drills(rng: random.Random) -> Iterator[TrainingExample]:
    """Four single sums such as 12+5=17: chains of one step, which no word problem has."""
    while True:
        sums = [_sum(rng) for _ in range(4)]
        prompt = "\n".join(left for left, _ in sums)
        yield TrainingExample("drill", prompt, "\n".join(f"{left}={right}." for left, right in sums))


def _sum(rng: random.Random) -> tuple[str, int]:
    """A sum, difference, product or exact quotient with all numbers from 1 to 99."""
    while True:
        sign = rng.choice("+++----**//")
        x, y = (rng.randint(1, 19), rng.randint(1, 12)) if sign in "*/" else (rng.randint(1, 98), rng.randint(1, 98))
        left, right = {"+": (x, x + y), "-": (x, x - y), "*": (x, x * y), "/": (x * y, x)}[sign]
        if 1 <= right <= 99 and left <= 99:
            return f"{left}{sign}{y}", right


def _facts(rng: random.Random) -> Iterator[TrainingExample]:
    known = facts()
    while True:
        fact = rng.choice(known)
        yield TrainingExample("facts", rng.choice(fact.wordings("train")), fact.answer)
