"""From answers to verdicts, the same way in a run, in stock lm-eval and in `harness grade`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from tasks.failures import GradedAnswer, lm_eval_metrics
from tasks.programs import find_program
from tasks.sandbox import PASSED, WRONG, run_tests

# a task module's grade(): the task's name, one document, the answer as a str that may carry `meta`
Grade = Callable[[str, Mapping[str, Any], str], GradedAnswer]


def grade_code(doc: Mapping[str, Any], text: str) -> GradedAnswer:
    """doc: `entry_point`, `tests` (Python source), `prompt` where the answer may go on with it, `setup` run behind the
    program.
    """
    meta = getattr(text, "meta", {})
    program = find_program(text, doc["entry_point"], doc.get("prompt", ""), meta.get("finish_reason") == "length")
    if program is None:
        return GradedAnswer(text, None, False, is_code=True, meta=meta)
    outcome = run_tests("\n".join((program, doc.get("setup") or "")), doc["entry_point"], doc["tests"])
    return GradedAnswer(
        text,
        program,
        outcome == PASSED,
        is_code=True,
        outcome=None if outcome in (PASSED, WRONG) else outcome,
        meta=meta,
    )


def result_row(metric: str, grade: Grade, name: str, doc: Mapping[str, Any], text: str) -> dict[str, float]:
    """What process_results returns; a verdict that is on its way already (Grader) is waited for."""
    return lm_eval_metrics(metric, verdict(grade, name, doc, text))


def verdict(grade: Grade, name: str, doc: Mapping[str, Any], text: str) -> GradedAnswer:
    coming: Future[GradedAnswer] | None = getattr(text, "verdict", None)
    return coming.result() if coming is not None else grade(name, doc, text)


class Grader:
    """Grades answers in the background while others are still generated: programs run in as many sandboxes as there are
    cores.
    """

    def __init__(self) -> None:
        self.threads = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="grader")

    def submit(self, grade: Grade, name: str, doc: Mapping[str, Any], text: str) -> Future[GradedAnswer]:
        return self.threads.submit(grade, name, doc, text)

    def __enter__(self) -> Grader:
        return self

    def __exit__(self, *exception: object) -> None:
        self.threads.shutdown(cancel_futures=True)


def grade_all(grade: Grade, name: str, pairs: Iterable[tuple[Mapping[str, Any], str]]) -> Iterator[GradedAnswer]:
    """In the order of `pairs`."""
    with Grader() as grader:
        yield from [future.result() for future in [grader.submit(grade, name, doc, text) for doc, text in pairs]]
