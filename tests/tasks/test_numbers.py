"""Which number a text is."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.numbers import number_in, same_number

ROOT = Path(__file__).parent.parent.parent

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
    "2½": "5/2",
    "-½": "-1/2",
    "3 ¾ cups": "15/4",
    "2¹⁄₂": "5/2",
    r"\nicefrac{3}{4}": "3/4",
    r"1\sfrac{1}{2}": "3/2",
    r"{3 \over 4}": "3/4",
    r"\frac{\text{3}}{\mathbf{\text{4}}}": "3/4",
    r"12\_000": 12000,
    "1_000_000": 10**6,
    "12\u2009000": 12000,
    "1\u202f234\u202f567": 1_234_567,
    "12 500 litres": 12500,
    "1 000.50": "1000.5",
    r"\$14 {, }916": 14916,
    r"14{,\!}916": 14916,
    "10^6": 10**6,
    "10^{-2}": "1/100",
    "10**3": 1000,
    "10⁶ people": 10**6,
    "1.2×10⁵": 120_000,
    "3·10^8": 3 * 10**8,
    "$12k": 12000,
    "12K": 12000,
    r"3k\text{ euros}": 3000,
    "$3M": 3 * 10**6,
    "3M": 3,
    "$5$ m": 5,
    "12 km": 12,
    "2 hundred thousand": 200_000,
    "$18 a day": 18,
    "2½ million": 2_500_000,
    "3M euros": 3 * 10**6,
    r"\frac{3\text{ apples}}{4}": "3/4",
    "1.5万": 15000,
    r"\mathdollar\,250": 250,
    r"\euro{18}": 18,
    "１，５００": 1500,
    "－１８．５": "-18.5",
    "١٬٥٠٠": 1500,
    "١٢٫٥": "12.5",
    "۱٬۵۰۰": 1500,
    "१,५००": 1500,
    "𝟏𝟖": 18,
    "\u200e1\u200b8": 18,
    "每天18元": 18,
    "<b>18</b>": 18,
    "<18>": 18,
    "9*2 = <<9*2=18>>18 dollars": 18,
    "9*2=18>>18 dollars": 18,
    "=> 18": 18,
    "_18_": 18,
    "*18*": 18,
    "18...": 18,
    "18㎡": 18,
    "x₁ = 18": 18,
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
        "5!",
        r"5\,!",
        "204_5",
        "204_{5}",
        r"101_{(2)}",
        "204₅",
        "2³",
        "2⁻¹",
        "10^x",
        "10^{2.5}",
        "10^2/4",
        "x > 3",
        "x <= 3",
        "x != 3",
        r"x \geqslant 3",
        "3 < x",
        "18 > 17",
        "3.33...",
        "0.1666…",
        r"3.33\cdots",
        r"0.\dot{3}",
        "0.(3)",
        "0.3\u0305",
        "36÷2",
        "5(3)",
        r"\frac{x}{4}",
        r"\frac{3x}{4}",
        "3 4",
        "6 $500 cards",
        "1/2 * width * height",
        "12 000,50",
        "1e5x",
        "5P2",
        "5x3",
        "2xy",
        "3i",
        "3a",
        "3 a + b",
        r"17 \bmod 5",
        "3 1/0",
        "2ⁿ",
    ],
)
def test_what_is_not_one_number_is_none(text: str) -> None:
    assert number_in(text) is None


@given(st.integers(-(10**9), 10**9))
def test_commas_change_nothing(n: int) -> None:
    assert same_number(f"{n:,}", str(n)) and same_number(f"{n}.00", str(n)) and not same_number(str(n + 1), str(n))


@pytest.mark.slow
def test_no_form_of_an_answer_takes_time_by_a_power_of_its_length() -> None:
    """400 characters of nothing took a minute: the process would be killed long after it is done."""
    code = """if True:
        import resource
        from tasks.answers import boxes
        from tasks.numbers import number_in
        resource.setrlimit(resource.RLIMIT_CPU, (15, 15))
        marks = (" ", "\\n", "\\t ", "`", "%", "~", "{", "{} ", "\\\\text ", "**", "1 ", "\\\\ ", "1st ", "^{ ")
        more = ("<1", "<<", "_", "½", "1 000", "10^", "k ", "!", "⁵", "１，")
        for mark in marks + more:
            for start in ("0", "5 (", "f(x)0", "answer is 1/", "<", "{", "10^", "$1", "½", "\\\\frac{"):
                text = (start + mark * 400)[:390]
                number_in(text), list(boxes("\\\\boxed{" + text + "}"))
        print("done")
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "done\n", done.stderr
