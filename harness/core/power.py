"""What a number of items can show: the power of the exact McNemar test. Pure functions."""

from __future__ import annotations

import numpy as np
from scipy import stats

_LEVEL = 0.05


def mcnemar_power(n: int, loss: float, discordant: float) -> float:
    """Chance that the exact two-sided McNemar test at 5 % finds a loss on n items.

    Args:
        n: Items.
        loss: The true loss, a share of all items.
        discordant: The share of items that change either way, at least the loss.
    """
    changed = np.arange(n + 1)
    least = stats.binom.isf(_LEVEL / 2, changed, 0.5) + 1  # the fewest of one kind that are significant
    lost = (discordant + loss) / 2 / discordant
    found = stats.binom.sf(least - 1, changed, lost) + stats.binom.cdf(changed - least, changed, lost)
    return float((stats.binom.pmf(changed, n, discordant) * found).sum())


def detectable_loss(n: int, discordant: float, power: float = 0.8) -> float | None:
    """The smallest loss that n items find with this power, in whole items; None where even losing all is not found.

    At least 6 / n, as fewer than six flips are never significant. `discordant`: the share of items that changes, or the
    loss itself where that is larger.
    """
    low, high = 5, n  # of `low` items it is not found, of `high` it is
    if n < 6 or mcnemar_power(n, 1.0, 1.0) < power:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        enough = mcnemar_power(n, middle / n, max(discordant, middle / n)) >= power
        low, high = (low, middle) if enough else (middle, high)
    return high / n
