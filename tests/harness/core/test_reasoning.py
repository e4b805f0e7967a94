"""Which prompts open a block of reasoning, how it is closed, and what is left of an answer without it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.core.reasoning import TAGS, SplitAnswer, ends_closed, follow_prompt, left_open, split_answer, with_end

THINK = TAGS[0]


@pytest.mark.parametrize("tags", TAGS, ids=lambda tags: tags.opening)
def test_an_open_block_is_seen_at_the_end_of_a_prompt_and_nowhere_else(tags: object) -> None:
    assert isinstance(tags, type(THINK))
    for space in ("", "\n", "\n\n ", "\nOkay, "):
        assert left_open(f"user: hello\nassistant: {tags.opening}{space}") == tags
    assert left_open(f"user: what does {tags.opening} mean?\nassistant: ") is None
    closed = f"assistant: {tags.opening}\n\n{tags.closing}\n\n"
    assert left_open(closed) is None and ends_closed(closed)


def test_a_given_answer_follows_reasoning_that_is_closed() -> None:
    assert follow_prompt("a: <think>\n", "4.") == ("\n</think>\n\n", "4.")
    assert follow_prompt("a: <think>\n\n</think>\n\n", "4.") == ("", "4.")
    assert follow_prompt("a: ", "4.") == ("", "4.")


def test_a_block_that_the_template_writes_before_answers_is_written() -> None:
    block = "<think>\n\n</think>\n\n"
    assert follow_prompt("a: ", "4.", block) == (block, "4.")
    assert follow_prompt("a: ", "<think>2 + 2</think>4.", block) == ("", "<think>2 + 2</think>4.")
    assert follow_prompt(f"a: {block}", "4.", block) == ("", "4.")
    assert follow_prompt("a: <think>", "4.", "\n\n</think>\n") == ("\n\n</think>\n", "4.")


def test_an_answer_with_reasoning_of_its_own_keeps_it_and_opens_it_once() -> None:
    assert follow_prompt("a: <think>\n", "2 + 2\n</think>\n\n4.") == ("", "2 + 2\n</think>\n\n4.")
    assert follow_prompt("a: <think>\n", "<think>\n2 + 2\n</think>\n\n4.") == ("", "2 + 2\n</think>\n\n4.")
    assert follow_prompt("a: ", "<think>\n2 + 2\n</think>\n\n4.") == ("", "<think>\n2 + 2\n</think>\n\n4.")


@pytest.mark.parametrize(
    ("text", "opened", "answer", "closed"),
    [
        ("#### 3 or so\n</think>\n\n#### 4", THINK, "#### 4", True),
        ("#### 3 or so", THINK, "", False),
        ("<think>#### 3</think>#### 4", None, "#### 4", True),
        ("\n<thinking>\n#### 3", None, "", False),
        ("#### 3 or so\n</think>\n\n#### 4", None, "#### 4", True),  # the prompt opened it
        ("#### 4", None, "#### 4", True),
        ("It writes <think> and </think>.", None, "It writes <think> and </think>.", True),
        ("", THINK, "", False),
    ],
)
def test_only_the_text_after_the_reasoning_is_the_answer(text: str, opened: object, answer: str, closed: bool) -> None:
    assert split_answer(text, opened) == SplitAnswer(text.removesuffix(answer), answer, closed)  # type: ignore[arg-type]


def test_reasoning_that_did_not_end_is_ended() -> None:
    assert with_end("2+2 is", THINK) == "2+2 is\n</think>\n\n"
    assert with_end("[THINK]2+2 is") == "[THINK]2+2 is\n[/THINK]\n\n"
    assert with_end("2+2\n</think>\n\n#### 4", THINK) == "2+2\n</think>\n\n#### 4"
    for text in ("<think>2+2</think>#### 4", "#### 4"):
        assert with_end(text) == text


@given(st.lists(st.sampled_from(["<think>", "</think>", "[THINK]", "\n", "a ", "#### 4"])), st.booleans())
def test_nothing_of_a_text_is_lost(parts: list[str], opened: bool) -> None:
    text = "".join(parts)
    found = split_answer(text, THINK if opened else None)
    assert found.reasoning + found.answer == text
    other = not opened and text.lstrip().startswith("[THINK]")
    assert found.closed or (found.answer == "" and ("[/THINK]" if other else "</think>") not in text)
