"""Rounds of measured exchanges: what single changes cost alone does not say what they cost together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from harness.core.types.arrays import FloatArray
from pruning.search.damage import DamageProbe
from pruning.search.table import DamageTable

_SLACK = 1e-9  # of the budget, for sums of costs in another order


def improve(
    probe: DamageProbe,
    table: DamageTable,
    costs: FloatArray,
    budget: float,
    start: Sequence[int],
    looks: int,
    at_least: float = -np.inf,
    progress: Callable[[int], None] = lambda _: None,
) -> tuple[list[int], float]:
    """Changes one layer, or two at a time, as long as a measurement finds less damage.

    The change that the table says costs least, or gains most, is measured first, and the first one that lowers the
    measured KL is made; then the changes from there are ranked anew. A removed layer against a kept one is such a
    change of two.

    Args:
        probe: On the dense model.
        table: Damage of each choice alone, [layers, choices]; one that is not finite is never taken.
        costs: [layers, choices], in the unit of the budget.
        budget: The sum of costs is at most this.
        start: The number of the choice of each layer.
        looks: Measurements, at most, the one of `start` among them.
        at_least: The sum of costs is at least this.
        progress: Called with 1 after each measurement.

    Returns:
        The number of the choice of each layer, and their KL in nats per scored token; `start` is measured in any case.
    """

    def measured(chosen: Sequence[int]) -> float:
        found = probe.nats([table.choices[choice] for choice in chosen])
        progress(1)
        return found

    best, nats = tuple(start), measured(start)
    seen, bounds = {best}, (at_least, budget)
    for _ in range(looks - 1):
        new = next((change for change in _changes(table.nats, costs, bounds, best) if change not in seen), None)
        if new is None:
            break
        seen.add(new)
        if (found := measured(new)) < nats:
            best, nats = new, found
    return list(best), nats


def _changes(
    nats: FloatArray, costs: FloatArray, bounds: tuple[float, float], chosen: Sequence[int]
) -> Iterator[tuple[int, ...]]:
    """Other choices in one layer or in two, within the bounds, the most promising by the table first."""
    layers, choices = nats.shape
    now = np.arange(layers) * choices + np.asarray(chosen)  # where each layer's choice is among those of all layers
    damage, price = ((of - of.ravel()[now][:, None]).ravel() for of in (nats, costs))
    total = costs.ravel()[now].sum() + price[:, None] + price
    slack = _SLACK * np.abs(costs).max()
    layer, same = np.repeat(np.arange(layers), choices), np.isin(np.arange(nats.size), now)
    two, one = layer[:, None] < layer, layer[:, None] == layer  # one: with the choice of now as the first of the pair
    possible = (two & ~same[:, None] & ~same) | (one & same[:, None] & ~same)
    possible &= (total >= bounds[0] - slack) & (total <= bounds[1] + slack) & np.isfinite(damage[:, None] + damage)
    pairs = np.argwhere(possible)
    for pair in pairs[np.argsort(damage[pairs].sum(axis=1), kind="stable")]:
        new = list(chosen)
        for place in pair:
            new[layer[place]] = int(place % choices)
        yield tuple(new)
