r"""Final answers of worked solutions: `\boxed{14}`, `#### 14`, `A: 14`, `The answer is 14`.

Only an answer that the text marks as one counts; the last number of a chain of thought is not an answer. No answer is
None, never a wrong parse. The time is linear in the length of the text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction

_LONGEST = 400  # characters of a marked answer; more than that is prose
_LONGEST_TEXT = 200_000  # of its end: a final answer stands there
_BOXES = 16  # boxes that are examined, from the last one
_BOX = re.compile(r"\\f?boxed[ \t]*")
_HASH = re.compile(r"####[ \t]*([^\n]{0,400})")
_STATED = re.compile(
    r"^[ \t>*_#-]*(?:(?:the[ \t]+)?(?:final[ \t]+)?(?:answer|ans)[*_]*[ \t]*[:=]|A[*_]*[ \t]*:)"
    r"[*_ \t]*(?:\n\s*)?([^\n]{1,400})"
    r"|^[ \t]*#{1,6}[ \t]*(?:final[ \t]+)?answer[ \t]*\n\s*([^\n]{1,400})"
    r"|\banswer is:?[ \t]*(?:\n\s*)?([^\n]{1,400})|<answer>([^<]{1,400})</answer>",
    re.I | re.M,
)
_NEXT_QUESTION = re.compile(r"^[ \t]*(?:Q|Question)[ \t]*:", re.M)
_HEADING = re.compile(r"^\d+[.)][ \t]+[A-Za-z*]")
_TEXT = re.compile(r"\\text\s*\{[^{}]*\}")
_BRACE = re.compile(r"\\.|[{}]", re.S)

_DIGITS = r"(?:\d{1,3}(?:,\d{2,3})*,\d{3}(?![\d,]*\d)|\d+)(?:\.\d+)?|\.\d+"
_NUMBER = re.compile(
    rf"(?<![\w.^])(?P<sign>[-+]?)\s*\(?(?P<value>{_DIGITS})"
    r"(?:[eE](?P<e>[-+]?\d{1,3})(?!\w)|\s*(?:\*|x|times)\s*10\s*\^\s*\(?(?P<power>-?\d{1,3})\)?)?"
)
_FRACTION = re.compile(r"\\[dtc]?frac\s*(?:\{([^{}]*)\}|(\d))\s*(?:\{([^{}]*)\}|(\d))")
_OVER = re.compile(rf"\(?\s*({_DIGITS})\s*\)?\s*/\s*\(?\s*({_DIGITS})\s*\)?")
# after a number: the number is only a part of the answer
_UNFINISHED = re.compile(r"\)?\s*(?:[\^*+·]|/\s*[\d(]|times|\.\d|\d|-\s*\d|'|[xyznkabπ](?![\w.]))")
_MACRO = re.compile(
    r"\\(?:sqrt|pi|overline|bar|pm|mp|log|ln|sum|prod|binom|infty|cup|cap|in|le|ge|leq|geq|neq|to|ldots|dots)(?![a-z])"
    r"|[√±∞π…]"
)
_CURRENCY = re.compile(
    r"(?<![A-Za-z])(?:US|CA|AU|NZ|HK|C|A|S)?\\?\$|[€£¥₹₽]|\b(?:USD|EUR|GBP|INR|Rs\.?)(?=\s*[-\d.])", re.I
)
_SPACES = re.compile(r"(\s)\s+")
_DEGREES = re.compile(r"\^\s*\{?\s*\\circ\s*\}?")
_ORDINAL = re.compile(r"(?<=\d)\s*\^?\s*\{?\s*(?:\\text\s*\{)?\s*(?:st|nd|rd|th)\b\s*\}*")
_SPACED = re.compile(r"(?<![\d.,])(\d{1,3})((?:(?:\\ |~|[ \u00a0\u202f])\d{3})+)(?![\d.]*\d)")
_WRAPPER = re.compile(
    r"\\(?:text(?:bf|it|rm|sf)?|math(?:bf|rm|it|sf|tt)|mbox|operatorname|left|right|displaystyle|quad|qquad)"
    r"(?![a-zA-Z])\*?"
)
_UNIT_POWER = re.compile(r"(?<=[A-Za-z}])\s*\^\s*(?:\{\s*-?\d+\s*\}|-?\d)|(?<=[A-Za-z])[²³]")
_SCALE = re.compile(r"\)?\s*(thousand|million|billion)\b", re.I)
_SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9}
# between two numbers: 2 hours 30 minutes
_COMPOUND = re.compile(r"\)?\s*(?!(?:of|in|per|out|at|for|from|by|on)\b)[A-Za-z]+,?\s+(?:and\s+)?$")
_SEPARATOR = re.compile(r"[,;:–-]|and|or|to|")
_PLAIN = {
    "−": "-",
    "–": "-",
    "\\,": "",
    "\\!": "",
    "{,}": ",",
    "\\;": " ",
    "\\:": " ",
    "\\ ": " ",
    "~": " ",
    "\\times": " times ",
    "\\cdot": " times ",
    "×": " times ",
    "\\%": " ",
    "%": " ",
    "**": " ",
    "`": " ",
    "\u202f": "",
    "\u00a0": " ",
}

Marked = tuple[str, bool]  # what a mark holds, and whether it ended before the text did
Finder = Callable[[str], Iterator[Marked]]


def boxes(text: str) -> Iterator[Marked]:
    r"""The contents of \boxed{...}, last first, braces nested to any depth; an unclosed one ends with its line.

    A box holds one number or none: in it 2 500 is 2500.
    """
    starts = [match.end() for match in _BOX.finditer(text)][-_BOXES:]
    for start in reversed(starts):
        part = text[start : start + _LONGEST]
        content, ended = (
            _braced(part)
            if part.startswith("{")
            else (part.split(maxsplit=1)[0] if part.strip() else "", len(part) > 1)
        )
        content = _SPACED.sub(lambda match: re.sub(r"[^\d]", "", match[0]), content)
        for one in (content, _TEXT.sub(" ", content)):  # a number in a unit's words is not the answer's
            if len(_NUMBER.findall(_simplified(one))) == 1 or _is_one(one):
                yield one, ended
                break


def _braced(part: str) -> Marked:
    depth = 0
    for match in _BRACE.finditer(part):
        depth += {"{": 1, "}": -1}.get(match[0], 0)
        if depth == 0:
            return part[1 : match.start()], True
    content, newline, _ = part[1:].partition("\n")
    return content, bool(newline)


def _is_one(content: str) -> bool:
    """A fraction or a mixed number has several in it."""
    plain = _simplified(content).strip().replace("(-", "-(")
    return bool(re.fullmatch(rf"[-+]?\s*(?:{_DIGITS})?\s*{_OVER.pattern}\D*", plain))


def hashes(text: str) -> Iterator[Marked]:
    """What follows `####` on its line, last first; a heading that only holds a number somewhere is none."""
    for match in reversed(list(_HASH.finditer(text))):
        if _leads(match[1]) and not _HEADING.match(match[1]):
            yield match[1], match.end() < len(text)


def _leads(content: str) -> bool:
    """It begins with its number, a currency, a name and `=`, or the words `the answer is` aside."""
    plain = re.sub(
        r"^(?:the\s+)?(?:final\s+)?answer(?:\s+is)?\s*[:=]?|^\s*\w+\s*=(?=\s*[-\d$\\])",
        "",
        content.strip(" *_:"),
        flags=re.I,
    )
    found = _NUMBER.search(_simplified(plain))
    return bool(found) and not _simplified(plain)[: found.start() if found else 0].strip(" ([*_:")


def statements(text: str) -> Iterator[Marked]:
    """What follows `A:`, `Answer:` at the start of a line or `the answer is`, last first.

    After a bare `A:` with words the reasoning may begin, so that counts only where the line is the text's last.
    """
    for match in reversed(list(_STATED.finditer(text))):
        content = (match[1] or match[2] or match[3] or match[4]).rpartition("answer is")[2].lstrip(" :")
        last = not text[match.end() :].strip()
        if not re.match(r"(?:not|n't)\b", content) and (last or not match[1] or _leads(content)):
            yield content, match.end() < len(text)


def final_answer(text: str, finders: Sequence[Finder], truncated: bool = False) -> str | None:
    """The last marked answer that is a number, by the first finder that has one.

    Args:
        text: the whole answer of a model.
        finders: `boxes`, `hashes` and `statements`, the form that the prompt asks for first.
        truncated: the token limit cut the text, so a mark that is still open at its end may hold half a number and does
            not count.

    Returns:
        What the mark holds, as written; None where nothing marked is a number.
    """
    text = text[-_LONGEST_TEXT:]
    following = _NEXT_QUESTION.search(text, 1)  # a base model continues with further questions
    if following and (found := _marked(text[: following.start()], finders, False)) is not None:
        return found
    return _marked(text, finders, truncated)


def _marked(text: str, finders: Sequence[Finder], truncated: bool) -> str | None:
    for find in finders:
        for marked, ended in find(text):
            if (ended or not truncated) and number_in(marked) is not None:
                return marked.strip()
    return None


def number_in(text: str) -> Fraction | None:
    """The number that an answer is, exactly: 1,000 and $12.50, 3/4 and \\frac{3}{4}, 2 1/2, 50 %, 18 apples, 3 million.

    A unit, a currency or words may stand around it, and of an equation the last side with a number counts. An answer
    that begins with a number is that number.

    Returns:
        None for what is not one number: 3, 4; 10:30; 2 hours 30 minutes; 5 + 3; a root; a letter beside a number.
    """
    plain = _simplified(text[:_LONGEST])
    numbers = list(_NUMBER.finditer(plain))
    if (
        not numbers
        or _MACRO.search(plain[: numbers[0].end() + 12])
        or (len(numbers) > 1 and _is_several(plain, numbers))
    ):
        return None
    if len(numbers) > 1 and plain[: numbers[0].start()].strip(" (*_:") and "=" not in text:
        return None
    return _value(plain, numbers[0])


def _simplified(text: str) -> str:
    """Without LaTeX, currencies and units' powers; of an equation its last side with a number."""
    for old, new in _PLAIN.items():
        text = text.replace(old, new)
    text = _SPACES.sub(r"\1", text)  # some of the patterns below take time by a power of the number of spaces
    text = _ORDINAL.sub(" ", _DEGREES.sub("", text))
    text = re.sub(r"(?<=\d)'(?=\d{3}(?:\D|$))", "", _UNIT_POWER.sub("", _CURRENCY.sub("", text)))
    text = _FRACTION.sub(lambda m: f" ({m[1] or m[2]})/({m[3] or m[4]})", text)
    text = _SPACES.sub(r"\1", _WRAPPER.sub(" ", text).replace("{", " ").replace("}", " "))
    sides = [side for side in re.split(r"=|≈|\\approx", text) if re.search(r"\d", side)]
    return sides[-1] if sides else ""


