"""Text of other origin (models, paths, foreign files) as text: nothing in it is obeyed by a terminal."""

from __future__ import annotations


def visible(text: str) -> str:
    """With control, format and bidirectional characters written out; line feeds and tabs stay."""
    return "".join(c if c in "\n\t" or c.isprintable() else f"\\u{ord(c):04x}" for c in text)


def one_line(text: str) -> str:
    """On one line, and visible: every line end of Unicode becomes a space."""
    return visible(" ".join(text.splitlines()).replace("\t", " "))
