"""The arms of a joint search, what a layer may become in each, and what it takes of the goal's limits. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from harness.core.types.arrays import FloatArray
from harness.core.types.goal import Goal
from harness.core.types.pruning import ModelShape
from harness.engine.memory_budget import kv_copies
from harness.serving.cost_table import CostTable, Sizes, attention_goes, layer_shares, shape_with, sizes_of
from harness.serving.roofline import engine_shape, find_device, room_bytes
from pruning.search.choices import LayerChoice
from pruning.search.table import DamageTable
from pruning.search.widths import between, measured_choices

ARMS: Mapping[str, Callable[[LayerChoice, int], bool]] = {  # whether a layer may become that, of a whole width
    "joint": lambda _choice, _whole: True,
    "ffn-only": lambda choice, _whole: choice.attention,
    "depth-only": lambda choice, whole: choice.removed or choice == LayerChoice(whole),
}
TRIMMED = "joint"  # the arm whose vocabulary may be smaller
_EACH = 2  # of the widths that a search of widths alone measures; removed layers are measured besides
_REMOVED = LayerChoice(0, attention=False)
_MARGIN = 1.01  # of a measured goal, which the lower end of an interval has to meet
_WASTED = 1.05  # of a measured goal; speed beyond costs damage that nobody asked for


def to_measure(shape: ModelShape, alignment: int) -> tuple[LayerChoice, ...]:
    """What is measured of every layer: the least width, some more, the whole, no attention where that can go, and no
    layer.
    """
    widths = measured_choices(shape.intermediate_size, alignment)
    some = sorted({0, *range(len(widths) - 1, 0, -_EACH)})
    bare = [LayerChoice(shape.intermediate_size, attention=False)] if attention_goes(shape) else []
    return (*(widths[i] for i in some), *bare, _REMOVED)


def grid_choices(shape: ModelShape, alignment: int, least: int) -> tuple[LayerChoice, ...]:
    """What a layer may become: removed, or of a width with attention, or where it can go of a width without. Widths are
    multiples of the alignment about an eighth of the whole apart, from the least that is measured, or from `least`, to
    the whole.
    """
    size = shape.intermediate_size
    step = max(alignment, size // 8 // alignment * alignment)
    first = max(to_measure(shape, alignment)[0].width, least)
    widths = sorted({*range(size // alignment * alignment, first - 1, -step)} | {size})
    kinds = (True, False) if attention_goes(shape) else (True,)
    return (_REMOVED, *(LayerChoice(width, attention) for attention in kinds for width in widths))


def grid_table(measured: DamageTable, grid: Sequence[LayerChoice]) -> DamageTable:
    """The damage of every choice of a grid: of widths between those that were measured as `between` says, and without
    attention as much more as without it alone. Where attention can go, the first layer stays and keeps its own.
    """
    of_choice = dict(zip(measured.choices, measured.nats.T, strict=True))
    whole = max(choice.width for choice in measured.choices)
    bare = of_choice.get(LayerChoice(whole, attention=False))
    knots = [choice for choice in measured.choices if choice.attention]
    known = DamageTable(tuple(knots), np.array([of_choice[choice] for choice in knots]).T)
    nats = between(known, [choice.width or whole for choice in grid])
    for i, choice in enumerate(grid):
        if choice.removed:
            nats[:, i] = of_choice[_REMOVED]
        elif bare is not None and not choice.attention:
            nats[:, i] += bare
        if bare is not None and not choice.attention:
            nats[0, i] = np.inf
    return DamageTable(tuple(grid), np.nan_to_num(nats, nan=np.inf, posinf=np.inf))


def of_arm(arm: str, table: DamageTable, shares: FloatArray) -> tuple[DamageTable, FloatArray]:
    """The choices of one arm: their damage [layers, choices], and their costs in each layer as a share of the limit."""
    whole = max(choice.width for choice in table.choices)
    chosen = [i for i, choice in enumerate(table.choices) if ARMS[arm](choice, whole)]
    costs = np.tile(shares[chosen], (len(table.nats), 1))
    return DamageTable(tuple(table.choices[i] for i in chosen), table.nats[:, chosen]), costs


def goal_shares(
    goal: Goal,
    shape: ModelShape,
    table: CostTable | None,
    speedup: float,
    choices: Sequence[LayerChoice],
    vocabulary: int,
) -> FloatArray | None:
    """What a layer takes, by what it becomes, of what all layers may take together; 0 for a removed one.

    Of several limits (time, parameters, memory) the largest share counts, so that a sum of at most 1 keeps them all.

    Args:
        goal: The limits.
        shape: Of the dense model.
        table: The costs in time, where the goal is a speed-up.
        speedup: What to plan for, at least the goal's.
        choices: What a layer may become.
        vocabulary: Rows that stay.

    Returns:
        [choices]; None where what is no layer is over a limit alone.
    """
    found = [layer_shares(table, speedup, choices, vocabulary)] if table else []
    shape = shape_with(shape, replace(sizes_of(shape), vocabulary=vocabulary))
    if goal.params is not None:
        found.append(_shares(_parameters(shape, choices), goal.params - _beside_layers(shape)))
    if goal.fits is not None:
        found.append(_memory_shares(goal, shape, choices))
    known = [shares for shares in found if shares is not None]
    return np.max(known, axis=0) if known and len(known) == len(found) else None


def _shares(costs: FloatArray, room: float) -> FloatArray | None:
    return costs / room if room > 0 else None


def _parameters(shape: ModelShape, choices: Sequence[LayerChoice]) -> FloatArray:
    """Of a layer, by what it becomes."""
    return np.array([0 if choice.removed else _layer_parameters(shape, choice) for choice in choices], dtype=np.float64)


def _layer_parameters(shape: ModelShape, choice: LayerChoice) -> int:
    gone = shape.neuron_parameters * (shape.intermediate_size - choice.width)
    return shape.layer_parameters - gone - (0 if choice.attention else shape.attention_parameters)


def _beside_layers(shape: ModelShape) -> int:
    return shape.parameters - shape.num_hidden_layers * shape.layer_parameters


def _memory_shares(goal: Goal, shape: ModelShape, choices: Sequence[LayerChoice]) -> FloatArray | None:
    """Bytes of a layer's weights and of the keys and values that it caches for all requests, of one GPU."""
    device, shape = find_device(str(goal.fits)), engine_shape(shape)
    weights = _parameters(shape, choices) * shape.dtype_bytes / device.count
    cached = (
        shape.kv_bytes_per_token
        * kv_copies(shape.num_key_value_heads, device.count)
        / shape.num_hidden_layers
        / device.count
    )
    reads = np.array([choice.attention for choice in choices])
    cache = np.where(reads, cached * goal.requests * goal.context, 0.0)
    return _shares(
        weights + cache, room_bytes(shape, device) - _beside_layers(shape) * shape.dtype_bytes / device.count
    )


def first_speedup(goal: Goal) -> float:
    """What to plan for first: a little more than a measured goal, 1 where no speed is asked."""
    return (goal.speedup or 1.0) * (_MARGIN if goal.is_timed else 1.0)


def next_speedup(asked: float, goal: float, measured: float) -> float:
    """What to plan for next after a plan for `asked` was measured.

    Where it missed the goal, more by as much as it missed, between 2 and 15 %, as a timing is not exact. Where it was
    more than 5 % above, less by as much, at most 15 %, but still a little more than the goal. Else the same.
    """
    if measured < goal:
        return asked * min(1.15, max(1.02, goal / measured if measured > 0 else 1.15))
    return asked * max(1 / 1.15, _MARGIN * goal / measured) if measured > _WASTED * goal else asked


def sizes_of_plan(choices: Sequence[LayerChoice], vocabulary: int) -> Sizes:
    """Of what the layers become."""
    stay = [choice for choice in choices if not choice.removed]
    return Sizes(tuple(choice.width for choice in stay), vocabulary, sum(not choice.attention for choice in stay))
