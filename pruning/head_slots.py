"""Layers that keep different numbers of KV groups, in a model whose layers all have the same number of query heads.

vLLM's DeciLM class gives every layer a number of KV heads of its own and shares the same query heads out among them. A
layer that keeps fewer groups than another has room for more query heads than it has. What is left over is zeros: rows
of q_proj and columns of o_proj, so that these heads add nothing. Where the query heads cannot be shared out among the
kept KV heads, there are KV heads of zeros too, which only query heads of zeros read.
"""

from __future__ import annotations

import numpy as np

from harness.core.types.arrays import IndexArray
from harness.core.types.pruning import ModelShape, PruningPlan
from pruning.cuts import HeadCut


def query_heads(plan: PruningPlan, shape: ModelShape) -> int:
    """Of every layer: those of the layer that keeps the most KV groups, among the layers that keep their attention."""
    if not plan.kv_keep:
        return shape.num_attention_heads
    kept = [count for layer, count in enumerate(plan.kv_heads) if layer not in plan.skip_attention]
    return shape.query_heads_per_group * max(kept, default=1)


def kv_slots(plan: PruningPlan, layer: int, shape: ModelShape) -> int:
    """KV heads of a layer: the fewest that hold its groups and among which the query heads can be shared out."""
    heads = query_heads(plan, shape)
    most = heads // shape.query_heads_per_group
    groups = min(plan.kv_heads[layer], most) if plan.kv_keep else most
    return next(slots for slots in range(groups, most + 1) if heads % slots == 0)


def places(cut: HeadCut, plan: PruningPlan, layer: int, shape: ModelShape) -> tuple[IndexArray, int] | None:
    """Where the kept indices of a tensor of attention go along its axis, int64 in their order, and how long that is.

    None where they fill it.
    """
    slots, groups = kv_slots(plan, layer, shape), plan.kv_heads[layer]
    room = query_heads(plan, shape) // slots
    found, start = [], 0
    for block in cut.blocks:
        size, used = (room, shape.query_heads_per_group) if block == "q" else (1, 1)
        first = start + np.arange(groups)[:, None] * size * shape.head_dim
        found.append((first + np.arange(used * shape.head_dim)).reshape(-1))
        start += slots * size * shape.head_dim
    kept: IndexArray = np.concatenate(found)
    return None if len(kept) == start else (kept, start)
