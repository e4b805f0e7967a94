"""Requests to the engine and how its output is read, where a prompt opens a block of reasoning."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from harness.core.chat import ChatFormat
from harness.core.reasoning import TAGS
from harness.engine.answer_reader import reader_of

THINKS = ChatFormat(knows=TAGS[:1])
STOPS = ["\n\n", "Question:"]


def output(text: str, reason: str = "stop") -> Any:
    return SimpleNamespace(outputs=[SimpleNamespace(text=text, finish_reason=reason, token_ids=[1] * 9)])


@pytest.mark.parametrize("prompt", ["a: <think>\n", "a: "])
def test_a_stop_string_does_not_end_the_reasoning_and_ends_the_answer(prompt: str) -> None:
    reader = reader_of(prompt, THINKS, STOPS)
    assert reader.sampling == {"stop": None}
    text = "<think>" if prompt == "a: " else ""
    found = reader.read(output(f"{text}2\n\nQuestion: 3?\n</think>\n\n#### 4\n\nQuestion: 5", "length"), extra=1)
    assert found == "#### 4" and found.meta["finish_reason"] == "stop"
    assert (found.meta["reasoning_closed"], found.meta["n_tokens"], found.meta["extra"]) == (True, 9, 1)
    assert found.written == f"{text}2\n\nQuestion: 3?\n</think>\n\n#### 4"


def test_reasoning_that_does_not_end_is_no_answer() -> None:
    found = reader_of("a: <think>\n", THINKS, STOPS).read(output("#### 4", "length"))
    assert found == "" and found.meta["reasoning"] == "#### 4" and found.meta["reasoning_closed"] is False
    assert found.meta["finish_reason"] == "length"


@pytest.mark.parametrize(
    ("prompt", "chat"), [("a: <think>\n\n</think>\n\n", THINKS), ("a: ", ChatFormat()), ("a: <think>\n", None)]
)
def test_where_no_reasoning_comes_the_engine_stops_by_itself(prompt: str, chat: ChatFormat | None) -> None:
    reader = reader_of(prompt, chat, STOPS)
    assert reader.sampling == {"stop": STOPS}
    found = reader.read(output("#### 4"))
    assert found == "#### 4" and "reasoning" not in found.meta


def test_tags_that_are_special_tokens_are_decoded() -> None:
    special = ChatFormat(knows=TAGS[:1], special_tags=True)
    assert reader_of("a: <think>\n", special, "x").sampling == {"stop": None, "skip_special_tokens": False}
    assert reader_of("a: ", ChatFormat(), "x").sampling == {"stop": ["x"]}
    assert reader_of("a: ", None, None).sampling == {"stop": None}
