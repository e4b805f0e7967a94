"""Gibberish: characters that are no text, or words of several scripts mixed without order. Ours; time linear in the
text.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import groupby

_LONGEST = 200_000  # characters of the end of a text that are looked at
_LEAST_CHARACTERS, _LEAST_STRANGE, _STRANGE_SHARE = 20, 4, 0.05
_SCRIPTS = 3
# (runs that each of three scripts has at least, letters per run at most), where single spaces or nothing stand between
_SALADS = ((3, 6.0), (5, 8.0), (12, 9.5))
_LISTED = ((15, 8.0),)  # where punctuation does, in one line
_TERMINAL = re.compile(  # colours, cursor, title of a terminal (ECMA-48)
    r"\x1b(?:\[[0-?]{0,40}[ -/]{0,4}[@-~]|\][^\x07\x1b]{0,200}(?:\x07|\x1b\\)|[()][0-2A-Z])"
)
# a bullet or sign of Symbol and Wingdings that stands alone
_ICON = re.compile(r"[\uf000-\uf0ff](?<![\ue000-\uf8ff].)(?!\s*[\ue000-\uf8ff])")
_UNASSIGNED_YET = ((0x1F000, 0x1FAFF), (0x20000, 0x3FFFD))  # emoji and Han characters newer than Python's tables
# scripts that are written together are one: Han with kana, hangul or bopomofo, Latin with Greek in mathematics
_EAST_ASIA, _WEST = "CJK", "LATIN"
_GROUPS = {
    "IDEOGRAPHIC": _EAST_ASIA,
    "HIRAGANA": _EAST_ASIA,
    "KATAKANA": _EAST_ASIA,
    "HANGUL": _EAST_ASIA,
    "BOPOMOFO": _EAST_ASIA,
    "CJK": _EAST_ASIA,
    "LATIN": _WEST,
    "GREEK": _WEST,
}
_OTHER_SCRIPTS = (
    "CYRILLIC ARMENIAN HEBREW ARABIC SYRIAC THAANA DEVANAGARI BENGALI GURMUKHI GUJARATI ORIYA TAMIL TELUGU KANNADA "
    "MALAYALAM SINHALA THAI LAO TIBETAN MYANMAR GEORGIAN ETHIOPIC CHEROKEE CANADIAN OGHAM RUNIC KHMER MONGOLIAN YI "
    "NKO GLAGOLITIC COPTIC TIFINAGH JAVANESE BALINESE SUNDANESE GOTHIC LISU VAI"
)
_SCRIPTS_BY_NAME = {**{name: name for name in _OTHER_SCRIPTS.split()}, **_GROUPS}
_BETWEEN = dict.fromkeys(",.;:!?、。，；：", ",")
_SPACES = {code: " " if code == 32 else "|" for code in range(0x3001) if chr(code).isspace()}
_NAME_PARTS = re.compile(r"[ -]")
# in a text of codes of scripts
_CHAIN, _LINE = re.compile(r"[^ ,|]+(?: [^ ,|]+)*"), re.compile(r"[^|]+")


def is_gibberish(text: str) -> bool:
    """Whether an answer is no text of any language.

    True for more than 5 % of replacement, control, private and unassigned characters and lone surrogates, and for words
    of three scripts that follow each other in no order. For texts of at least 20 characters, or with 4 such characters.
    Bullets of symbol fonts, new emoji and colour codes are text. So are translations, where a script stands once, or
    behind punctuation.
    """
    text = _ICON.sub(" ", _TERMINAL.sub("", text[-_LONGEST:]))
    shown = {character: count for character, count in Counter(text).items() if not character.isspace()}
    total = sum(shown.values())
    strange = sum(count for character, count in shown.items() if _is_strange(character))
    if total < _LEAST_CHARACTERS and strange < _LEAST_STRANGE:
        return False
    return strange > _STRANGE_SHARE * total or _is_salad(text, shown)


def _is_strange(character: str) -> bool:
    category = unicodedata.category(character)
    if category == "Cn":
        return not any(first <= ord(character) <= last for first, last in _UNASSIGNED_YET)
    return character == "\ufffd" or category in ("Cc", "Co", "Cs")


def _is_salad(text: str, shown: Iterable[str]) -> bool:
    """Three scripts each come back, with nothing but single spaces or punctuation at the borders."""
    table = _codes(shown)
    if len(set(table.values()) - {"", "|", ","}) < _SCRIPTS:
        return False
    coded = text.translate({**table, **_SPACES})
    return _comes_back(_CHAIN.findall(coded), _SALADS) or any(
        _comes_back([line], _LISTED) for line in _LINE.findall(coded)
    )


def _comes_back(chains: Iterable[str], limits: Iterable[tuple[int, float]]) -> bool:
    runs: Counter[str] = Counter()
    letters = 0
    for chain in chains:
        joined = chain.replace(" ", "").replace(",", "")
        if len(set(joined)) > 1:
            letters += len(joined)
            runs.update(code for code, _ in groupby(joined))
    third = sorted(runs.values(), reverse=True)[_SCRIPTS - 1] if len(runs) >= _SCRIPTS else 0
    return any(third >= least and letters <= most * runs.total() for least, most in limits)


def _codes(characters: Iterable[str]) -> Mapping[int, str]:
    """Character -> one letter for its script, "" for marks, "," for punctuation within a line, "|" for the rest."""
    letters: dict[str, str] = {}
    found: dict[int, str] = {}
    for character in characters:
        if unicodedata.category(character) in ("Mn", "Mc", "Me", "Cf"):
            found[ord(character)] = ""
        else:
            name = script_of(character)
            found[ord(character)] = (
                letters.setdefault(name, chr(ord("A") + len(letters))) if name else _BETWEEN.get(character, "|")
            )
    return found


def script_of(character: str) -> str | None:
    """The script of a letter, with those that are written together as one; None for other characters.

    By the character's name: "HALFWIDTH KATAKANA LETTER A", "CJK UNIFIED IDEOGRAPH-4E00". A letter whose name names no
    script, such as the double-struck R, belongs to none, as in Unicode's own Scripts.txt.
    """
    if not character.isalpha():
        return None
    parts = _NAME_PARTS.split(unicodedata.name(character, ""))
    return next((_SCRIPTS_BY_NAME[part] for part in parts if part in _SCRIPTS_BY_NAME), None)
