"""Precision and recall of the detectors of loops and gibberish on the labelled texts, as tables in docs/evaluation.md:
`python -m scripts.write_failure_kinds`. With `--wrong`, the texts of the tuning half that come out wrong; with
`--references`, the reference answers that are called loop or gibberish, with any ending.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from harness.core.statistics import wilson
from scripts.failure_kinds.labelled import Labelled, labelled
from scripts.failure_kinds.references import references
from scripts.failure_kinds.texts import halves, texts
from tasks.failures import FailureKind, GradedAnswer, detect

PAGE = Path(__file__).resolve().parent.parent / "docs" / "evaluation.md"
KINDS = (FailureKind.LOOP, FailureKind.GIBBERISH)
_BLOCK = re.compile(r"(<!-- failure kinds: .*? -->\n).*?(<!-- failure kinds end -->)", re.DOTALL)


def text() -> str:
    """The page with today's tables."""
    report = halves()[1]
    tables = f"{_sentence(report)}\n\n{_by_kind(report)}\n{_by_group(report)}"
    return _BLOCK.sub(lambda found: f"{found[1]}\n{tables}\n{found[2]}", PAGE.read_text(encoding="utf-8"))


def seen(answer: Labelled) -> set[str]:
    """The kinds that are detected."""
    meta = {"finish_reason": answer.finish_reason} if answer.finish_reason else {}
    found = detect(GradedAnswer(answer.text, "7", answer.right, meta=meta))
    return {str(kind) for kind in KINDS if found[kind]}


def wrong(answers: Sequence[Labelled]) -> Iterator[tuple[Labelled, set[str]]]:
    """The texts whose kinds are others than their labels; salad in one script counts as seen where any kind is."""
    for answer in answers:
        found = seen(answer)
        good = bool(found) if answer.kinds == ("salad",) else found == set(answer.kinds)
        if not good:
            yield answer, found


def _sentence(answers: Sequence[Labelled]) -> str:
    normal = [answer for answer in answers if not answer.kinds]
    flagged = sum(bool(seen(answer)) for answer in normal)
    return (
        f"{len(texts())} texts in all, {len(answers)} in the half that is reported, {len(normal)} of them normal. "
        f"Normal texts called loop or gibberish: {_rate(flagged, len(normal))}."
    )


def _by_kind(answers: Sequence[Labelled]) -> str:
    rows = ["| kind | texts of this kind | precision | recall |", "|---|---|---|---|"]
    for kind in KINDS:
        of_kind = [kind in answer.kinds for answer in answers]
        found = [kind in seen(answer) for answer in answers]
        both = sum(a and b for a, b in zip(of_kind, found, strict=True))
        precision, recall = _rate(both, sum(found)), _rate(both, sum(of_kind))
        rows.append(f"| `{kind}` | {sum(of_kind)} | {precision} | {recall} |")
    return "\n".join(rows) + "\n"


def _by_group(answers: Sequence[Labelled]) -> str:
    rows = ["| texts | label | n | `loop` | `gibberish` |", "|---|---|---|---|---|"]
    for group in dict.fromkeys(answer.group for answer in answers):
        members = [answer for answer in answers if answer.group == group]
        counts = [sum(kind in seen(answer) for answer in members) for kind in KINDS]
        label = ", ".join(members[0].kinds) or "normal"
        rows.append(f"| {group} | {label} | {len(members)} | {counts[0]} | {counts[1]} |")
    return "\n".join(rows) + "\n"


def _rate(successes: int, n: int) -> str:
    low, high = wilson(successes, n)
    return f"{successes} of {n}, {successes / n:.3f} ({low:.3f} to {high:.3f})"


def flagged_references() -> list[Labelled]:
    """The references, each as ended, cut and of unknown ending, that are called loop or gibberish."""
    endings = ("stop", "length", None)
    return [answer for ending in endings for answer in labelled({"reference": references()}, ending) if seen(answer)]


if __name__ == "__main__":
    if "--references" in sys.argv:
        flagged = flagged_references()
        print(f"{len(flagged)} of {len(references())} references", *(answer.text for answer in flagged), sep="\n")
    elif "--wrong" in sys.argv:
        for answer, found in wrong(halves()[0]):
            print(f"{answer.group}, {answer.finish_reason}, {answer.kinds}: seen {found}: {answer.text[:150]!r}")
    else:
        PAGE.write_text(text(), encoding="utf-8")
