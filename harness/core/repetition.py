"""Exact repetition in a text: its periodic end, which the loop detector looks for and the report marks, and periodic
parts anywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

REPEATS, LEAST_CHARACTERS = 3, 48
WINDOW = 4096  # characters of the end that are looked at, so that a period has at most a third of that
_GRAM = 16  # characters that say where a text may have been before


@dataclass(frozen=True)
class RepeatedEnd:
    """text[start:] repeats its first `period` characters; the last repetition may be incomplete."""

    start: int
    period: int


@dataclass(frozen=True)
class RepeatedPart:
    """text[start:end] repeats its first `period` characters; the last repetition may be incomplete."""

    start: int
    end: int
    period: int


def repeated_end(text: str, repeats: int = REPEATS, least: int = LEAST_CHARACTERS) -> RepeatedEnd | None:
    """The longest exactly periodic end of the text, with or without trailing white space.

    Tests every suffix against its smallest period, given by the failure function of the reversed text (Knuth et al.
    1977). Linear time.

    Args:
        text: What a model wrote.
        repeats: How many times the period stands there at least.
        least: The fewest characters of such an end.
    """
    variants = dict.fromkeys((text, text.rstrip()))
    found = [end for variant in variants if (end := _periodic_tail(variant, repeats, least))]
    return min(found, key=lambda end: end.start, default=None)


def _periodic_tail(text: str, repeats: int, least: int) -> RepeatedEnd | None:
    tail = text[-WINDOW:][::-1]
    failure, matched, best = [0] * (len(tail) + 1), 0, None
    for length, character in enumerate(tail, 1):
        if length > 1:
            while matched and tail[matched] != character:
                matched = failure[matched]
            matched += tail[matched] == character
            failure[length] = matched
        if length >= least and length >= repeats * (length - matched):
            best = (length, length - matched)
    return best and _extended(text, len(text) - best[0], best[1])


def _extended(text: str, start: int, period: int) -> RepeatedEnd:
    """Moves the start to where the repetition begins, which may be before the window."""
    while start > 0 and text[start - 1] == text[start - 1 + period]:
        start -= 1
    return RepeatedEnd(start, period)


def repeated_parts(text: str, repeats: int, least: int) -> Iterator[RepeatedPart]:
    """Exactly periodic parts of the text, wherever they are, of at least `repeats` periods and `least` characters.

    Where 16 characters stood before, the text between is a period if what follows goes on in the same way. What was
    compared is not compared again, so that the time is linear.
    """
    seen: dict[str, int] = {}
    at, last = 0, len(text) - _GRAM
    while at <= last:
        before = seen.get(text[at : at + _GRAM])
        end = at + _GRAM
        if before is not None:
            period = at - before
            while end < len(text) and text[end] == text[end - period]:
                end += 1
            if end - before >= max(least, repeats * period):
                yield RepeatedPart(before, end, period)
        for place in range(at, end - _GRAM + 1):
            seen[text[place : place + _GRAM]] = place
        at = end - _GRAM + 1
