"""Power of the exact McNemar test, against plain enumeration and simulation."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest

from harness.core.power import detectable_loss, mcnemar_power
from harness.core.statistics import mcnemar_exact


def enumerated(n: int, loss: float, discordant: float) -> float:
    q, total = (discordant + loss) / 2 / discordant, 0.0
    for changed in range(n + 1):
        weight = comb(n, changed) * discordant**changed * (1 - discordant) ** (n - changed)
        for lost in range(changed + 1):
            if mcnemar_exact(lost, changed - lost) < 0.05:
                total += weight * comb(changed, lost) * q**lost * (1 - q) ** (changed - lost)
    return total


@pytest.mark.parametrize(("n", "loss", "discordant"), [(12, 0.4, 0.5), (30, 0.1, 0.3), (20, 0.25, 0.25), (5, 1.0, 1.0)])
def test_the_power_is_that_of_all_outcomes(n: int, loss: float, discordant: float) -> None:
    assert mcnemar_power(n, loss, discordant) == pytest.approx(enumerated(n, loss, discordant), abs=1e-9)


@pytest.mark.parametrize(("n", "discordant"), [(40, 0.1), (400, 0.0025), (400, 0.01), (500, 0.002), (1319, 0.1)])
def test_the_detectable_loss_is_found_four_times_in_five(n: int, discordant: float) -> None:
    found = detectable_loss(n, discordant)
    assert found is not None and found >= 6 / n, "fewer than six flips are never significant"
    rng, changed = np.random.default_rng(4), max(discordant, found)
    draws = rng.multinomial(n, [(changed + found) / 2, (changed - found) / 2, 1 - changed], 2000)
    assert np.mean([mcnemar_exact(int(lost), int(gained)) < 0.05 for lost, gained, _ in draws]) >= 0.77
    assert mcnemar_power(n, found - 1 / n, max(discordant, found - 1 / n)) < 0.8


def test_five_items_show_nothing() -> None:
    assert detectable_loss(5, 0.1) is None and detectable_loss(6, 0.1) == 1.0
