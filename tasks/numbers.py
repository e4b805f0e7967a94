r"""Which number a short text is: 1,000, $12.50, \frac{3}{4}, 2½, 1.2 × 10⁵, ١٬٥٠٠.

A text is first normalised and then parsed. Every step takes time linear in the text's length, or by
a power of at most LONGEST characters.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence
from fractions import Fraction

LONGEST = 400  # characters of an answer; more than that is prose

_DIGITS = r"(?:\d{1,3}(?:,\d{2,3})*,\d{3}(?![\d,]*\d)|\d+)(?:\.\d+)?|\.\d+"
_LETTER = r"A-Za-z\u00c0-\u024f\u0370-\u03ff\u0400-\u04ff"  # of scripts that put spaces between words
_NUMBER = re.compile(
    rf"(?<![{_LETTER}\d_.^])(?P<sign>[-+]?)\s*\(?(?P<value>{_DIGITS})(?:[eE](?P<e>[-+]?\d{{1,3}})(?![A-Za-z\d_]))?"
)
_OVER = re.compile(rf"\(?\s*({_DIGITS})\s*\)?\s*/\s*\(?\s*({_DIGITS})\s*\)?")
_MIXED = re.compile(rf"\s+{_OVER.pattern}")
# after a number: the number is only a part of the answer
_UNFINISHED = re.compile(
    r"\)?\s*(?:[\^*+·÷&!]|/\s*[\d(]|times|\.\d|\d|-\s*\d|'|[<>≤≥≠]\s*\S|[xyznkbπ](?![A-Za-z\d_.])"
    r"|a(?![A-Za-z\d_.]|\s[a-z]{2})"  # $18 a day is 18
    r"|[A-Zx]\d|[xyz]{2,3}(?![A-Za-z])|\\?b?mod\b)"
    r"|\)?[A-Za-z]{0,9}_[A-Za-z\d(]|[eE][-+]?\d|[ei](?![A-Za-z\d_.])|\.?\(\d+\)|[\u0300-\u036f]"
)
_DOTS = re.compile(r"\.\.")  # behind a decimal: 3.33...
_FRACTIONS = "[dtc]?frac|nicefrac|sfrac|xfrac|flatfrac"
_MACRO = re.compile(
    rf"\\(?:{_FRACTIONS}|sqrt|root|pi|overline|bar|dot|ddot|pm|mp|log|ln|sum|prod|d?binom|choose|infty"
    r"|cup|cap|vee|lor|in|le|ge|lt|gt|leq|geq|neq?|leqslant|geqslant|lfloor|lceil|to|div|ldots|dots)(?![a-z])|[√∛∜±∓∞π∈⌊⌈]"
)
_INEQUALITY = re.compile(r"[<>≤≥≠]")
_SCALE = re.compile(r"\)?\s*((?:(?:hundred|thousand|million|billion|trillion)\b\s*)+)(?!-)|\)?\s*([万萬亿億])", re.I)
_SCALES = {"hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_SCALES |= {"万": 10**4, "萬": 10**4, "亿": 10**8, "億": 10**8}
# between two numbers: 2 hours 30 minutes
_COMPOUND = re.compile(r"\)?\s*(?!(?:of|in|per|out|at|for|from|by|on)\b)[A-Za-z]+,?\s+(?:and\s+)?$")
_SEPARATOR = re.compile(r"[,;:–-]|and|or|to|")

# characters
_ALIKE = str.maketrans(
    {"−": "-", "–": "-", "⁄": "/", "∕": "/", "’": "'", "٬": ",", "،": ",", "٫": ".", "٪": "%", "º": " ", "ª": " "}
    | {"…": " \\ldots ", "⩽": "≤", "⩾": "≥", "≦": "≤", "≧": "≥", "⋅": "·", "∙": "·", "‐": "-", "′": "'", "‘": "'"}
)
_RAISED = re.compile("([⁻⁺]?[⁰¹²³⁴⁵⁶⁷⁸⁹]+)")
_LOWERED = re.compile("([₀₁₂₃₄₅₆₇₈₉]+)")
_SMALL_FRACTION = re.compile("([⁰¹²³⁴⁵⁶⁷⁸⁹]+)[⁄/]([₀₁₂₃₄₅₆₇₈₉]+)")

# LaTeX and markup
_SPACES = re.compile(r"(\s)\s+")
_TAG = re.compile(r"<<[^<>]{0,200}>>|[\d.,]{1,20}>>|</?[A-Za-z|][^<>\n]{0,60}>")  # calculator marks, HTML
_ANGLES = re.compile(r"<(?=[^<>\d]{0,40}\d)([^<>]{1,80})>")
_COLOUR = re.compile(r"\\(?:text)?color\s?(?:\[\w{1,9}\])?\s?\{[^{}]{0,40}\}")
_WRAPPER = re.compile(
    r"\\(?:text(?:bf|it|rm|sf|tt|normal)?|math(?:bf|rm|it|sf|tt|bb|cal|normal)|mbox|hbox|operatorname"
    r"|boldsymbol|bm|bf|rm|left|right|big|Big|bigl|bigr|displaystyle|textstyle|quad|qquad|emph|underline|num|ensuremath"
    r"|space|enspace|thinspace)(?![a-zA-Z])\*?"
)
_WRAPPED = re.compile(rf"{_WRAPPER.pattern}\s?\{{([^{{}}]*)\}}")
_DOUBLE_BRACES = re.compile(r"\{\s?\{([^{}]*)\}\s?\}")
_FRACTION = re.compile(
    rf"\\(?:{_FRACTIONS})(?![a-z])\s*(?:\{{([^{{}}]*)\}}|(\d))\s*(?:\{{([^{{}}]*)\}}|(\d))"
    r"|\{\s?(\d+)\s?\\over(?![a-z])\s?(\d+)\s?\}"
)
_SIDE = re.compile(rf"\s*([-+]?\s?(?:{_DIGITS}))\s*(?: [A-Za-z ]+)?")
_CURRENCY = re.compile(
    r"(?<![A-Za-z])(?:US|CA|AU|NZ|HK|C|A|S)?\\?\$|[€£¥₹₽₩₪₫₱]"
    r"|\\(?:(?:math|text)(?:dollar|sterling|yen|euro)|euro|EUR|pounds|yen|rupee|dollar)(?![a-z])"
    r"|\b(?:USD|EUR|GBP|INR|Rs\.?)(?=\s*[-\d.])",
    re.I,
)
_PRICE = re.compile(r"(?<=\d )(?=\\?[$€£¥₹]\s?\d)")  # 6 $500 cards are not 6500
_SHORT_SCALE = re.compile(  # $3M; without a currency M is as well a unit
    r"(?<=\d)\)?(?:(?P<k>K|\s?k)(?![A-Za-z\d_^])|(?<=[\d.])(?P<m>[Mm]n?|[Bb]n?)(?![A-Za-z\d_^$]))"
)
_MONEY = re.compile(
    r"(?:[€£¥₹]|\\\$|\\(?:math|text)dollar|^[^$]*\$)\s?[\d.,]+(?:[Mm]n?|[Bb]n?)\b(?!\$)"
    r"|(?<=\d)[MB] (?:dollars|euros?|pounds|USD|EUR|GBP)\b"
)
_DEGREES = re.compile(r"\^\s*\{?\s*\\circ\s*\}?")
_ORDINAL = re.compile(r"(?<=\d)\s*\^?\s*\{?\s*(?:st|nd|rd|th)\b\s*\}*")
_UNIT_POWER = re.compile(r"(?<=[A-Za-z}])\s*\^\s*(?:\{\s*-?\d+\s*\}|-?\d)")
_SUBSCRIPT = re.compile(r"\s?_\s?\{\s?")
_ITALIC = re.compile(r"(?<![\w)*])\*(?=\S)([^*\n]{1,80})(?<=\S)\*(?![\w(*])")
_EMPHASIS = re.compile(r"(?<![A-Za-z\d_)}\\])_{1,3}")
# powers of ten and groups of thousands
_TEN_POWER = re.compile(
    rf"(?:(?P<by>(?<=\d)\s*(?:\*|x|times|·)\s*)|(?<![{_LETTER}\d.,_^/*]))10\s*\^\s*[({{]?\s*(?P<e>[-+]?\d{{1,3}})"
    r"(?!\d|[.,]\d|\s?[/^*+(-]\s?[\d(])(?:\s?[)}])?(?![A-Za-z_])"
)
_GROUPS = re.compile(r"(?<![\d.,_^A-Za-z])(\d{1,3})((?:[ _]\d{3})+)(?![ ,_]?\d|-[A-Za-z]|_[A-Za-z])")

_PLAIN = {
    "\\,": "",
    "\\!": "",
    "\\_": "_",
    "\\(": " ",
    "\\)": " ",
    "\\[": " ",
    "\\]": " ",
    "\\;": " ",
    "\\:": " ",
    "\\>": " ",
    "\\ ": " ",
    "~": " ",
    "\\times": " times ",
    "\\cdot": " times ",
    "×": " times ",
    "\\%": " ",
    "%": " ",
    "`": " ",
    "!=": "≠",
    ">=": "≥",
    "<=": "≤",
    "=>": "=",
    "->": "=",
    "→": "=",
}


def number_in(text: str) -> Fraction | None:
    """The number that an answer is, exactly: 1,000 and $12.50, 3/4 and \\frac{3}{4}, 2 1/2, 50 %, 18 apples, 3 million.

    A unit, a currency or words may stand around it, and of an equation the last side with a number counts. An answer
    that begins with a number is that number.

    Returns:
        None for what is not one number: 3, 4; 10:30; 2 hours 30 minutes; 5 + 3; a root; a letter beside a number; 5!;
        x > 3; 204_5; 3.33...
    """
    plain = _simplified(text[:LONGEST])
    numbers = list(_NUMBER.finditer(plain))
    if not numbers or _MACRO.search(plain[: numbers[0].end() + 12]):
        return None
    before = plain[: numbers[0].start()]
    if _INEQUALITY.search(before) or (len(numbers) > 1 and _is_several(plain, numbers)):
        return None
    if len(numbers) > 1 and before.strip(" (*_:") and "=" not in text:
        return None
    return _value(plain, numbers[0])


def same_number(prediction: str | None, reference: str) -> bool:
    """Exact rational comparison; False where either side holds no number."""
    if prediction is None:
        return False
    value = number_in(prediction)
    return value is not None and value == number_in(reference)


def before_number(text: str) -> str | None:
    """The text before the first number, normalised and without brackets; None for a text without a number."""
    plain = _simplified(text[:LONGEST])
    found = _NUMBER.search(plain)
    return plain[: found.start()].strip(" ([]>*_:\"'") if found else None


def is_single(text: str) -> bool:
    """Whether a text holds one number only; a fraction or a mixed number is one."""
    plain = _simplified(text[:LONGEST])
    if len(_NUMBER.findall(plain)) == 1:
        return True
    return bool(re.fullmatch(rf"[-+]?\s*(?:{_DIGITS})?\s*{_OVER.pattern}\D*", plain.strip().replace("(-", "-(")))


def _simplified(text: str) -> str:
    """Without LaTeX, currencies and units' powers; of an equation its last side with a number."""
    text = _SPACES.sub(r"\1", _in_plain_characters(text))  # some patterns take time by a power of the spaces
    text = _ANGLES.sub(r" \1 ", _TAG.sub(" ", _COLOUR.sub("", text)))
    text = re.sub(r" ?\{ ?, ?\} ?", ",", text.replace("\\,", "").replace("\\!", ""))
    text = _scales_in_words(re.sub(r"(?<=\d)\*\*(?=\d)", "^", text)).replace("**", " ")
    text = _PRICE.sub("; ", _ITALIC.sub(r" \1 ", text))
    text = _CURRENCY.sub("", text)
    for _ in range(3):  # \\mathbf{\\text{3}}
        text = _WRAPPED.sub(r" \1 ", text)
    text = _WRAPPER.sub(" ", text)
    for old, new in _PLAIN.items():
        text = text.replace(old, new)
    text = _SPACES.sub(r"\1", text)
    for _ in range(3):
        text = _DOUBLE_BRACES.sub(r"{\1}", text)
    text = _UNIT_POWER.sub("", _ORDINAL.sub(" ", _DEGREES.sub("", text)))
    text = re.sub(r"(?<=\d)'(?=\d{3}(?:\D|$))", "", text)
    text = _FRACTION.sub(_on_one_line, text)
    text = _EMPHASIS.sub(" ", _SUBSCRIPT.sub("_", text)).replace("{", " ").replace("}", " ")
    text = _TEN_POWER.sub(lambda m: f"{'' if m['by'] else '1'}e{m['e']}", _SPACES.sub(r"\1", text))
    text = _GROUPS.sub(lambda m: re.sub(r"\D", "", m[0]), text)
    sides = [side for side in re.split(r"=|≈|\\approx", text) if re.search(r"\d", side)]
    return sides[-1] if sides else ""


