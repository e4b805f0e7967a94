"""What counts as the final answer, and as which number."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.answers import boxes, final_answer, hashes, number_in, same_number, statements

ALL = (boxes, hashes, statements)
ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"so \boxed{18}.", "18"),
        (r"\boxed{1} no, \boxed{2}", "2"),
        (r"\boxed{\frac{3}{4}}", r"\frac{3}{4}"),
        (r"\boxed{\text{a{b} 4}}", r"\text{a{b} 4}"),
        (r"\boxed{\left\{4\right\}}", r"\left\{4\right\}"),
        (r"\boxed {7}", "7"),
        (r"\boxed 7 is it", "7"),
        ("\\boxed{18\nThat is all.", "18"),
        (r"\boxed{5} then \boxed{18", "18"),
        (r"\boxed{5} then \boxed{}", "5"),
        (r"\boxed{yes}", None),
        (r"\boxed{1\ 234}", "1234"),
        (r"\boxed{2\frac{1}{2}}", r"2\frac{1}{2}"),
        (r"\boxed{3, 4}", None),
        (r"\boxed{18\text{ dollars for 7 days}}", "18"),
        (r"\boxed{18/\text{day}}", r"18/\text{day}"),
        (r"\boxed{}", None),
        ("18", None),
    ],
)
def test_boxed(text: str, expected: str | None) -> None:
    assert final_answer(text, (boxes,)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("#### 14", "14"),
        ("#### 1\n#### 2\n", "2"),
        ("#### 5 apples", "5 apples"),
        ("####", None),
        ("14", None),
        ("#### Step 1\n#### Step 2", None),
        ("#### 1. Add\n#### 2. Divide", None),
        ("#### Answer: **18**", "Answer: **18**"),
        ("#### x = 18", "x = 18"),
        ("#### 5 + 13 = 18", "5 + 13 = 18"),
    ],
)
def test_hash(text: str, expected: str | None) -> None:
    assert final_answer(text, (hashes,)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2 + 2 = 4\nA: 4", "4"),
        ("**Answer:** 4 apples", "4 apples"),
        ("Final answer: **4**", "4**"),
        ("So the answer is 4.", "4."),
        ("The answer is 18. Let me think... maybe 20", "18. Let me think... maybe 20"),
        ("I do not know, 4 or so", None),
        ("A: nobody knows", None),
        ("A = 5\nB = 7\nTotal: A+B = 12", None),
        ("A: There are 15 trees originally.\nThen 21.\nSo 21-15=6.", None),
        ("A: Tom has 18 apples left.", "Tom has 18 apples left."),
        ("Your answer is 5, but the answer is 18", "18"),
        ("The answer is not 18.", None),
        ("Answer:\n\n18", "18"),
        ("### Answer: 18", "18"),
        ("### Final Answer\n\n18", "18"),
        ("The answer is:\n18", "18"),
        ("<think>7</think><answer>18</answer>", "18"),
        ("The answer is 18.\n\nQ: How many cars?\nA: 5. The answer is 5.", "18."),
        ("The answer is $18/day", "$18/day"),
    ],
)
def test_statements(text: str, expected: str | None) -> None:
    assert final_answer(text, (statements,)) == expected


def test_the_asked_form_comes_first_and_another_mark_counts_where_it_is_missing() -> None:
    assert final_answer("#### 3\n\\boxed{4}", (boxes, hashes)) == "4"
    assert final_answer("#### 3\n\\boxed{4}", (hashes, boxes)) == "3"
    assert final_answer("A: 3", ALL) == "3"


@pytest.mark.parametrize("end", [r"\boxed{12", "#### 12", "A: 12", "the answer is 12"])
def test_half_a_number_at_the_token_limit_is_no_answer(end: str) -> None:
    assert same_number(final_answer(f"so\n{end}", ALL), "12")
    assert final_answer(f"so\n{end}", ALL, truncated=True) is None
    assert final_answer(f"{end}\nand then it went on", ALL, truncated=True) is not None


@pytest.mark.parametrize(
    "text", [r"\boxed{18} \boxed{18} \box", r"So \boxed{18}. Let me check this aga", "#### 18\n\nQuestion: And"]
)
def test_what_was_whole_before_the_token_limit_stays_an_answer(text: str) -> None:
    assert final_answer(text, ALL, truncated=True) == "18"


@pytest.mark.parametrize("text", [r"so \boxed{\frac{1}", r"\boxed{\text{12}", "#### 18."])
def test_what_was_still_open_is_none(text: str) -> None:
    assert final_answer(text, ALL, truncated=True) is None


NUMBERS = {
    "1,000": 1000,
    "$12.50": "12.5",
    "-3": -3,
    "3/4": "3/4",
    r"\frac{3}{4}": "3/4",
    r"-\dfrac{1}{2}": "-1/2",
    r"\frac{-1}{2}": "-1/2",
    r"\frac34": "3/4",
    "2 1/2": "5/2",
    r"2\frac{1}{2}": "5/2",
    "-1/2": "-1/2",
    "50%": 50,
    r"50\%": 50,
    "18 dollars": 18,
    ".5": "1/2",
    r"18\text{ apples}": 18,
    r"\$1,234.00": 1234,
    "x = 18": 18,
    "3 + 15 = 18": 18,
    "18 cm^2": 18,
    "18 m²": 18,
    r"18\ \text{cm}^{3}": 18,
    "−7": -7,
    "-$5": -5,
    "$-5": -5,
    "- 5": -5,
    r"5 \times 10^3": 5000,
    "**18**": 18,
    "18.": 18,
    "18.00": 18,
    r"\textbf{18 dollars}": 18,
    "€18": 18,
    "18 €": 18,
    "USD 18": 18,
    "Rs. 50": 50,
    r"1{,}000": 1000,
    r"1\,000": 1000,
    "(18)": 18,
    r"18^\circ": 18,
    r"\(18\)": 18,
    "3 million": 3_000_000,
    "1.5e3": 1500,
    "1'234": 1234,
    r"US\$18": 18,
    "C$18": 18,
    "18 = x": 18,
    r"18^{\text{th}}": 18,
    "5kg": 5,
    "12,345,678.90": "12345678.9",
    "1,00,000": 100000,
    "about 18": 18,
    "18 of 20": 18,
    "7 days in 2 weeks": 7,
    "+5": 5,
}


@pytest.mark.parametrize(("text", "value"), NUMBERS.items())
def test_numbers(text: str, value: int | str) -> None:
    assert number_in(text) == Fraction(value)


@pytest.mark.parametrize(
    "text",
    [
        r"2\sqrt{3}",
        r"2\pi",
        "2x",
        "2 hours 30 minutes",
        "5+3",
        r"5 \times 3",
        r"\sqrt{16}",
        r"3.\overline{3}",
        r"18 \pm 2",
        "1.234.567",
        "5-3",
        "18 apples and 3 pears",
        "1/0",
        "none",
        "",
        "3, 4",
        "3-4",
        "10:30",
        "3,14",
        "1,0000",
        "B12",
        "H2O",
        "between 3 and 5",
        "1,2,3",
        "3^2",
        r"\frac{1}{-2}",
    ],
)
def test_what_is_not_one_number_is_none(text: str) -> None:
    assert number_in(text) is None


@given(st.integers(-(10**9), 10**9))
def test_commas_change_nothing(n: int) -> None:
    assert same_number(f"{n:,}", str(n)) and same_number(f"{n}.00", str(n)) and not same_number(str(n + 1), str(n))


SHAPES = (
    r"\boxed{{{n}}}",
    r"\boxed{{\${n:,}}}",
    r"\boxed{{{n}\%}}",
    r"\boxed{{{n} \text{{ apples}}}}",
    r"\boxed{{\frac{{{twice}}}{{2}}}}",
    r"\boxed{{x = {n:,}.00}}",
    r"\boxed{{-1}} no, \boxed{{{n}}}",
    r"\boxed{{{n}",
    "#### {n}",
    "#### ${n:,}",
    "A: {n}",
    "**Answer:** {n:,} dollars",
    "The answer is {n}.",
    r"\[ \boxed{{{{{n}}}}} \]",
    r"\boxed{{{n}\,\mathrm{{kg}}^2}}",
)


@given(st.integers(-9999, 9_999_999), st.sampled_from(SHAPES), st.text(max_size=40))
def test_every_shape_gives_its_number_and_no_other(n: int, shape: str, before: str) -> None:
    def found(value: int) -> str | None:
        return final_answer(f"{before}\n" + shape.format(n=value, twice=2 * value), ALL)

    assert same_number(found(n), str(n)) and not same_number(found(n + 1), str(n))


@given(
    st.text()
    | st.lists(
        st.sampled_from(["\\boxed{", "}", "####", "A:", "\\frac", "{", "1", ",", "/", "-", ".", "\n", "=", "^"])
    ).map("".join)
)
def test_any_text_is_read_without_an_exception(text: str) -> None:
    for truncated in (False, True):
        answer = final_answer(text, ALL, truncated)
        assert answer is None or number_in(answer) is not None


@pytest.mark.slow
def test_no_form_of_an_answer_takes_time_by_a_power_of_its_length() -> None:
    """400 characters of nothing took a minute: the process would be killed long after it is done."""
    code = """if True:
        import resource
        from tasks.answers import boxes, number_in
        resource.setrlimit(resource.RLIMIT_CPU, (15, 15))
        for mark in (" ", "\\n", "\\t ", "`", "%", "~", "{", "{} ", "\\\\text ", "**", "1 ", "\\\\ ", "1st ", "^{ "):
            for start in ("0", "5 (", "f(x)0", "answer is 1/"):
                text = (start + mark * 400)[:390]
                number_in(text), list(boxes("\\\\boxed{" + text + "}"))
        print("done")
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "done\n", done.stderr
