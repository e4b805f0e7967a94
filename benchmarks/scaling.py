"""How the CPU time of extractors and detectors grows from 100 kB to 1 MB of adversarial and repeated text; the aim is
at most 12 times.

python benchmarks/scaling.py
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import click

from tasks.answers import boxes, final_answer, hashes, statements
from tasks.degeneration import is_loop
from tasks.gibberish import is_gibberish
from tasks.programs import find_program

SMALL, LARGE = 100_000, 1_000_000
_RANDOM = random.Random(0)
TEXTS = {
    "boxes": "\\boxed{",
    "closed boxes": "\\boxed{1}",
    "braces": "{",
    "hashes": "#### ",
    "statements": "A: 1\n",
    "numbers": "1,",
    "digits": "9",
    "fractions": "\\frac{",
    "equations": "x=",
    "lines": "\n",
    "fences": "```\n",
    "fenced code": "```python\nx = 1\n```\n",
    "names": "a\n",
    "definitions": "def add(a, b):\n    return a\n",
    "open definitions": "def add(\n",
    "brackets": "(",
    "square brackets": "[\n",
    "minus signs": "-",
    "attributes": "x.a",
    "sums": "1+",
    "quotes": '"""\n',
    "decorators": "@x\n",
    "nulls": "\x00",
    "indented": "    x = 1\n",
    "words": "the cat ",
    "two letters": "ab",
    "replacement characters": "\ufffd",
    "spaces": " ",
    "block quotes": "> ",
    "prompts of an interpreter": ">>> add(\n",
    "tags": "[PYTHON]def add(\n",
    "words before code": "The code is: def add ",
    "spans": "`def add(a): return a`\n",
    "one-line fences": "1. ```python def add(a): return a ```\n",
    "branches": "if a:\n    add = max\n",
    "scripts": "сад apple ספר ",
    "colour codes": "\x1b[",
    "bullets": "\uf0b7 ",
    "turns": "<|im_start|>user\n",
    "questions": "Question 2:\n",
    "marks without a number": "####\n",
    "keys": '{"answer": ',
    "open angles": "<1",
    "small fractions": "½",
    "powers of ten": "10^",
    "wide digits": "１，",
    "prose": "The answer is that there are 3 apples, and so on. ",
}
WAYS: dict[str, Callable[[str], object]] = {
    "answer": lambda text: (
        final_answer(text, (boxes, hashes, statements)),
        final_answer(text, (boxes, hashes, statements), True),
    ),
    "program": lambda text: (find_program(text, "add"), find_program(text, "add", "def add(a, b):\n")),
    "loop": lambda text: [is_loop(text, None, reason) for reason in (None, "stop", "length")],
    "gibberish": is_gibberish,
}


def texts(size: int) -> dict[str, str]:
    found = {name: (unit * (size // len(unit) + 1))[:size] for name, unit in TEXTS.items()}
    found["random letters"] = "".join(_RANDOM.choice("abcdef ghi\n") for _ in range(size))
    found["random characters"] = "".join(chr(_RANDOM.randrange(32, 0x3000)) for _ in range(size))
    return found


def seconds(way: Callable[[str], object], text: str, repeats: int = 3) -> float:
    best = float("inf")
    for _ in range(repeats):
        started = time.process_time()
        way(text)
        best = min(best, time.process_time() - started)
    return best


@click.command()
@click.option(
    "--floor",
    default=0.005,
    show_default=True,
    help="Seconds that a small text counts at least; below that a clock sees noise.",
)
def main(floor: float) -> None:
    small, large = texts(SMALL), texts(LARGE)
    worst = []
    for name in small:
        for way, function in WAYS.items():
            before, after = seconds(function, small[name]), seconds(function, large[name])
            worst.append((after / max(before, floor), way, name, before, after))
    for ratio, way, name, before, after in sorted(worst, reverse=True)[:10]:
        click.echo(f"{way} on {name}: {1000 * before:.1f} ms, then {1000 * after:.1f} ms, {ratio:.1f} times")
    click.echo(f"worst of {len(worst)}: {max(worst)[0]:.1f} times")


if __name__ == "__main__":
    main()
