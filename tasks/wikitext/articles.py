"""WikiText's raw lines as articles."""

from __future__ import annotations

import re
from collections.abc import Iterable

_TITLE = re.compile(r" = [^=].* = ")
_HEADING = re.compile(r" (= )+[^=].*( =)+ ")


def articles(lines: Iterable[str]) -> list[str]:
    """Every article as one text, with a blank line around each heading, as in the raw file, whatever blank lines came
    in.
    """
    written = [f" {line.strip()} " for line in lines if line.strip()]
    starts = [i for i, line in enumerate(written) if _TITLE.fullmatch(line)]
    return ["".join(map(_spaced, written[i:j])) for i, j in zip(starts, [*starts[1:], len(written)], strict=True)]


def _spaced(line: str) -> str:
    if _TITLE.fullmatch(line):
        return f"{line}\n \n"
    return f" \n{line}\n \n" if _HEADING.fullmatch(line) else f"{line}\n"


def halves(pages: list[str]) -> tuple[list[str], list[str]]:
    """What is evaluated and what may be calibrated on, where one file must do for both."""
    return pages[::2], pages[1::2]
