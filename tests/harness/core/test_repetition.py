"""Where a repeated end begins, against the definition taken literally."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from harness.core.repetition import LEAST_CHARACTERS, REPEATS, repeated_end, repeated_parts


def literal(text: str) -> int | None:
    """The first place from which text repeats itself at least three times, over at least 48 characters."""
    for start in range(len(text)):
        end = text[start:]
        if len(end) < LEAST_CHARACTERS:
            return None
        if any(len(end) >= REPEATS * p and end[p:] == end[:-p] for p in range(1, len(end) // REPEATS + 1)):
            return start
    return None


@given(st.text("ab ", max_size=30), st.text("abc", min_size=1, max_size=9), st.integers(0, 30))
def test_it_is_the_first_place_of_the_definition(before: str, period: str, times: int) -> None:
    text = before + period * times
    found = repeated_end(text)
    starts = [start for start in (literal(text), literal(text.rstrip())) if start is not None]
    assert (found.start if found else None) == min(starts, default=None)
    if found:
        end = text.rstrip()[found.start :]
        assert end[found.period :] == end[: -found.period]


def test_a_loop_longer_than_the_window_is_found_to_its_beginning() -> None:
    found = repeated_end("intro. " + "round and round " * 2000)
    assert found is not None and found.start == 6 and found.period == 16


@given(
    st.text("ab ", max_size=60), st.text("abc", min_size=1, max_size=40), st.integers(3, 9), st.text("bc", max_size=60)
)
def test_a_planted_repetition_is_found_wherever_it_is(before: str, unit: str, times: int, after: str) -> None:
    text, size = before + unit * times + after, len(unit) * times
    found = list(repeated_parts(text, 2, 2))
    for part in found:
        piece = text[part.start : part.end]
        assert len(piece) >= 2 * part.period and piece[part.period :] == piece[: -part.period]
    if size >= 16 + 2 * len(unit):
        covered = {place for part in found for place in range(part.start, part.end)}
        assert len(covered & set(range(len(before), len(before) + size))) >= size - 2 * len(unit) - 16


def test_the_repeats_that_are_asked_for() -> None:
    text = "one. " + "two three. " * 8 + "four."
    assert [(part.start, part.end, part.period) for part in repeated_parts(text, 8, 80)] == [
        (2, 93, 11)
    ]  # "e. " stood there too
    assert not list(repeated_parts(text, 9, 80)) and not list(repeated_parts(text, 8, 92))
    assert repeated_end(text[:-5], 8, 80) and not repeated_end(text[:-5], 9, 80)
