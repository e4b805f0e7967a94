"""Text that went wrong as text: loops and gibberish. Definitions with thresholds; time linear in the text, memory
bounded.

A loop is an exactly periodic end: at least 3 repeats and 48 bytes (so that 48 tokens of any tokenizer are enough),
period at most 1365 characters. Or much repetition anywhere: at least 64 tokens, seq-rep-4 >= 0.7 (Welleck et al., arXiv
1908.04319) and zlib ratio >= 3 (the measure of Whisper, arXiv 2212.04356, which flags 2.4). Chosen so that no reference
solution of HumanEval and MBPP and no reference answer of GSM8K is one.
"""

from __future__ import annotations

import re
import unicodedata
import zlib
from collections import Counter
from collections.abc import Sequence

from harness.core.repetition import LEAST_BYTES, repeated_end

_PIECE = re.compile(r"[^\W\d_]{1,4}|\d|[^\w\s]|_|\n+")  # about as a BPE cuts; spaces belong to what follows them
_LONGEST = 200_000  # characters of the end of a text that are looked at for loops
_LEAST_TOKENS, _SEQ_REP_4, _ZLIB = 64, 0.7, 3.0
_STRANGE_SHARE, _LEAST_CHARACTERS = 0.05, 20
_SCRIPTS, _SCRIPT_SHARE = 3, 0.05
_ONE_SCRIPT = {
    "HIRAGANA": "CJK",
    "KATAKANA": "CJK",
    "GREEK": "LATIN",
    "MATHEMATICAL": "LATIN",
    "FULLWIDTH": "LATIN",
    "MICRO": "LATIN",
}


def is_loop(text: str, n_tokens: int | None = None) -> bool:
    """`n_tokens`: how many tokens the model wrote; estimated where that is unknown."""
    text = text[-_LONGEST:]
    pieces = _PIECE.findall(text)
    enough = n_tokens is None or n_tokens >= LEAST_BYTES
    return (enough and repeated_end(text) is not None) or (
        (n_tokens or len(pieces)) >= _LEAST_TOKENS and seq_rep_4(pieces) >= _SEQ_REP_4 and zlib_ratio(text) >= _ZLIB
    )


def seq_rep_4(tokens: Sequence[str | int]) -> float:
    """1 - |different 4-grams| / |4-grams|; 0 for fewer than 4 tokens."""
    grams = list(zip(tokens, tokens[1:], tokens[2:], tokens[3:], strict=False))
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def zlib_ratio(text: str) -> float:
    """Bytes over compressed bytes."""
    raw = text.encode("utf-8", "surrogatepass")
    return len(raw) / len(zlib.compress(raw)) if raw else 0.0


def is_gibberish(text: str) -> bool:
    """More than 5 % replacement, control, private or unassigned characters, or letters of three scripts, each at least
    5 % of them.

    Chinese and Japanese count as one script, as do Latin, Greek and mathematical letters. Ours; for texts of at least
    20 characters.
    """
    seen = Counter(text)
    shown = {character: count for character, count in seen.items() if not character.isspace()}
    total = sum(shown.values())
    if total < _LEAST_CHARACTERS:
        return False
    strange = sum(count for character, count in shown.items() if _is_strange(character))
    scripts: Counter[str] = Counter()
    for character, count in shown.items():
        if character.isalpha():
            scripts[_script(character)] += count
    letters = sum(scripts.values())
    return (
        strange > _STRANGE_SHARE * total
        or sum(count >= _SCRIPT_SHARE * letters for count in scripts.values()) >= _SCRIPTS
    )


def _is_strange(character: str) -> bool:
    return character == "\ufffd" or unicodedata.category(character) in ("Cc", "Co", "Cn", "Cs")


def _script(character: str) -> str:
    name = unicodedata.name(character, "UNKNOWN").partition(" ")[0]
    return _ONE_SCRIPT.get(name, name)
