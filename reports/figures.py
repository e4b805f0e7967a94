"""Numbers of run.json as text, in one form everywhere."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

LIKELIHOODS = ("perplexity", "bits_per_byte")  # lower is better, no share of right answers
_UNITS = {"perplexity": "", "bits_per_byte": " bits per byte"}  # of a difference; points otherwise


def percent(value: float | None, digits: int = 1) -> str:
    return "unknown" if value is None else f"{100 * value:.{digits}f} %"


def points(value: float) -> str:
    return f"{100 * value:+.1f}"


def measured(metric: str, value: float | None) -> str:
    """A task's figure: a percentage, or a perplexity, bits per byte and what else is no share as it is."""
    if value is None:
        return "unknown"
    return f"{value:,.3f}" if metric in LIKELIHOODS or not 0 <= value <= 1 else percent(value)


def changed(metric: str, value: float) -> str:
    """A difference against dense: points, a perplexity's factor (the difference is of its logarithm), or bits per
    byte.
    """
    if metric == "perplexity":
        return f"x{math.exp(value):.3f}"
    return f"{value:+.3f}" if metric == "bits_per_byte" else points(value)


def unit(metric: str) -> str:
    """Of a difference between two values of a metric."""
    return _UNITS.get(metric, " points")


def mebibytes(value: int) -> str:
    return f"{value / 2**20:.2f} MiB" if value < 2**30 else f"{value / 2**30:.2f} GiB"


def interval(comparison: Mapping[str, Any]) -> tuple[str, ...]:
    """Difference and the ends of its interval as text."""
    return tuple(changed(comparison["metric"], comparison[key]) for key in ("difference", "ci_low", "ci_high"))


def widths(sizes: list[int]) -> str:
    return str(sizes[0]) if len(set(sizes)) == 1 else f"{min(sizes)} to {max(sizes)}"


def public_command(text: str) -> str:
    """A command with only the last part of its absolute paths: where things lie on a machine is nobody's business."""
    try:
        words = shlex.split(text)
    except ValueError:
        words = text.split()
    return shlex.join(_public_word(word) for word in words)


def _public_word(word: str) -> str:
    option, equals, value = word.partition("=")
    return f"{option}={public_path(value)}" if equals and option.startswith("-") else public_path(word)


def public_path(path: str) -> str:
    """Of an absolute path its last part; a Hub id and a relative path as they are."""
    return Path(path).name if path.startswith(("/", "~")) else path


def markdown(text: object) -> str:
    """Text that Markdown shows as it is, on one line: no markup, no element, no end of a cell."""
    plain = " ".join(str(text).split("\n"))
    for character in "\\|`[":
        plain = plain.replace(character, f"\\{character}")
    return plain.replace("<", "&lt;")
