"""Shares of a loss: how much of what one intervention costs another one costs too. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Sequence

from harness.core.mask_statistics import difference_over_masks
from harness.core.statistics import Difference


def loss(before: Sequence[bool], after: Sequence[Sequence[bool]], confidence: float = 0.95) -> Difference:
    """What is lost of accuracy, (loss, low, high), over items and over sets where there are several.

    Args:
        before: The dense model's outcomes, [items].
        after: Those with each set of neurons, [sets, items].
    """
    value, low, high = difference_over_masks(before, after, confidence)
    return -value, -high, -low


def share_of(part: Difference, whole: Difference) -> Difference:
    """part / whole, (share, low, high), from two losses with their intervals.

    The interval of a ratio from those of its two parts (MOVER-R: Donner and Zou 2012, Statistical Methods in Medical
    Research 21:347), as if they were independent. On the same items they mostly rise and fall together, so that the
    interval is too wide rather than too narrow.

    Raises:
        ValueError: The interval of `whole` does not lie above 0.
    """
    (x, low_x, high_x), (y, low_y, high_y) = part, whole
    if low_y <= 0:
        raise ValueError(f"share_of needs a whole that lies above 0, got {y:g} ({low_y:g} to {high_y:g})")
    below = (x * y) ** 2 - _corner(x, low_x) * _corner(y, high_y)
    above = (x * y) ** 2 - _corner(x, high_x) * _corner(y, low_y)
    low = (
        (x * y - math.sqrt(max(0.0, below))) / _corner(y, high_y)
        if 2 * y > high_y
        else low_x / (high_y if low_x > 0 else low_y)
    )
    high = (x * y + math.sqrt(max(0.0, above))) / _corner(y, low_y)
    return x / y, min(low, x / y), max(high, x / y)


def _corner(value: float, end: float) -> float:
    return end * (2 * value - end)


def rest_of(share: Difference) -> Difference:
    """1 - share."""
    value, low, high = share
    return 1 - value, 1 - high, 1 - low


def scaled(figure: Difference, by: float) -> Difference:
    """A figure and its interval times a positive number."""
    value, low, high = figure
    return value * by, low * by, high * by
