"""The periodic end of a text, which the loop detector looks for and the report marks."""

from __future__ import annotations

from dataclasses import dataclass

REPEATS, LEAST_BYTES = 3, 48
WINDOW = 4096  # characters of the end that are looked at, so that a period has at most a third of that


@dataclass(frozen=True)
class RepeatedEnd:
    """text[start:] repeats its first `period` characters; the last repetition may be incomplete."""

    start: int
    period: int


def repeated_end(text: str) -> RepeatedEnd | None:
    """The longest exactly periodic end of the text, with or without trailing white space; None under 3 repeats or 48
    bytes.

    Tests every suffix against its smallest period, given by the failure function of the reversed text (Knuth et al.
    1977). Linear time.
    """
    found = [end for variant in dict.fromkeys((text, text.rstrip())) if (end := _periodic_tail(variant))]
    return min(found, key=lambda end: end.start, default=None)


def _periodic_tail(text: str) -> RepeatedEnd | None:
    tail = text[-WINDOW:][::-1]
    failure, matched, size, best = [0] * (len(tail) + 1), 0, 0, None
    for length, character in enumerate(tail, 1):
        size += len(character.encode("utf-8", "surrogatepass"))
        if length > 1:
            while matched and tail[matched] != character:
                matched = failure[matched]
            matched += tail[matched] == character
            failure[length] = matched
        if size >= LEAST_BYTES and length >= REPEATS * (length - matched):
            best = (length, length - matched)
    return best and _extended(text, len(text) - best[0], best[1])


def _extended(text: str, start: int, period: int) -> RepeatedEnd:
    """Moves the start to where the repetition begins, which may be before the window."""
    while start > 0 and text[start - 1] == text[start - 1 + period]:
        start -= 1
    return RepeatedEnd(start, period)
