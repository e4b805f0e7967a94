"""Which item of a task an id from outside means. Ids of another benchmark are refused, not counted as this one's."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.core.errors import UsageError
from tasks.registry import FAMILY_NAMES, loadable_tasks
from tasks.task import Task

_ID = re.compile(r"(?:(.*?[^/_:#\s-])[/_:#\s-])?(\d{1,9})", re.S)  # perhaps a prefix, then a number
_LONGEST = 100  # characters of an id
_ID_FIELDS = "`task_id` or `doc_id` (the zero-based index in the test split)"
_QUESTIONS = ("question", "prompt", "text")
_TEST = "test"  # the split that is graded: gsm8k/test/0


@dataclass(frozen=True)
class Item:
    """One item of a task.

    Attributes:
        position: Among all items of all splits.
        doc_id: Index in the test split; None for an item of another split.
    """

    position: int
    doc_id: int | None
    doc: Mapping[str, Any]


@dataclass(frozen=True)
class Items:
    """The items of a task, to be found by the ids in a file.

    Attributes:
        test: The test split.
        by_number: Items by the number in their `task_id`; empty for a task whose items have none.
    """

    task: Task
    test: Sequence[Item]
    by_number: Mapping[int, Item]

    def find(self, ids: Mapping[str, Any], told: Mapping[str, Any], where: str) -> Item:
        """The item that a row answers.

        Args:
            ids: `task_id`, `doc_id` (index in the test split) and `custom_id`, those that the row has.
            told: What the row holds of the item itself, in the data set's own fields.
            where: File and line, for messages.

        Raises:
            UsageError: The task has no such item, or the row does not say which.
        """
        for field, given in ids.items():
            self._check_owner(field, given, where)
        order = ("task_id", "custom_id", "doc_id") if self.by_number else ("doc_id", "task_id", "custom_id")
        for field in order:
            if field in ids:
                item = self._find(field, ids[field], where)
                self._check_told(item, told, where)
                return item
        raise UsageError(f"{where} has no usable {_ID_FIELDS}")

    def _check_told(self, item: Item, told: Mapping[str, Any], where: str) -> None:
        """lm-eval's samples hold the item: numbers of two editions are the same where their tests are not."""
        for field in ("entry_point", "test_list"):
            if field in told and field in item.doc and told[field] != item.doc[field]:
                raise UsageError(
                    f"{where}: its {field} is not the one of this item of {self.task.name}; "
                    "it is of another benchmark or edition, so grade it with the --task of that"
                )

    def _find(self, field: str, given: Any, where: str) -> Item:
        prefix, number = _parts(given)
        label = f"{where}: {_label(field, given)}"
        if number is None:
            raise UsageError(f"{where} has no usable {_ID_FIELDS}, such as {self._example()}: {_label(field, given)}")
        words = _words(prefix)
        self._check_prefix(prefix, label)
        if self.by_number and words[-1:] != [_TEST] and (prefix or field != "doc_id"):
            if number not in self.by_number:
                raise UsageError(f"{label} is not an item of {self.task.name}")
            return self.by_number[number]
        if number >= len(self.test):
            raise UsageError(f"{label} is outside the {len(self.test)} items of {self.task.name}")
        return self.test[number]

    def _check_owner(self, field: str, given: Any, where: str) -> None:
        """Raises UsageError for a prefix that is another task's, in whichever field it stands."""
        prefix = _parts(given)[0]
        other = None if not prefix or prefix in _own_names(self.task) else _owner(prefix, self.task)
        if other:
            raise UsageError(
                f"{where}: {_label(field, given)} is an item of {other.name} ({other.summary}), not of "
                f"{self.task.name}; grade it with --task {other.name}"
            )

    def _check_prefix(self, prefix: str, label: str) -> None:
        words = _words(prefix)
        name = "".join(words[:-1] if words[-1:] == [_TEST] else words)
        if prefix and (name or not words) and name not in map(_joined, _own_names(self.task)):
            raise UsageError(f"{label} is not an item of {self.task.name}, whose ids are like {self._example()}")

    def _example(self) -> str:
        names = [str(item.doc["task_id"]) for item in self.by_number.values()] or [f"{self.task.name}/0"]
        return f"{names[0]} or {_parts(names[0])[1]}"


def is_other_question(item: Item, told: Mapping[str, Any]) -> bool:
    """Whether a row holds a question that is not the item's."""
    pairs = [
        (str(told[field]), str(item.doc[field])) for field in _QUESTIONS if told.get(field) and item.doc.get(field)
    ]
    return any(theirs.split() != ours.split() for theirs, ours in pairs)


def items_of(task: Task) -> Items:
    """All items of a task; raises UsageError where its data set cannot be loaded."""
    splits = task.documents()
    found = [
        Item(position, index if split == _TEST else None, doc)
        for position, (split, index, doc) in enumerate(
            (split, index, doc) for split, docs in splits.items() for index, doc in enumerate(docs)
        )
    ]
    numbers = {_parts(item.doc["task_id"])[1]: item for item in found if "task_id" in item.doc}
    return Items(
        task,
        [item for item in found if item.doc_id is not None],
        {number: item for number, item in numbers.items() if number is not None},
    )


def _parts(given: Any) -> tuple[str, int | None]:
    """The prefix of an id, "" where it has none, and its number, None where the id is of no use."""
    if isinstance(given, float) and given.is_integer():
        given = int(given)
    text = "" if isinstance(given, bool) else re.sub(r"^(\d{1,9})\.0+$", r"\1", str(given).strip())
    match = _ID.fullmatch(text) if len(text) <= _LONGEST else None
    return (match[1] or "", int(match[2])) if match else ("", None)


def _label(field: str, given: Any) -> str:
    return f"{field} {str(given) if type(given) is int else repr(given):.60}"


def _words(prefix: str) -> list[str]:
    return [word for word in re.split(r"[\W_]+", prefix.lower()) if word]


def _joined(name: str) -> str:
    return "".join(_words(name))


@functools.lru_cache
def _owner(prefix: str, task: Task) -> Task | None:
    """The other task whose ids begin so: exactly (Mbpp is not MBPP), or in another spelling that is not the task's."""
    for other in loadable_tasks():
        if prefix in (other.name, *other.id_prefixes):
            return other
    if _joined(prefix) in map(_joined, _own_names(task)):
        return None
    return next((other for other in loadable_tasks() if _joined(prefix) in map(_joined, _own_names(other))), None)


@functools.lru_cache
def _own_names(task: Task) -> frozenset[str]:
    """What may stand before the number: the task's id prefixes and name, and the names of tasks with the same items."""
    families = {name for name, members in FAMILY_NAMES.items() if task.name in members}
    same = {other.name for other in loadable_tasks() if other.documents is task.documents}
    return frozenset({task.name, *task.id_prefixes, *families, *same})
