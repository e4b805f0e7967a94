"""One choice per layer at the least sum of damages within a budget: a multiple-choice knapsack, solved by HiGHS."""

from __future__ import annotations

import numpy as np

from harness.core.types.arrays import FloatArray

_SECONDS = 60.0
_SCALE = 1e4  # of the largest damage, since HiGHS takes sums that differ by less than 1e-6 for equal


def cheapest(nats: FloatArray, costs: FloatArray, budget: float, at_least: float = -np.inf) -> list[int] | None:
    """The choice of each layer with the least sum of damages.

    Args:
        nats: Damage of each choice, [layers, choices]; one that is not finite is never taken.
        costs: What each choice costs, [layers, choices], in the unit of the budget.
        budget: The sum of costs is at most this, to a millionth of the largest cost.
        at_least: The sum of costs is at least this.

    Returns:
        The number of the choice of each layer; the best found in a minute where the least is not proven by then. None
        where no choices meet the bounds.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import identity, kron

    layers, choices = nats.shape
    possible = np.isfinite(nats)
    damage = np.where(possible, nats, 0.0).astype(np.float64)
    unit = float(np.abs(costs).max()) or 1.0
    found = milp(
        damage.ravel() * (_SCALE / (float(np.abs(damage).max()) or 1.0)),
        constraints=[
            LinearConstraint(kron(identity(layers), np.ones((1, choices))), 1, 1),
            LinearConstraint(costs.reshape(1, -1) / unit, at_least / unit, budget / unit),
        ],
        integrality=np.ones(nats.size),
        bounds=Bounds(0, possible.ravel().astype(float)),
        options={"mip_rel_gap": 0.0, "time_limit": _SECONDS},
    )
    return None if found.x is None else [int(chosen) for chosen in found.x.reshape(nats.shape).argmax(axis=1)]
