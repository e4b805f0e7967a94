"""Text of other origin cannot command a terminal, nor begin a line of its own."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from harness.core import progress
from harness.core.text import one_line, visible, well_formed

HOSTILE = "a [b]x[/b] [/b] \x1b]0;title\x07 \x9b31m \u202e rtl \r over\u2028line\x0bend"


@given(st.text())
def test_nothing_but_printable_characters_is_left(text: str) -> None:
    assert all(c.isprintable() or c in "\n\t" for c in visible(text))
    assert one_line(text).isprintable() and len(one_line(text).splitlines()) <= 1


@given(st.text(st.characters(categories=("L", "N", "P", "S"))))
def test_plain_text_stays_as_it_is(text: str) -> None:
    assert one_line(text) == visible(text) == text


@pytest.mark.parametrize("terminal", [True, False])
def test_a_title_of_a_bar_is_neither_markup_nor_an_order_to_the_terminal(
    terminal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = io.StringIO()
    console = Console(file=written, force_terminal=terminal, width=200, color_system=None)
    monkeypatch.setattr(progress, "console", console)
    with progress.progress_bar(HOSTILE, total=1) as advance:
        advance(1)
    shown = written.getvalue()
    assert "[b]x[/b] [/b]" in shown and "\\u001b]0;title" in shown
    assert not any(order in shown for order in ("\x1b]", "\x07", "\x9b", "\u202e", "\u2028", "\x0b"))


def test_half_a_surrogate_pair_costs_one_character() -> None:
    texts = {
        "a\ud83d": "a\ufffd",
        "\udc4d b": "\ufffd b",
        "\ud83d\ud83d\ude00": "\ufffd\U0001f600",
        "ä\u2028\x00": "ä\u2028\x00",
    }
    assert {text: well_formed(text) for text in texts} == texts
