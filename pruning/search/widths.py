"""FFN widths of the layers by measured damage: as many neurons in all as at one width, where the model needs them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from harness.core.types.arrays import FloatArray
from pruning.search.choices import LayerChoice
from pruning.search.damage import DamageProbe
from pruning.search.exchange import improve
from pruning.search.programme import cheapest
from pruning.search.table import DamageTable

LOOKS = 64  # measurements of whole plans
_KNOTS = 8  # widths of a layer whose damage is measured, the whole among them
_STEPS = 32  # widths of a layer that the programme chooses from, about


@dataclass(frozen=True)
class FoundWidths:
    """What a search found.

    Attributes:
        widths: Of every layer; they sum to layers * the uniform width.
        nats: KL(dense || pruned) per scored token with these widths.
        uniform_nats: The same with the uniform width in every layer.
    """

    widths: tuple[int, ...]
    nats: float
    uniform_nats: float


def measured_choices(size: int, alignment: int) -> tuple[LayerChoice, ...]:
    """Widths of which the damage is measured: multiples of the alignment from an eighth of the layer up, evenly spaced,
    and the whole. They depend on no ratio, so that one table serves all.
    """
    least = -(-max(size // 8, 1) // alignment) * alignment
    spaced = (round(width / alignment) * alignment for width in np.linspace(least, size, _KNOTS))
    return tuple(LayerChoice(width) for width in sorted({min(width, size) for width in spaced} | {size}))


def search_widths(
    probe: DamageProbe,
    measured: DamageTable,
    uniform: int,
    alignment: int,
    floor: int,
    looks: int = LOOKS,
    progress: Callable[[int], None] = lambda _: None,
) -> FoundWidths:
    """The widths with the least KL that were found: those of the programme over the table or the uniform ones, and
    exchanges of neurons between two layers from there.

    Args:
        probe: On the dense model.
        measured: The damage of `measured_choices`.
        uniform: The mean width.
        alignment: Widths are multiples of it.
        floor: The least width of a layer, at most `uniform`.
        looks: Measurements, at most; at least 3.
        progress: Called with 1 after each measurement.
    """
    widths = _grid(uniform, alignment, floor, probe.whole.width)
    table = DamageTable(tuple(map(LayerChoice, widths)), between(measured, widths))
    costs = np.tile(np.array(widths, dtype=float), (probe.layers, 1))
    budget = float(uniform * probe.layers)
    even = [widths.index(uniform)] * probe.layers
    starts = [even, cheapest(table.nats, costs, budget, at_least=budget) or even]
    nats = []
    for start in starts:
        nats.append(probe.nats([table.choices[choice] for choice in start]))
        progress(1)
    best = starts[int(np.argmin(nats))]
    found, least = improve(probe, table, costs, budget, best, looks - len(starts), budget, progress)
    return FoundWidths(tuple(widths[choice] for choice in found), least, nats[0])


def _grid(uniform: int, alignment: int, floor: int, size: int) -> list[int]:
    """Widths from the floor to the whole, the uniform one among them, so that exchanges keep the sum."""
    step = alignment * math.ceil(size / (alignment * _STEPS))
    return [*range(uniform - (uniform - floor) // step * step, size + 1, step)]


def between(table: DamageTable, widths: Sequence[int]) -> FloatArray:
    """[layers, widths]: damage never grows with the width, and its root is linear between two that were measured, as KL
    grows with the square of a small change.
    """
    knots = [choice.width for choice in table.choices]
    falling = np.maximum.accumulate(table.nats[:, ::-1], axis=1)[:, ::-1]
    with np.errstate(invalid="ignore"):
        found = np.array([np.interp(widths, knots, row) for row in np.sqrt(falling)]) ** 2
    return np.asarray(np.nan_to_num(found, nan=np.inf, posinf=np.inf))
