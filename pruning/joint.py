"""Plans that say of each layer how wide its FFN stays and whether its attention does, or that all of it goes. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from harness.core.errors import UsageError
from harness.core.types.pruning import NeuronScores, PruningPlan
from pruning.plan import PlanRequest, make_plan, removal_order


def joint_plan(
    scores: NeuronScores, request: PlanRequest, widths: Sequence[int], without_attention: Sequence[int] = ()
) -> PruningPlan:
    """The plan that leaves `widths` of the FFN neurons of each layer, and removes the layers of width 0.

    A layer keeps the neurons that are removed last by the request's method, metric and seed. Its ratio is the share of
    the model's FFN neurons that go, those of removed layers among them.

    Args:
        scores: Of neurons.
        request: Its ratio, allocation and structure are not used.
        widths: One for each layer.
        without_attention: The layers whose attention goes too.

    Raises:
        UsageError: A width is not in [0, intermediate_size], no layer is left, or their number is not the model's.
    """
    whole = make_plan(scores, replace(request, ratio=0.0, structure="neuron", allocation="uniform"))
    layers, size = len(whole.keep), whole.intermediate_size
    if len(widths) != layers or not all(0 <= width <= size for width in widths) or not any(widths):
        raise UsageError(
            f"{len(widths)} widths from {min(widths, default=0)} to {max(widths, default=0)} are no plan for "
            f"{layers} layers of width {size}; give one from 0 to {size} for each, not all of them 0"
        )
    removed = tuple(layer for layer, width in enumerate(widths) if not width)
    orders = removal_order(scores, request)
    kept = (np.sort(order[:width]) if width else np.sort(order) for order, width in zip(orders, widths, strict=True))
    return replace(
        whole,
        keep=tuple(kept),
        structure="joint",
        ratio=1 - sum(widths) / (layers * size),
        skip_attention=tuple(sorted({*removed, *without_attention})),
        skip_ffn=removed,
    )
