"""The arms of a joint search, what a layer may become in each, and what it takes of the goal's limits. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from harness.core.types.arrays import FloatArray
from harness.core.types.goal import Goal
from harness.core.types.pruning import ModelShape
from harness.engine.memory_budget import kv_copies
from harness.serving.cost_table import CostTable, Sizes, layer_shares, shape_with, sizes_of
from harness.serving.roofline import engine_shape, find_device, room_bytes
from pruning.search.choices import LayerChoice
from pruning.search.table import DamageTable
from pruning.search.widths import between, measured_choices

ARMS: Mapping[str, Callable[[int, int], bool]] = {  # whether a layer may have a width, of a whole width
    "joint": lambda _width, _whole: True,
    "ffn-only": lambda width, _whole: width > 0,
    "depth-only": lambda width, whole: width in (0, whole),
}
TRIMMED = "joint"  # the arm whose vocabulary may be smaller
_EACH = 2  # of the widths that a search of widths alone measures; removed layers are measured besides
_REMOVED = LayerChoice(0, removed=True)


def to_measure(size: int, alignment: int) -> tuple[LayerChoice, ...]:
    """What is measured of every layer: the least width, some more, the whole, and no layer."""
    widths = measured_choices(size, alignment)
    some = sorted({0, *range(len(widths) - 1, 0, -_EACH)})
    return (*(widths[i] for i in some), _REMOVED)


def width_grid(size: int, alignment: int, least: int) -> tuple[int, ...]:
    """What a layer may become: 0 for removed, and multiples of the alignment about an eighth of the whole apart, from
    the least that is measured, or from `least`, to the whole.
    """
    step = max(alignment, size // 8 // alignment * alignment)
    first = max(to_measure(size, alignment)[0].width, least)
    return (0, *sorted({*range(size // alignment * alignment, first - 1, -step)} | {size}))


def grid_table(measured: DamageTable, widths: Sequence[int]) -> DamageTable:
    """The damage of every width of a grid, between those that were measured as `between` says."""
    removed = measured.choices.index(_REMOVED)
    others = [i for i in range(len(measured.choices)) if i != removed]
    knots = DamageTable(tuple(measured.choices[i] for i in others), measured.nats[:, others])
    nats = np.concatenate([measured.nats[:, [removed]], between(knots, widths[1:])], axis=1)
    return DamageTable((_REMOVED, *map(LayerChoice, widths[1:])), np.nan_to_num(nats, nan=np.inf, posinf=np.inf))


def of_arm(arm: str, table: DamageTable, shares: FloatArray) -> tuple[DamageTable, FloatArray]:
    """The choices of one arm: their damage [layers, choices], and their costs in each layer as a share of the limit."""
    whole = max(choice.width for choice in table.choices)
    chosen = [i for i, choice in enumerate(table.choices) if ARMS[arm](choice.width, whole)]
    costs = np.tile(shares[chosen], (len(table.nats), 1))
    return DamageTable(tuple(table.choices[i] for i in chosen), table.nats[:, chosen]), costs


def goal_shares(
    goal: Goal, shape: ModelShape, table: CostTable | None, speedup: float, widths: Sequence[int], vocabulary: int
) -> FloatArray | None:
    """What a layer of each width takes of what all layers may take together; 0 for a removed one.

    Of several limits (time, parameters, memory) the largest share counts, so that a sum of at most 1 keeps them all.

    Args:
        goal: The limits.
        shape: Of the dense model.
        table: The costs in time, where the goal is a speed-up.
        speedup: What to plan for, at least the goal's.
        widths: 0 for a removed layer.
        vocabulary: Rows that stay.

    Returns:
        [widths]; None where what is no layer is over a limit alone.
    """
    found = [layer_shares(table, speedup, widths, vocabulary)] if table else []
    shape = shape_with(shape, replace(sizes_of(shape), vocabulary=vocabulary))
    if goal.params is not None:
        found.append(_shares(_parameters(shape, widths), goal.params - _beside_layers(shape)))
    if goal.fits is not None:
        found.append(_memory_shares(goal, shape, widths))
    known = [shares for shares in found if shares is not None]
    return np.max(known, axis=0) if known and len(known) == len(found) else None


def _shares(costs: FloatArray, room: float) -> FloatArray | None:
    return costs / room if room > 0 else None


def _parameters(shape: ModelShape, widths: Sequence[int]) -> FloatArray:
    """Of a layer of each width."""
    left = [shape.layer_parameters - shape.neuron_parameters * (shape.intermediate_size - width) for width in widths]
    return np.where(np.asarray(widths) > 0, np.array(left, dtype=np.float64), 0.0)


def _beside_layers(shape: ModelShape) -> int:
    return shape.parameters - shape.num_hidden_layers * shape.layer_parameters


def _memory_shares(goal: Goal, shape: ModelShape, widths: Sequence[int]) -> FloatArray | None:
    """Bytes of a layer's weights and of the keys and values that it caches for all requests, of one GPU."""
    device, shape = find_device(str(goal.fits)), engine_shape(shape)
    weights = _parameters(shape, widths) * shape.dtype_bytes / device.count
    cached = (
        shape.kv_bytes_per_token
        * kv_copies(shape.num_key_value_heads, device.count)
        / shape.num_hidden_layers
        / device.count
    )
    cache = np.where(np.asarray(widths) > 0, cached * goal.requests * goal.context, 0.0)
    return _shares(
        weights + cache, room_bytes(shape, device) - _beside_layers(shape) * shape.dtype_bytes / device.count
    )


def next_speedup(asked: float, goal: float, measured: float) -> float:
    """What to plan for next where a plan for `asked` was measured at less than the goal: more by as much as it missed,
    between 2 and 15 %, as a timing is not exact.
    """
    return asked * min(1.15, max(1.02, goal / measured if measured > 0 else 1.15))


def sizes_of_widths(widths: Sequence[int], vocabulary: int) -> Sizes:
    """Of a plan, in which a removed layer has width 0."""
    return Sizes(tuple(width for width in widths if width), vocabulary)
