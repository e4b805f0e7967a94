"""What a labelled text is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Labelled:
    """One answer and what is wrong with it as text.

    Attributes:
        group: The sort of text, such as "refrains".
        kinds: Which of "loop", "gibberish" and "salad" it shows; none for a normal text.
        right: Whether it would be graded as right.
    """

    group: str
    text: str
    finish_reason: str | None
    kinds: tuple[str, ...] = ()
    right: bool = False


Groups = Mapping[str, Sequence[str]]


def labelled(groups: Groups, finish_reason: str | None, *kinds: str, right: bool = False) -> Iterator[Labelled]:
    """Each text of each group with the same ending and label."""
    for group, texts in groups.items():
        for text in texts:
            yield Labelled(group, text, finish_reason, kinds, right)
