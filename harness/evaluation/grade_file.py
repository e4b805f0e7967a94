"""`harness grade`: answers made anywhere, by any system, graded by the same code as a run; no model, no network but for
the data set.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.core.errors import UsageError
from harness.core.jsonl import write_rows
from harness.core.out_place import check_file
from harness.core.progress import progress_bar, say
from harness.core.types.evaluation import SIMILARITY, SampleRecord
from harness.evaluation.answer_rows import AnswerRow, read_answers
from harness.evaluation.item_ids import Item, Items, is_other_question, items_of
from harness.evaluation.samples import graded_record
from harness.evaluation.summary import summarise
from tasks import sandbox
from tasks.data import trusting
from tasks.grading import Grade, grade_all
from tasks.registry import find_task
from tasks.task import Task

_MOST_ROWS = 1_000_000


@dataclass(frozen=True)
class Answer:
    """A row of the file and the item that it answers."""

    row: AnswerRow
    item: Item


@dataclass(frozen=True)
class FileCounts:
    """What is odd about a file of answers, none of it an error.

    Attributes:
        items: Items in the test split.
        missing: Those that have no answer; they do not count.
        duplicates: Answers to an item that has one above; each counts.
        null_texts: Answers that are null in the file; they count as empty ones.
        other_questions: Rows with a question that is not the one of the item they name; they count.
        left_out: Rows of lm-eval's further filters, and second choices or repeats in a row; they do not count.
    """

    items: int
    missing: int
    duplicates: int
    null_texts: int
    other_questions: int
    left_out: int


@dataclass(frozen=True)
class GradeSummary:
    """What `harness grade` prints: an EvalResult (harness/core/types/evaluation.py) of the answers in a file.

    Attributes:
        accuracy: The same as `value`.
        sandbox: How model-written code was contained; None for tasks without code.
        file: Missing items, duplicates and null texts.
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
    file: FileCounts


def grade_file(task_name: str, source: Path, out: Path | None, trust_data: bool = False) -> GradeSummary:
    """Grades each row of a JSON Lines file, plain or gzip.

    Args:
        task_name: The task that was answered.
        source: Rows of one of the forms in docs/evaluation.md.
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
        items = items_of(task)
    answers, left_out = _one_filter(_answers(items, source))
    counts = _counts(items, answers, left_out)
    if said := _remarks(counts):
        say(f"{source}: {said}")
    records = _graded(task, task.grade, answers)
    if out:
        write_rows(out, (_out_row(answer, record) for answer, record in zip(answers, records, strict=True)))
    return _summary(task, records, counts)


def _graded(task: Task, grade: Grade, answers: Sequence[Answer]) -> list[SampleRecord]:
    found = []
    pairs = [(answer.item.doc, answer.row.text) for answer in answers]
    with progress_bar(f"Grading {len(answers)} answers to {task.name}", len(answers)) as advance:
        for answer, verdict in zip(answers, grade_all(grade, pairs), strict=True):
            found.append(graded_record(answer.item.doc_id, _prompt(answer.item.doc), verdict))
            advance(1)
    return found


def _answers(items: Items, source: Path) -> list[Answer]:
    found = []
    for row in itertools.islice(read_answers(source, items.task.kind == "code"), _MOST_ROWS + 1):
        found.append(Answer(row, items.find(row.ids, row.told, row.where)))
    if not found:
        raise UsageError(f"{source} holds no rows")
    if len(found) > _MOST_ROWS:
        raise UsageError(f"{source} holds more than {_MOST_ROWS} rows; split the file")
    return found


def _one_filter(answers: Sequence[Answer]) -> tuple[list[Answer], int]:
    """Without the rows that lm-eval writes of the same response for a second filter; how many answers that leaves out,
    with those beside the first of a row.
    """
    filters: dict[int, str] = {}
    kept = []
    for answer in answers:
        name = answer.row.filter
        if name is None or filters.setdefault(answer.item.position, name) == name:
            kept.append(answer)
    return kept, len(answers) - len(kept) + sum(answer.row.more for answer in kept)


def _counts(items: Items, answers: Sequence[Answer], left_out: int) -> FileCounts:
    answered = {answer.item.position for answer in answers}
    return FileCounts(
        items=len(items.test),
        missing=sum(item.position not in answered for item in items.test),
        duplicates=len(answers) - len(answered),
        null_texts=sum(answer.row.is_null for answer in answers),
        other_questions=sum(is_other_question(answer.item, answer.row.told) for answer in answers),
        left_out=left_out,
    )


def _remarks(counts: FileCounts) -> str:
    found = (
        (counts.duplicates, f"duplicates: {counts.duplicates} answers to items that have one above (each counts)"),
        (counts.null_texts, f"null texts: {counts.null_texts} (each counts as an empty answer)"),
        (
            counts.other_questions,
            f"other questions: {counts.other_questions} rows hold a question that is not the item's; "
            "is it the same data set?",
        ),
        (counts.left_out, f"left out: {counts.left_out} further choices, repeats or filters of the same items"),
        (counts.missing, f"missing: {counts.missing} of {counts.items} items have no answer (they do not count)"),
    )
    return "; ".join(remark for number, remark in found if number)


def _out_row(answer: Answer, record: SampleRecord) -> dict[str, Any]:
    ids = {name: value for name, value in answer.row.ids.items() if name != "doc_id"}
    return {**ids, **asdict(record)}


def _summary(task: Task, records: Sequence[SampleRecord], counts: FileCounts) -> GradeSummary:
    result = asdict(summarise(task.metric, records, seconds=0.0, samples=""))
    shared = {
        key: value
        for key, value in result.items()
        if key not in ("seconds", "samples", "filter", "metrics", "kl_to_dense")
    }
    contained = sandbox.confinement().mode if task.kind == "code" else None
    return GradeSummary(task=task.name, accuracy=result["value"], sandbox=contained, file=counts, **shared)


def _prompt(doc: Mapping[str, Any]) -> str:
    return str(doc.get("question") or doc.get("prompt") or "")