def _in_plain_characters(text: str) -> str:
    """ASCII digits, signs and spaces for those of other scripts; small fractions, powers and indices on the line."""
    if text.isascii():
        return text
    text = _SMALL_FRACTION.sub(lambda m: f" {_folded(m[1])}/{_folded(m[2])}", text)
    text = _RAISED.sub(lambda m: f"^{{{_folded(m[1])}}}", text)
    text = _LOWERED.sub(lambda m: f"_{_folded(m[1])}", text).translate(_ALIKE)
    return "".join(map(_plain_character, text))


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", text).translate(_ALIKE)


def _plain_character(character: str) -> str:
    if character.isascii():
        return character
    if character.isdecimal():
        return str(unicodedata.decimal(character))
    if unicodedata.category(character) == "Cf":  # marks of width zero and of direction
        return ""
    folded = unicodedata.normalize("NFKC", character)
    if unicodedata.decomposition(character).startswith("<fraction>"):
        return " " + folded.replace("⁄", "/")
    return folded.translate(_ALIKE)


def _scales_in_words(text: str) -> str:
    """12k is 12 thousand; of money, 3M is 3 million and 3B is 3 billion."""
    money = bool(_MONEY.search(text))

    def in_words(match: re.Match[str]) -> str:
        if match["k"]:
            return " thousand"
        return (" million" if match["m"].lower()[0] == "m" else " billion") if money else match[0]

    return _SHORT_SCALE.sub(in_words, text)


