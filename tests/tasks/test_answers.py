from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.answers import boxed_answer, hash_answer, number_in, same_number


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"so \boxed{18}.", "18"),
        (r"\boxed{1} no, \boxed{2}", "2"),
        (r"\boxed{\frac{3}{4}}", r"\frac{3}{4}"),
        (r"\boxed{a{b{c}}d}", "a{b{c}}d"),
        (r"\boxed {7}", "7"),
        (r"\boxed{18", None),
        (r"\boxed{5} then \boxed{18", "5"),
        (r"\boxed{}", None),
        ("18", None),
    ],
)
def test_boxed(text: str, expected: str | None) -> None:
    assert boxed_answer(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"), [("#### 14", "14"), ("#### 1\n#### 2\n", "2"), ("#### 5 apples", "5 apples"), ("####", None), ("14", None)]
)
def test_hash(text: str, expected: str | None) -> None:
    assert hash_answer(text) == expected


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1,000", Fraction(1000)),
        ("$12.50", Fraction(25, 2)),
        ("-3", Fraction(-3)),
        ("3/4", Fraction(3, 4)),
        (r"\frac{3}{4}", Fraction(3, 4)),
        (r"-\dfrac{1}{2}", Fraction(-1, 2)),
        ("50%", Fraction(50)),
        ("18 dollars", Fraction(18)),
        (".5", Fraction(1, 2)),
        ("1/0", None),
        ("none", None),
    ],
)
def test_numbers(text: str, value: Fraction | None) -> None:
    assert number_in(text) == value


@given(st.integers(-(10**9), 10**9))
def test_commas_change_nothing(n: int) -> None:
    assert same_number(f"{n:,}", str(n)) and same_number(f"{n}.00", str(n)) and not same_number(str(n + 1), str(n))
