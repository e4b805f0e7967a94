"""Numbers of run.json as text, formatted the same everywhere."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.core.labels import STRUCTURE_NOUNS, is_as_asked
from harness.core.types.evaluation import LIKELIHOOD_METRICS, has_right_answers

# of a difference; points otherwise
_UNITS = {**dict.fromkeys(LIKELIHOOD_METRICS, ""), "bits_per_byte": " bits per byte"}


def percent(value: float | None, digits: int = 1) -> str:
    return "unknown" if value is None else f"{100 * value:.{digits}f} %"


def removed_text(variant: Mapping[str, Any]) -> str:
    """What a variant lost: the share of its FFN neurons, or of what else the requested ratio is."""
    structure = variant.get("structure") or "neuron"
    if structure == "neuron":
        return f"{percent(variant['ratio_neurons'])} of the FFN neurons"
    if structure == "joint":
        return "FFN neurons, attention, layers or entries of the vocabulary"
    return f"{percent(variant['ratio_requested'])} (asked) of the {STRUCTURE_NOUNS.get(structure, structure)}s"


def done_text(asked: float, done: float) -> str:
    """16.7 %, asked 20 %: the share that was removed, and the requested one where it is another."""
    return percent(done) + ("" if is_as_asked(asked, done) else f", asked {100 * asked:g} %")


def points(value: float) -> str:
    return f"{100 * value:+.1f}"


def mean(values: Sequence[float | None]) -> float | None:
    """None where there is no value, or one is unknown."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def measured(metric: str, value: float | None, of: float | None = None) -> str:
    """A task's value: a percentage, or the number itself for perplexity, bits per byte and other non-shares.

    of: the value, where this is an end of its interval, which has the same unit.
    """
    if value is None:
        return "unknown"
    is_share = metric not in LIKELIHOOD_METRICS and 0 <= (value if of is None else of) <= 1
    return percent(value) if is_share else f"{value:,.3f}"


def not_judged(run: Mapping[str, Any], variant: Mapping[str, Any]) -> str:
    """A sentence on every off-target task without right answers: its value relative to dense. Empty without such."""
    found = [
        f"{task} {_relative(e['metric'], e['value'], dense['value'])}, not judged"
        for task, dense in run["variants"][0]["eval"].items()
        if task != run["task"] and not has_right_answers(dense["metric"]) and (e := variant["eval"].get(task))
    ]
    return f" Without right answers: {'; '.join(found)}." if found else ""


def _relative(metric: str, value: float, dense: float) -> str:
    return (
        f"{value / dense:.2f} times dense" if dense else f"{measured(metric, value)}, dense {measured(metric, dense)}"
    )


def changed(metric: str, value: float) -> str:
    """A difference against dense: points, a perplexity's factor (the difference is of its logarithm), or bits per
    byte.
    """
    if metric in LIKELIHOOD_METRICS and metric != "bits_per_byte":
        return f"x{math.exp(value):.3f}"
    return f"{value:+.3f}" if metric == "bits_per_byte" else points(value)


def unit(metric: str) -> str:
    """The unit of a difference between two values of a metric."""
    return _UNITS.get(metric, " points")


def mebibytes(value: int) -> str:
    return f"{value / 2**20:.2f} MiB" if value < 2**30 else f"{value / 2**30:.2f} GiB"


def interval(comparison: Mapping[str, Any]) -> tuple[str, ...]:
    """The difference and its interval's ends as text."""
    return tuple(changed(comparison["metric"], comparison[key]) for key in ("difference", "ci_low", "ci_high"))


def public_command(text: str | None) -> str:
    """A command with absolute paths cut to their last part, so that a card does not expose a machine's folders.
    Empty for a run without a command, which Python code started.
    """
    if text is None:
        return ""
    try:
        words = shlex.split(text)
    except ValueError:
        words = text.split()
    return shlex.join(_public_word(word) for word in words)


def _public_word(word: str) -> str:
    option, equals, value = word.partition("=")
    return f"{option}={public_path(value)}" if equals and option.startswith("-") else public_path(word)


def public_path(path: str) -> str:
    """The last part of an absolute path; Hub ids and relative paths unchanged."""
    return Path(path).name if path.startswith(("/", "~")) else path


def short_count(count: int) -> str:
    """7.62 B, 1.32 M, 512."""
    for size, unit in ((10**9, "B"), (10**6, "M")):
        if count >= size:
            return f"{count / size:.2f} {unit}"
    return f"{count:,}"


def seconds_text(seconds: float) -> str:
    """Three digits: 3.17 ms, 0.524 s, 12.3 s."""
    return f"{1000 * seconds:.3g} ms" if seconds < 0.1 else f"{seconds:.3g} s"


def count_text(count: int, one: str, many: str | None = None) -> str:
    """1 pass, 2 passes."""
    return f"{count:,} {one if count == 1 else many or f'{one}s'}"
