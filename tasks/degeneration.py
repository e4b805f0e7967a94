"""Loops: an answer that says the same again and again. Definitions with thresholds; time linear in the text, memory
bounded. docs/evaluation.md says how often they are right.

How much repetition is a loop depends on how the answer ended. Where the token limit cut it, or the end is unknown:

- an exactly periodic end of at least 3 repeats and 48 characters (so that 48 tokens of any tokenizer are enough),
  period at most 1365 characters; 200 characters where the period has no letter, digit or emoji, as in a rule;
- much repetition anywhere: at least 64 tokens, seq-rep-4 >= 0.7 (Welleck et al., arXiv 1908.04319) and zlib ratio >= 3
  (the measure of Whisper, arXiv 2212.04356, which flags 2.4), mostly letters.

Only where the token limit cut it:

- an end that is periodic once every number is 0, of at least 8 repeats and 256 characters;
- an exactly periodic part anywhere, of at least 8 repeats and 120 characters of three words, or 160 of two;
- at least 150 words of which at most one in 20 is new.

An answer that ended by itself may end in a rule, a table, zeros or a refrain. It is a loop from 6 repeats and 300
characters of four words on, 600 of two words (or of four words anywhere in it), 1000 of anything.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping, Sequence

from harness.core.repetition import LEAST_CHARACTERS, REPEATS, repeated_end, repeated_parts

_PIECE = re.compile(r"[^\W\d_]{1,4}|\d|[^\w\s]|_|\n+")  # about as a BPE cuts; spaces belong to what follows them
_WORD = re.compile(r"[^\W\d_]+")
# letters of scripts without spaces between words
_UNSPACED = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]")
# -3, 1,200.5, 2nd, 0x1f
_NUMBER = re.compile(r"(?:(?<!\w)-)?\d[\dA-Za-z]*(?:[.,:]\d+)*|[〇零一二三四五六七八九十百千]+")
_LONGEST = 200_000  # characters of the end of a text that are looked at for loops
_LEAST_TOKENS, _SEQ_REP_4, _ZLIB = 64, 0.7, 3.0
_LETTERS = 0.5  # of the characters that show
_SIGNS = 200  # characters of a rule, dots or blanks that are no loop yet
_FIRST_EMOJI = 0x1F000
_COUNTER_REPEATS, _COUNTER = 8, 256
_PART_REPEATS, _PART = 8, {3: 120, 2: 160}  # words in the period -> fewest characters
_ENDED_REPEATS, _ENDED, _ENDED_PART = 6, {4: 300, 2: 600, 0: 1000}, {4: 600}
_RIGHT = 1000
_FEW_WORDS, _FEW = 150, 0.05


def is_loop(text: str, n_tokens: int | None = None, finish_reason: str | None = None, right: bool = False) -> bool:
    """Whether an answer says the same again and again.

    Args:
        text: The answer.
        n_tokens: How many tokens the model wrote; estimated where that is unknown.
        finish_reason: "length" where the token limit cut the answer, "stop" where it ended by itself.
        right: It was graded as right; one that also ended by itself is a loop from 1000 characters on.
    """
    text = text[-_LONGEST:]
    enough = n_tokens is None or n_tokens >= LEAST_CHARACTERS
    if finish_reason == "stop":
        return enough and _went_on(text, _RIGHT if right else 0)
    if (enough and _stuck(text)) or _repetitive(text, n_tokens):
        return True
    return finish_reason == "length" and (_counts(text) or _has_part(text, _PART_REPEATS, _PART) or _few_words(text))


def _stuck(text: str) -> bool:
    """The end is exactly periodic."""
    end = repeated_end(text, REPEATS, LEAST_CHARACTERS)
    if end is None:
        return False
    return len(text) - end.start >= _SIGNS or any(map(_is_content, text[end.start : end.start + end.period]))


def _is_content(character: str) -> bool:
    """A letter, digit or emoji, and no sign that a rule or a table is drawn with."""
    return character.isalnum() or ord(character) >= _FIRST_EMOJI


def _repetitive(text: str, n_tokens: int | None) -> bool:
    pieces = _PIECE.findall(text)
    return (
        (n_tokens or len(pieces)) >= _LEAST_TOKENS
        and seq_rep_4(pieces) >= _SEQ_REP_4
        and zlib_ratio(text) >= _ZLIB
        and _share_of_letters(text) >= _LETTERS
    )


def _counts(text: str) -> bool:
    """The end is periodic but for the numbers in it."""
    same = _NUMBER.sub("0", text)
    end = repeated_end(same, _COUNTER_REPEATS, _COUNTER)
    return end is not None and any(map(str.isalpha, same[end.start : end.start + end.period]))


def _few_words(text: str) -> bool:
    words = _WORD.findall(text)
    return len(words) >= _FEW_WORDS and len(set(words)) <= _FEW * len(words) and _share_of_letters(text) >= _LETTERS


def _went_on(text: str, least: int) -> bool:
    """The rule for answers that ended by themselves; `least`: the fewest characters of any repetition."""
    end = repeated_end(text, _ENDED_REPEATS, max(least, min(_ENDED.values())))
    if end and _enough(text[end.start : end.start + end.period], len(text) - end.start, _ENDED):
        return True
    return _has_part(text, _ENDED_REPEATS, {words: max(least, size) for words, size in _ENDED_PART.items()})


def _has_part(text: str, repeats: int, least: Mapping[int, int]) -> bool:
    """A part of the text is exactly periodic and other text follows."""
    parts = repeated_parts(text, repeats, min(least.values()))
    return any(_enough(text[part.start : part.start + part.period], part.end - part.start, least) for part in parts)


def _enough(period: str, size: int, least: Mapping[int, int]) -> bool:
    words = _words(period)
    return any(words >= of and size >= characters for of, characters in least.items())


def _words(text: str) -> int:
    """Different words, whatever their case; in scripts without spaces two letters are one."""
    unspaced = _UNSPACED.findall(text)
    return len(set(_WORD.findall(_UNSPACED.sub(" ", text.lower())))) + len(set(unspaced)) // 2


def _share_of_letters(text: str) -> float:
    shown = "".join(text.split())
    return sum(map(str.isalpha, shown)) / max(1, len(shown))


def seq_rep_4(tokens: Sequence[str | int]) -> float:
    """1 - |different 4-grams| / |4-grams|; 0 for fewer than 4 tokens."""
    grams = list(zip(tokens, tokens[1:], tokens[2:], tokens[3:], strict=False))
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def zlib_ratio(text: str) -> float:
    """Bytes over compressed bytes."""
    raw = text.encode("utf-8", "surrogatepass")
    return len(raw) / len(zlib.compress(raw)) if raw else 0.0
