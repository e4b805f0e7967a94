"""All labelled texts, and their two halves: thresholds were chosen on `tuning`, figures are reported on `report`."""

from __future__ import annotations

from collections import defaultdict

from scripts.failure_kinds import cut, degenerate, languages, normal
from scripts.failure_kinds.labelled import Labelled, labelled


def texts() -> list[Labelled]:
    """The whole set, in a fixed order."""
    return [
        *labelled(normal.RULES, "stop"),
        *labelled(normal.LISTS, "stop"),
        *labelled(languages.LANGUAGES, "stop"),
        *labelled(languages.SIGNS, "stop"),
        *labelled(cut.CUT, "length"),
        *labelled(cut.LISTS, "length"),
        *labelled(cut.UNKNOWN, None),
        *labelled(degenerate.EXACT, "length", "loop"),
        *labelled(degenerate.ENDED, "stop", "loop"),
        *labelled(degenerate.COUNTERS, "length", "loop"),
        *labelled(degenerate.MIDDLE, "length", "loop"),
        *labelled(degenerate.NEAR, "length", "loop"),
        *labelled(degenerate.SCRIPTS, "length", "gibberish"),
        *labelled(degenerate.STRANGE, "stop", "gibberish"),
        *labelled(degenerate.ONE_SCRIPT, "length", "salad"),
    ]


def halves() -> tuple[list[Labelled], list[Labelled]]:
    """(tuning, report): the texts of each group alternately."""
    taken: dict[str, int] = defaultdict(int)
    found: tuple[list[Labelled], list[Labelled]] = ([], [])
    for text in texts():
        found[taken[text.group] % 2].append(text)
        taken[text.group] += 1
    return found
