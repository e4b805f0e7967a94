"""From answers to verdicts, the same way in a run, in stock lm-eval and in `harness grade`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from tasks.answers import Finder, final_answer
from tasks.failures import GradedAnswer, lm_eval_metrics
from tasks.generation import Generation, without_reasoning
from tasks.jail.cell import Limits
from tasks.numbers import same_number
from tasks.programs import find_program
from tasks.sandbox import PASSED, WRONG, Reference, run_tests

Document = Mapping[str, Any]  # one item of a data set, in the form that its task gives it
_LONG = Limits(wall_s=120.0, cpu_s=30)  # for hundreds of inputs
Grade = Callable[[Document, str], GradedAnswer]  # the answer is a str, with `meta` where the engine said more


def graded(text: str, prediction: str | None, correct: bool) -> GradedAnswer:
    """The verdict on an answer that is not code, with what the engine said about the answer."""
    return GradedAnswer(text, prediction, correct, meta=_meta(text))


def extract_number(finders: Sequence[Finder], _doc: Document, text: str) -> str | None:
    """The final answer of a worked solution, by the first of `finders` that has one; None where there is none."""
    return final_answer(text, finders, _is_truncated(text))


def grade_number(finders: Sequence[Finder], doc: Document, text: str) -> GradedAnswer:
    """Right where the final answer is the number in the document's `answer`."""
    prediction = extract_number(finders, doc, text)
    return graded(text, prediction, same_number(prediction, doc["answer"]))


def extract_code(doc: Document, text: str) -> str | None:
    """The program in an answer; None where there is none.

    Args:
        doc: `entry_point`, the function that is asked for; `prompt`, where the answer may continue it; `stop`, which
            ends an answer: what a model wrote behind it is another item.
        text: the answer.
    """
    stop = doc.get("stop")
    kept, ended, _ = text.partition(stop) if stop else (text, "", "")
    if not ended or not kept.strip():
        kept, ended = text, ""
    return find_program(kept, doc["entry_point"], doc.get("prompt", ""), _is_truncated(text) and not ended)


def grade_code(doc: Document, text: str) -> GradedAnswer:
    """Runs the program in an answer with the document's tests, in the sandbox.

    Args:
        doc: as for `extract_code`; `tests`, Python source; `setup`, where given, runs after the program; `reference`
            and `inputs`, where the tests compare with a right program's outputs (`tasks.sandbox.Reference`).
        text: the answer.

    Raises:
        MeasurementError: this machine has no sandbox.
    """
    program = extract_code(doc, text)
    if program is None:
        return GradedAnswer(text, None, False, is_code=True, meta=_meta(text))
    source, reference = "\n".join((program, doc.get("setup") or "")), None
    if doc.get("reference"):
        reference = Reference(doc["reference"], doc["inputs"])
    limits = _LONG if reference else Limits()
    outcome = run_tests(source, doc["entry_point"], doc["tests"], limits, reference)
    return GradedAnswer(
        text,
        program,
        outcome == PASSED,
        is_code=True,
        outcome=None if outcome in (PASSED, WRONG) else outcome,
        meta=_meta(text),
        missing_module=outcome.missing_module,
    )


def _meta(text: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = getattr(text, "meta", {})
    return found


def _is_truncated(text: str) -> bool:
    return _meta(text).get("finish_reason") == "length"


def result_row(metric: str, grade: Grade, doc: Document, text: str) -> dict[str, float]:
    """What lm-eval's process_results returns for one answer: the metric and fail_<kind>."""
    return lm_eval_metrics(metric, verdict(grade, doc, text))


def verdict(grade: Grade, doc: Document, text: str) -> GradedAnswer:
    """The verdict on an answer, without the reasoning before it; waits where a Grader has already begun."""
    pending: Future[GradedAnswer] | None = getattr(text, "verdict", None)
    if pending is not None:
        return pending.result()
    return grade(doc, text if isinstance(text, Generation) else without_reasoning(text, {}))


class Grader:
    """Grades answers in the background while others are still generated, programs in one sandbox per CPU core."""

    def __init__(self) -> None:
        self.threads = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="grader")

    def submit(self, grade: Grade, doc: Document, text: str) -> Future[GradedAnswer]:
        """Starts grading an answer; the Future raises what `grade` raises."""
        return self.threads.submit(grade, doc, text)

    def __enter__(self) -> Grader:
        return self

    def __exit__(self, *exception: object) -> None:
        self.threads.shutdown(cancel_futures=True)


def grade_all(grade: Grade, pairs: Iterable[tuple[Document, str]]) -> Iterator[GradedAnswer]:
    """The verdicts on (document, answer) pairs, in their order."""
    with Grader() as grader:
        yield from [future.result() for future in [grader.submit(grade, doc, text) for doc, text in pairs]]