def _on_one_line(fraction: re.Match[str]) -> str:
    """3/4; unchanged, and so no number, where a side is more than a number and its unit."""
    above, below = fraction[1] or fraction[2] or fraction[5], fraction[3] or fraction[4] or fraction[6]
    sides = [_SIDE.fullmatch(side or "") for side in (above, below)]
    return " (" + ")/(".join(side[1] for side in sides if side) + ")" if all(sides) else fraction[0]


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
    value, end = _magnitude(plain, number)
    rest = plain[end:]
    if value is not None and (scale := _SCALE.match(rest)):
        value *= math.prod(_SCALES[name] for name in (scale[1] or scale[2]).lower().split())
    elif _UNFINISHED.match(rest) or ("." in number["value"] and _DOTS.match(rest)):
        return None
    return -value if value is not None and number["sign"] == "-" else value


def _magnitude(plain: str, number: re.Match[str]) -> tuple[Fraction | None, int]:
    """A fraction, a mixed number or a decimal without its sign, and where it ends; None for a division by zero."""
    if over := _OVER.match(plain, number.start("value")):
        return _ratio(over[1], over[2]), over.end()
    whole = _decimal(number["value"]) * Fraction(10) ** int(number["e"] or 0)
    mixed = _MIXED.match(plain, number.end()) if "." not in number["value"] else None
    if mixed is None:
        return whole, number.end()
    part = _ratio(mixed[1], mixed[2])
    return None if part is None else whole + part, mixed.end()


def _decimal(digits: str) -> Fraction:
    return Fraction(digits.replace(",", ""))


def _ratio(above: str, below: str) -> Fraction | None:
    return _decimal(above) / divisor if (divisor := _decimal(below)) else None
