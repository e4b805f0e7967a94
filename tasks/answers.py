r"""Final answers out of worked solutions: `\boxed{14}`, `#### 14`, `A: 14`, `The answer is 14`. No answer is None, never a wrong parse.

Only an answer that the text marks as one counts; the last number of a chain of thought is not an answer. All of it takes time
linear in the text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction

_LONGEST = 400  # characters of a marked answer; more than that is prose
_LONGEST_TEXT = 200_000  # of its end: a final answer stands there
_BOXES = 16  # of several, the last wins; so many are looked at
_BOX = re.compile(r"\\f?boxed[ \t]*")
_HASH = re.compile(r"####[ \t]*([^\n]{0,400})")
_STATED = re.compile(
    r"^[ \t>*_]*(?:final answer|answer|ans|A)[*_]*[ \t]*[:=][*_ \t]*([^\n]{1,400})|\banswer is:?[ \t]*([^\n]{1,400})", re.I | re.M
)
_BRACE = re.compile(r"\\.|[{}]", re.S)

_DIGITS = r"(?:\d{1,3}(?:,\d{2,3})*,\d{3}(?![\d,]*\d)|\d+)(?:\.\d+)?|\.\d+"
_NUMBER = re.compile(rf"(?<![\w.^])(?P<sign>[-+]?)\s*\(?(?P<value>{_DIGITS})(?P<power>\s*(?:\*|x|times)\s*10\s*\^\s*\(?(-?\d{{1,3}})\)?)?")
_FRACTION = re.compile(r"\\[dtc]?frac\s*(?:\{([^{}]*)\}|(\d))\s*(?:\{([^{}]*)\}|(\d))")
_OVER = re.compile(rf"\(?\s*({_DIGITS})\s*\)?\s*/\s*\(?\s*({_DIGITS})\s*\)?")
_UNFINISHED = re.compile(r"\s*\)?\s*[\^/]")  # a power or a quotient that is no plain fraction
_CURRENCY = re.compile(r"\\?\$|[€£¥₹₽]|\b(?:USD|EUR|GBP|INR|Rs\.?)(?=\s*[-\d.])", re.I)
_DEGREES = re.compile(r"\^\s*\{?\s*\\circ\s*\}?")
_WRAPPER = re.compile(
    r"\\(?:text(?:bf|it|rm|sf)?|math(?:bf|rm|it|sf|tt)|mbox|operatorname|left|right|displaystyle|quad|qquad)(?![a-zA-Z])\*?"
)
_UNIT_POWER = re.compile(r"(?<=[A-Za-z}])\s*\^\s*(?:\{\s*-?\d+\s*\}|-?\d)|(?<=[A-Za-z])[²³]")
_PLAIN = {
    "−": "-", "–": "-", "\\,": "", "\\!": "", "{,}": ",", "\\;": " ", "\\:": " ", "\\ ": " ", "~": " ", "\\times": " times ",
    "\\cdot": " times ", "×": " times ", "\\%": " ", "%": " ", "**": " ", "`": " ", "\u202f": "", "\u00a0": " ",
}  # fmt: skip

Finder = Callable[[str], Iterator[str]]


def boxes(text: str) -> Iterator[str]:
    r"""The contents of \boxed{...}, last first, braces nested to any depth; an unclosed one ends with its line."""
    starts = [match.end() for match in _BOX.finditer(text)][-_BOXES:]
    for start in reversed(starts):
        part = text[start : start + _LONGEST]
        yield _braced(part) if part.startswith("{") else part.split(maxsplit=1)[0] if part.strip() else ""


def _braced(part: str) -> str:
    depth = 0
    for match in _BRACE.finditer(part):
        depth += {"{": 1, "}": -1}.get(match[0], 0)
        if depth == 0:
            return part[1 : match.start()]
    return part[1:].partition("\n")[0]


def hashes(text: str) -> Iterator[str]:
    """What follows `####` on its line, last first."""
    yield from reversed(_HASH.findall(text))


def statements(text: str) -> Iterator[str]:
    """What follows `A:`, `Answer:` at the start of a line or `the answer is`, last first."""
    for first, second in reversed(_STATED.findall(text)):
        yield first or second


def final_answer(text: str, finders: Sequence[Finder], truncated: bool = False) -> str | None:
    """The last marked text that holds a number, by the first finder that has one.

    truncated: the text was cut by the token limit, so a mark that its very end belongs to may be half a number and is no answer.
    """
    text = text[-_LONGEST_TEXT:]
    if truncated:
        text = text.rstrip()
        text = text if text.endswith(("}", "$", ")", ".")) else re.sub(r"[^\n]*\Z", "", text)
    for find in finders:
        for marked in find(text):
            if number_in(marked) is not None:
                return marked.strip()
    return None


def number_in(text: str) -> Fraction | None:
    """The number that an answer is, exactly: 1,000 and $12.50, 3/4 and \\frac{3}{4}, 2 1/2, 50 %, 18 apples. None where it is not one.

    A unit, a currency or words may stand around it, and what `=` last gives counts. An answer that begins with a number is that number;
    one that holds several otherwise is none.
    """
    plain = _simplified(text[:_LONGEST])
    numbers = list(_NUMBER.finditer(plain))
    if not numbers or (len(numbers) > 1 and _is_list(plain, numbers)):
        return None
    if len(numbers) > 1 and plain[: numbers[0].start()].strip(" (*_:") and "=" not in text:
        return None
    return _value(plain, numbers[0])


def _simplified(text: str) -> str:
    """Without LaTeX, currencies and units' powers; of an equation its right side."""
    for old, new in _PLAIN.items():
        text = text.replace(old, new)
    text = _UNIT_POWER.sub("", _CURRENCY.sub("", _DEGREES.sub("", text)))
    text = _FRACTION.sub(lambda m: f" ({m[1] or m[2]})/({m[3] or m[4]})", text)
    text = _WRAPPER.sub(" ", text).replace("{", " ").replace("}", " ")
    sides = [side for side in re.split(r"=|≈|\\approx", text) if side.strip()]
    return sides[-1] if sides else ""


