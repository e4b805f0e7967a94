"""The periodic end of a text: what the detector of loops finds and the report marks."""

from __future__ import annotations

from dataclasses import dataclass

REPEATS, LEAST_BYTES = 3, 48
WINDOW = 4096  # characters of the end that are looked at, so that a period has at most a third of that


@dataclass(frozen=True)
class RepeatedEnd:
    """text[start:] repeats its first `period` characters, the last time perhaps in part."""

    start: int
    period: int


def repeated_end(text: str) -> RepeatedEnd | None:
    """The longest exactly periodic end of the text, trailing white space left out or in; None under 3 repeats or 48
    bytes.

    Every end against its smallest period, which the failure function of the reversed text gives (Knuth et al. 1977).
    Linear time."""
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
    """To where the repetition began, also before the window."""
    while start > 0 and text[start - 1] == text[start - 1 + period]:
        start -= 1
    return RepeatedEnd(start, period)