def _is_several(plain: str, numbers: Sequence[re.Match[str]]) -> bool:
    """Joined by nothing but a separator, or by a unit as in 2 hours 30 minutes; a fraction and a mixed number are
    one.
    """
    between = plain[numbers[0].end() : numbers[1].start()]
    if _OVER.match(plain, numbers[0].start("value")) or (
        not between.strip() and _OVER.match(plain, numbers[1].start("value"))
    ):
        return False
    return bool(_SEPARATOR.fullmatch(between.strip()) or _COMPOUND.fullmatch(between))


def _value(plain: str, number: re.Match[str]) -> Fraction | None:
    sign = -1 if number["sign"] == "-" else 1
    if over := _OVER.match(plain, number.start("value")):
        return None if _UNFINISHED.match(plain, over.end()) else _ratio(over[1], over[2], sign)
    rest = plain[number.end() :]
    whole = Fraction(number["value"].replace(",", "")) * Fraction(10) ** int(number["e"] or number["power"] or 0)
    if scale := _SCALE.match(rest):
        return sign * whole * _SCALES[scale[1].lower()]
    mixed = _OVER.match(rest.lstrip()) if "." not in number["value"] and rest.startswith(" ") else None
    if mixed:
        part = _ratio(mixed[1], mixed[2])
        return None if part is None else sign * (whole + part)
    return None if _UNFINISHED.match(rest) else sign * whole


def _ratio(above: str, below: str, sign: int = 1) -> Fraction | None:
    divisor = Fraction(below.replace(",", ""))
    return sign * Fraction(above.replace(",", "")) / divisor if divisor else None


def same_number(prediction: str | None, reference: str) -> bool:
    """Exact rational comparison; False where either side holds no number."""
    if prediction is None:
        return False
    value = number_in(prediction)
    return value is not None and value == number_in(reference)
