"""`harness grade`: answers made anywhere, by any system, graded by the same code as a run; no model, no network but for
the data set.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.core.errors import UsageError
from harness.core.jsonl import numbered_rows, write_rows
from harness.core.out_place import check_file
from harness.core.progress import progress_bar
from harness.core.types.evaluation import SIMILARITY, SampleRecord
from harness.evaluation.samples import graded_record
from harness.evaluation.summary import summarise
from tasks import sandbox
from tasks.data import trusting
from tasks.failures import FINISH_REASONS
from tasks.generation import Generation, without_reasoning
from tasks.grading import grade_all
from tasks.registry import find_task
from tasks.task import Task

Named = tuple[int | None, Mapping[str, Any]]
_MOST_ROWS = 1_000_000
_TEXTS = ("text", "completion", "solution")


@dataclass(frozen=True)
class Row:
    """One line of the input: which item it answers, and how."""

    doc_id: int | None  # in the test split
    ids: Mapping[str, Any]  # as given
    doc: Mapping[str, Any]
    text: Generation


@dataclass(frozen=True)
class GradeSummary:
    """What `harness grade` prints: an EvalResult (harness/core/types/evaluation.py) of the answers in a file.

    Attributes:
        accuracy: The same as `value`.
        sandbox: How model-written code was contained; None for tasks without code.
    """

    task: str
    accuracy: float
    n: int
    metric: str
    value: float
    ci_low: float | None
    ci_high: float | None
    failures: Mapping[str, float | None]
    failure_rate: float | None
    tokens_per_answer: float | None
    trap_rate: float | None
    wrong_by_kind: Mapping[str, float]
    failure_low: float | None
    failure_high: float | None
    sandbox: str | None


def grade_file(task_name: str, source: Path, out: Path | None, trust_data: bool = False) -> GradeSummary:
    """Grades each row of a JSON Lines file.

    Args:
        task_name: The task that was answered.
        source: Rows with `task_id` or `doc_id`, `text` (or `completion`, `solution`), optional `finish_reason`,
            `n_tokens` and `prompt_truncated`.
        out: The sample rows to write, in the same order.
        trust_data: Also with a data file whose tests are not the published ones.

    Raises:
        UsageError: A row cannot be graded; the message names its line.
        MeasurementError: Code cannot be contained here.
    """
    if out:
        check_file(out)
    task = find_task(task_name)
    if task.grade is None or task.metric == SIMILARITY:
        raise UsageError(
            f"{task.name} needs a model's likelihoods or another model's answers; there is nothing to grade"
        )
    with trusting(trust_data):
        rows = list(itertools.islice(_rows(task, source), _MOST_ROWS + 1))
    if not rows:
        raise UsageError(f"{source} holds no rows")
    if len(rows) > _MOST_ROWS:
        raise UsageError(f"{source} holds more than {_MOST_ROWS} rows; split the file")
    graded = []
    with progress_bar(f"Grading {len(rows)} answers to {task.name}", len(rows)) as advance:
        for answer in grade_all(task.grade, [(row.doc, row.text) for row in rows]):
            graded.append(answer)
            advance(1)
    records = [graded_record(row.doc_id, _prompt(row.doc), answer) for row, answer in zip(rows, graded, strict=True)]
    if out:
        write_rows(out, ({**row.ids, **asdict(record)} for row, record in zip(rows, records, strict=True)))
    return _summary(task, records)


def _summary(task: Task, records: Sequence[SampleRecord]) -> GradeSummary:
    result = asdict(summarise(task.metric, records, seconds=0.0, samples=""))
    shared = {key: value for key, value in result.items() if key not in ("seconds", "samples", "filter", "metrics")}
    contained = sandbox.confinement().mode if task.kind == "code" else None
    return GradeSummary(task=task.name, accuracy=result["value"], sandbox=contained, **shared)


def _prompt(doc: Mapping[str, Any]) -> str:
    return str(doc.get("question") or doc.get("prompt") or "")


def _rows(task: Task, source: Path) -> Iterator[Row]:
    splits = task.documents()
    test = splits["test"]
    named = {
        _key(doc["task_id"]): (index if split == "test" else None, doc)
        for split, docs in splits.items()
        for index, doc in enumerate(docs)
        if "task_id" in doc
    }
    for number, raw in numbered_rows(source):
        where = f"{source}, line {number}"
        doc_id, doc = _document(raw, test, named, where, task.name)
        ids = {key: raw[key] for key in ("task_id",) if key in raw}
        yield Row(doc_id, ids, doc, _generation(raw, where))


def _key(task_id: Any) -> str:
    """MBPP/11, Mbpp/11 and 11 are one; HumanEval/0 too."""
    return str(task_id).rpartition("/")[2].strip()


def _document(
    raw: Mapping[str, Any], test: Sequence[Mapping[str, Any]], named: Mapping[str, Named], where: str, task: str
) -> Named:
    """By `task_id` where the data set has such names, else by the index in the test split."""
    given = raw.get("task_id", raw.get("doc_id")) if named else raw.get("doc_id", raw.get("task_id"))
    if named and "task_id" in raw:
        if (key := _key(raw["task_id"])) not in named:
            raise UsageError(f"{where}: task_id {raw['task_id']!r} is not an item of {task}")
        return named[key]
    match = (
        re.fullmatch(r"(?:.*[/_])?(\d{1,9})", str(given)) if given is not None and not isinstance(given, bool) else None
    )
    if not match:
        raise UsageError(f"{where} has no usable `task_id` or `doc_id` (the zero-based index in the test split)")
    if int(match[1]) >= len(test):
        raise UsageError(f"{where}: doc_id {given} is outside the {len(test)} items of {task}")
    return int(match[1]), test[int(match[1])]


def _generation(raw: Mapping[str, Any], where: str) -> Generation:
    text = next((raw[key] for key in _TEXTS if isinstance(raw.get(key), str)), None)
    meta = {key: check(raw[key], f"{where}: {key}") for key, check in _META.items() if raw.get(key) is not None}
    if text is None and meta.get("finish_reason") in ("error", "abort"):
        text = ""  # the engine gave nothing
    if text is None:
        raise UsageError(f"{where} has no `text` (or `completion`, `solution`) that is a string")
    return without_reasoning(text, meta)


def _reason(value: Any, where: str) -> str | None:
    """The finish_reason as engines and services spell it; None for an unknown one."""
    if not isinstance(value, str):
        raise UsageError(f"{where} is {value!r}; it must be a word such as stop or length")
    return FINISH_REASONS.get(value.lower())


def _count(value: Any, where: str) -> int:
    if isinstance(value, bool) or not re.fullmatch(r"\d{1,9}", str(value)):
        raise UsageError(f"{where} is {value!r}; it must be a number of tokens")
    return int(value)


def _flag(value: Any, where: str) -> bool:
    if not isinstance(value, bool):
        raise UsageError(f"{where} is {value!r}; it must be true or false")
    return value


_META: dict[str, Callable[[Any, str], Any]] = {"finish_reason": _reason, "n_tokens": _count, "prompt_truncated": _flag}
