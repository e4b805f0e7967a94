"""What test items of the embedded tasks share with tiny-math's training: `python benchmarks/overlap.py --out
docs/overlap.json`.

No text, no template with the same numbers and no equation chain is shared (tests/tasks/test_mini_tasks.py). This counts
what is: calculations that differ only in the order of a sum or product, single steps, functions but for their number.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import click

import harness.embedded
from harness.core.bounded_read import read_json_object
from harness.embedded.corpus import TrainingExample, examples
from tasks.mini_code.task import items as functions
from tasks.mini_math.task import items as problems

_STEP = re.compile(r"\d+[-+*/]\d+=\d+")
_TRAINING = Path(harness.embedded.__file__).parent / "tiny-math" / "training.json"


@click.command()
@click.option("--out", type=click.Path(path_type=Path), help="JSON file to write.")
def main(out: Path | None) -> None:
    text = json.dumps(overlap(), indent=1)
    click.echo(text)
    if out:
        out.write_text(text + "\n", encoding="utf-8")


def overlap() -> dict[str, dict[str, int]]:
    """How many of the test's chains (up to a+b = b+a), single steps and functions (but for their number) are shared."""
    settings = read_json_object(_TRAINING)["config"]
    trained = list(islice(examples(settings["seed"]), settings["steps"] * settings["examples_per_step"]))
    return {"chains": _chains(trained), "steps": _steps(trained), "functions": _functions(trained)}


def _chains(trained: Sequence[TrainingExample]) -> dict[str, int]:
    known = {_unordered(_STEP.findall(example.answer)) for example in trained if example.kind == "math"}
    tested = [_unordered(problem.steps) for problem in problems("test")]
    return {"shared": sum(chain in known for chain in tested), "of": len(tested)}


def _unordered(steps: Sequence[str]) -> tuple[str, ...]:
    return tuple(_sorted(step) for step in steps)


def _sorted(step: str) -> str:
    left, result = step.split("=")
    sign = next(sign for sign in "+-*/" if sign in left)
    numbers = left.split(sign)
    return f"{sign.join(sorted(numbers) if sign in '+*' else numbers)}={result}"


def _steps(trained: Sequence[TrainingExample]) -> dict[str, int]:
    """With the single sums that are drilled in training."""
    known = {step for example in trained if example.kind == "drill" for step in _STEP.findall(example.answer)}
    tested = [step for problem in problems("test") for step in problem.steps]
    return {"shared": sum(step in known for step in tested), "of": len(tested)}


def _functions(trained: Sequence[TrainingExample]) -> dict[str, int]:
    known = {_without_numbers(example.prompt) for example in trained if example.kind == "code"}
    tested = [_without_numbers(function.prompt) for function in functions("test")]
    return {"shared": sum(prompt in known for prompt in tested), "of": len(tested)}


def _without_numbers(text: str) -> str:
    return re.sub(r"\d+", "0", text)


if __name__ == "__main__":
    main()
