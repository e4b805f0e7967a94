"""Where a search looks: bisection over widths for one way of pruning after the other. Pure functions."""

from __future__ import annotations

from collections.abc import Callable

Passes = Callable[[int, int], bool]  # (way, index of a width) -> whether the candidate passes


def first_true(count: int, passes: Callable[[int], bool]) -> int | None:
    """The smallest index below `count` that passes, where all after one that passes do too; None where none does.

    Bisection: `most_calls(count)` calls at most. Where none passes, the last index was asked too: the candidate that is
    likeliest to.
    """
    low, high = 0, count
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if passes(middle) else (middle + 1, high)
    return low if low < count else None


def most_calls(count: int) -> int:
    """ceil(log2(count + 1)): there are count + 1 outcomes."""
    return count.bit_length()


def narrowest(ways: int, count: int, passes: Passes) -> tuple[int, int] | None:
    """The way whose smallest passing index is the smallest of all, with that index; None where nothing passes.

    A further way is asked just below what the ways before it reached, and is bisected only if it passes there.
    `most_looks(ways, count)` calls at most.
    """
    best: tuple[int, int] | None = None
    for way in range(ways):
        below = count if best is None else best[1]
        if best is not None:
            if below == 0 or not passes(way, below - 1):
                continue
            below, best = below - 1, (way, below - 1)
        found = first_true(below, lambda index, way=way: passes(way, index))  # type: ignore[misc]
        best = best if found is None else (way, found)
    return best


def most_looks(ways: int, count: int) -> int:
    """Calls of `narrowest` at most: a first way is bisected over all widths, a further one over all or over what is
    below its first look.
    """
    further = max(most_calls(count), 1 + most_calls(max(0, count - 2)))
    return most_calls(count) + (ways - 1) * further
