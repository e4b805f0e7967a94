"""Where a repeated end begins, against the definition taken literally."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from harness.core.repetition import LEAST_BYTES, REPEATS, repeated_end


def literal(text: str) -> int | None:
    """The first place from which text repeats itself at least three times, over at least 48 bytes."""
    for start in range(len(text)):
        end = text[start:]
        if len(end.encode()) < LEAST_BYTES:
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