def _is_list(plain: str, numbers: Sequence[re.Match[str]]) -> bool:
    """3, 4 or 3-4 or 10:30: numbers joined by nothing but a separator are not one number."""
    between = plain[numbers[0].end() : numbers[1].start()].strip()
    if _OVER.match(plain, numbers[0].start("value")) or (not between and _OVER.match(plain, numbers[1].start("value"))):
        return False
    return bool(re.fullmatch(r"[,;:–-]|and|or|to|", between))


def _value(plain: str, number: re.Match[str]) -> Fraction | None:
    sign = -1 if number["sign"] == "-" else 1
    if over := _OVER.match(plain, number.start("value")):
        return _ratio(over[1], over[2], sign)
    whole = Fraction(number["value"].replace(",", ""))
    if _UNFINISHED.match(plain, number.end()):
        return None
    if number["power"]:
        whole *= Fraction(10) ** int(number[4])
    mixed = _OVER.match(plain[number.end() :].lstrip()) if "." not in number["value"] else None
    part = _ratio(mixed[1], mixed[2]) if mixed and plain[number.end() : number.end() + 1] == " " else Fraction(0)
    return None if part is None else sign * (whole + part)


def _ratio(above: str, below: str, sign: int = 1) -> Fraction | None:
    divisor = Fraction(below.replace(",", ""))
    return sign * Fraction(above.replace(",", "")) / divisor if divisor else None


def same_number(prediction: str | None, reference: str) -> bool:
    """Exact rational comparison; False where either side holds no number."""
    if prediction is None:
        return False
    value = number_in(prediction)
    return value is not None and value == number_in(reference)
