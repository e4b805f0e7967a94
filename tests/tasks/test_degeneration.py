"""Loops and gibberish: every synthetic tail is caught, no reference is one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.degeneration import is_gibberish, is_loop, seq_rep_4, zlib_ratio
from tasks.mini_math.task import items

WORDS = sorted({word for problem in items("validation") for word in problem.question.split()})
TOKENS = {
    "words": [f" {word}" for word in WORDS],
    "letters": list("abcdefgh"),
    "digits": list("0123456789"),
    "signs": ["-", "=", "\n", "."],
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
def test_references_are_neither(reference_texts: list[str]) -> None:
    assert len(reference_texts) >= 164 + 500
    assert not [text for text in reference_texts if is_loop(text) or is_gibberish(text)]


def test_seq_rep_4_is_its_definition() -> None:
    tokens = ["a", "b", "c", "d", "a", "b", "c", "d", "a"]
    grams = {tuple(tokens[i : i + 4]) for i in range(6)}
    assert seq_rep_4(tokens) == 1 - len(grams) / 6
    assert seq_rep_4(["a"]) == 0.0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\ufffd" * 3 + "the number is twelve", True),
        ("the\x00 number\x01 is\x02 twelve apples", True),
        ("apples 苹果яблоко apples 苹果яблоко apples 苹果яблоко", True),
        ("Die Antwort ist zwölf, naïve café, α + β ≤ 𝑥", False),
        ("答えは十二です。苹果十二个，还剩三个。カタカナ", False),
        ("Ответ: двенадцать (12 apples in total)", False),
        ("\ufffd", False),
    ],
)
def test_gibberish(text: str, expected: bool) -> None:
    assert is_gibberish(text) is expected


@given(st.text())
def test_any_text_is_judged_without_an_exception(text: str) -> None:
    assert is_loop(text) in (True, False) and is_gibberish(text) in (True, False)
