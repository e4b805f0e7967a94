r"""Final answers out of worked solutions: `#### 14` and `\boxed{14}`. No answer is None, never a wrong parse."""

from __future__ import annotations

import re
from fractions import Fraction

_HASH = re.compile(r"####\s*([^\n]*)")
_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?(?:\s*/\s*\d+)?|-?\.\d+")
_FRACTION = re.compile(r"(-?)\\[dt]?frac\{([^{}]+)\}\{([^{}]+)\}")


def hash_answer(text: str) -> str | None:
    """The text after the last `####` of a line that holds a number."""
    lines = [line for line in _HASH.findall(text) if number_in(line) is not None]
    return lines[-1].strip() if lines else None


def boxed_answer(text: str) -> str | None:
    r"""The content of the last closed \boxed{...}, braces nested to any depth."""
    for start in reversed([match.end() for match in re.finditer(r"\\boxed\s*\{", text)]):
        depth = 1
        for position in range(start, len(text)):
            depth += {"{": 1, "}": -1}.get(text[position], 0)
            if depth == 0:
                return text[start:position].strip() or None
    return None


def number_in(text: str) -> Fraction | None:
    """The last number in an answer, exactly: 1,000 and $12.50 and 3/4 and \\frac{3}{4}."""
    plain = _FRACTION.sub(r"\1\2/\3", text).replace("\\!", "").replace("{,}", ",")
    found = _NUMBER.findall(plain)
    if not found:
        return None
    try:
        return Fraction(found[-1].replace(",", "").replace(" ", ""))
    except (ValueError, ZeroDivisionError):
        return None


def same_number(prediction: str | None, reference: str) -> bool:
    """Exact rational comparison; False where either side holds no number."""
    if prediction is None:
        return False
    value = number_in(prediction)
    return value is not None and value == number_in(reference)
