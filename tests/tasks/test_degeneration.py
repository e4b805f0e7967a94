"""Loops: every synthetic tail is caught, no reference is one; how an answer ended decides how much is a loop."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.degeneration import is_loop, seq_rep_4, zlib_ratio
from tasks.gibberish import is_gibberish
from tasks.mini_math.task import items

WORDS = sorted({word for problem in items("validation") for word in problem.question.split()})
TOKENS = {
    "words": [f" {word}" for word in WORDS],
    "letters": list("abcdefgh"),
    "digits": list("0123456789"),
}


@given(st.data(), st.sampled_from(sorted(TOKENS)), st.integers(1, 64), st.integers(3, 9), st.booleans())
def test_every_periodic_tail_is_a_loop(
    data: st.DataObject, kind: str, period: int, repeats: int, sensible: bool
) -> None:
    """Period 1 to 64 tokens, at least 3 repeats and 48 tokens, the last repeat possibly cut, behind a sensible
    beginning or none.
    """
    unit = data.draw(st.lists(st.sampled_from(TOKENS[kind]), min_size=period, max_size=period))
    cut = data.draw(st.integers(0, period - 1))
    tail = unit * max(repeats, -(-48 // period)) + unit[:cut]
    begin = items("validation", 1)[0].question + "\n" if sensible else ""
    assert is_loop(begin + "".join(tail))
    assert is_loop(begin + "".join(tail), n_tokens=len(tail) + len(begin) // 4)


def test_repetition_without_a_periodic_end_is_a_loop_too() -> None:
    text = (
        "".join(
            f"Then Tom buys {i % 2} more apples and gives them to Mia. "
            for i in (0, 1, 0, 0, 1, 0, 1, 1, 0, 1, 0, 0, 1, 1)
        )
        + "So it is."
    )
    assert seq_rep_4(text.split()) > 0.7 and zlib_ratio(text) > 3 and is_loop(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "No.",
        "print(x)\nprint(x)\nprint(x)\n",
        "ha ha ha",
        "=" * 40,
        "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17",
    ],
)
def test_short_or_growing_text_is_no_loop(text: str) -> None:
    assert not is_loop(text)


@pytest.mark.slow
@pytest.mark.parametrize(
    "finish_reason", [None, *(pytest.param(name, marks=pytest.mark.long) for name in ("stop", "length"))]
)
def test_references_are_neither(reference_texts: list[str], finish_reason: str | None) -> None:
    assert len(reference_texts) >= 164 + 500
    assert not [text for text in reference_texts if is_loop(text, None, finish_reason) or is_gibberish(text)]


@given(st.sampled_from("-=_.*~#|│─═ \t\n…·"), st.integers(48, 199), st.sampled_from([None, "stop", "length"]))
def test_one_sign_is_no_loop_under_200_of_it(sign: str, times: int, finish_reason: str | None) -> None:
    assert not is_loop("The sum is 12" + sign * times, None, finish_reason)


def test_characters_count_and_not_bytes() -> None:
    assert not is_loop("加油！" * 12) and is_loop("加油！" * 16)
    assert not is_loop("🍎" * 40) and is_loop("🍎" * 50) and not is_loop("🍎" * 200, None, "stop")


ENDED = {
    "rule": "The sum is 12.\n" + "-" * 180,
    "blank lines": "The sum is 12." + "\n" * 180,
    "head of a table": "|" + " --- |" * 20,
    "zeros": "A googol is 1" + "0" * 100,
    "period": "1/7 = 0." + "142857" * 20,
    "sum": "30 = " + " + ".join(["1"] * 30),
    "power": "2^{30} = " + " \\times ".join(["2"] * 30),
    "emoji": "Here they are: " + "🍎" * 60,
    "cheer": "加油！" * 20,
    "refrain": "Sail on, my paper boat, sail on. " * 4,
    "log": "".join(f"10:00:{second:02} INFO request served\n" for second in range(40)),
    "grid": "[\n" + "    [0, 0, 0, 0, 0],\n" * 9 + "]",
    "truth table": "".join(f"| {a} | {b} | {c} | {d} |\n" for a in "TF" for b in "TF" for c in "TF" for d in "TF"),
    "docstring": "def f():\n" + '    """Return one.\n\n    It is 1.\n    """\n' * 6 + "    return 1\n",
}


@pytest.mark.parametrize("text", ENDED.values(), ids=ENDED)
def test_an_answer_that_ended_by_itself_may_repeat_itself(text: str) -> None:
    assert not is_loop(text, None, "stop")


def test_an_answer_that_ended_is_a_loop_where_it_says_much_again() -> None:
    unit = "I am sorry, I cannot help with that. "
    assert is_loop(unit * 5, None, "length") and not is_loop(unit * 5, None, "stop")
    assert is_loop(unit * 10, None, "stop") and not is_loop(unit * 10, None, "stop", right=True)
    assert is_loop(unit * 30, None, "stop", right=True) and not is_loop(unit * 30, 40, "stop")
    assert is_loop(unit * 20 + "The mill stands by the road that leads to the harbour.", None, "stop")
    assert is_loop("0" * 1000, None, "stop")


COUNTERS = {
    "code": "".join(f"    if n == {n}:\n        return {n * n}\n" for n in range(30)),
    "terms": "return " + " + ".join(f"row[{n}]" for n in range(60)),
    "steps": "".join(f"第{n}步：我们把两个数加起来，得到{n + 3}。" for n in range(1, 30)),
    "Chinese numerals": "".join(f"第{'一二三四五六七八九十'[n % 10]}步：我们把两个数加起来。" for n in range(30)),
    "signs": "".join(f"x = {n - 9}, y = {-n / 3:.2f}; " for n in range(30)),
    "ordinals": "".join(f"On the {n}th day he walks on. " for n in range(4, 30)),
}


@pytest.mark.parametrize("text", COUNTERS.values(), ids=COUNTERS)
def test_a_loop_with_a_counter_is_one_where_the_answer_was_cut(text: str) -> None:
    assert is_loop("First, some words about it.\n" + text, None, "length")
    assert not is_loop("First, some words about it.\n" + text, None, "stop")


def test_a_short_list_with_a_counter_that_was_cut_is_no_loop() -> None:
    assert not is_loop(
        "".join(f"Year {n}: she has {n * 110} dollars in the bank.\n" for n in range(1, 8)), None, "length"
    )
    assert not is_loop(", ".join(map(str, range(200))), None, "length")


def test_a_loop_that_other_text_follows_is_one_where_the_answer_was_cut() -> None:
    other = items("validation", 1)[0].question
    text = f"{other} {'Then we add them up. ' * 12}{other}"
    assert is_loop(text, None, "length") and not is_loop(text, None, "stop")
    assert not is_loop(f"{other} {'Then we add them up. ' * 3}{other}", None, "length")


def test_few_words_at_random_are_a_loop_where_the_answer_was_cut() -> None:
    text = " ".join(random.Random(0).choices(["so", "the", "is", "and"], k=300))
    assert is_loop(text, None, "length")


@pytest.mark.slow
@pytest.mark.parametrize("unit", ["ab", "a1, ", "the cat ", "-", "0", "\uf0b7 ", "сад apple ספר ", "第1步，"])
def test_the_work_grows_as_the_text(unit: str) -> None:
    """Lines of Python that are executed, beyond those for the window of the end."""

    def work(size: int) -> int:
        text = (unit * size)[:size]
        return sum(
            executed(lambda reason=reason: is_loop(text, None, reason)) for reason in (None, "stop", "length")
        ) + executed(lambda: is_gibberish(text))

    assert work(80_000) <= 12 * work(8_000)


def executed(call: Callable[[], object]) -> int:
    """How many lines of Python a call executes."""
    count = 0

    def trace(_frame: FrameType, event: str, _argument: object) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return count


def test_seq_rep_4_is_its_definition() -> None:
    tokens = ["a", "b", "c", "d", "a", "b", "c", "d", "a"]
    grams = {tuple(tokens[i : i + 4]) for i in range(6)}
    assert seq_rep_4(tokens) == 1 - len(grams) / 6
    assert seq_rep_4(["a"]) == 0.0


@given(st.text(), st.sampled_from([None, "stop", "length"]))
def test_any_text_is_judged_without_an_exception(text: str, finish_reason: str | None) -> None:
    assert is_loop(text, None, finish_reason) in (True, False) and is_gibberish(text) in (True, False)
