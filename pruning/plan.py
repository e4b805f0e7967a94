"""Which neurons stay, per layer. Pure: scores in, plan out, the same plan for the same input on every machine."""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.core.errors import UsageError
from harness.core.types.arrays import FloatArray, IndexArray
from harness.core.types.pruning import Allocation, Method, NeuronScores, PruningPlan, StructureName
from pruning.matched import matched_keep
from pruning.scores import UNIT_FREE, check_metric
from pruning.structure_plan import (
    all_neurons,
    lowest_layers,
    removed_blocks,
)
from pruning.structures import STRUCTURES, check_metric_of

BEST_METRIC = "obs"  # with re-fitted columns; chosen on validation items: docs/pruning.md
CONTRIBUTION = "contrib"  # the metric by which neurons are protected and matched
_MOST_SEED = 10**18 - 1
_WIDE, _WIDE_ALIGNMENT, _SMALL_ALIGNMENT = 1024, 128, 16


def default_alignment(intermediate_size: int) -> int:
    """128 from width 1024 up, as vLLM's GPU kernels like it; 16 below."""
    return _WIDE_ALIGNMENT if intermediate_size >= _WIDE else _SMALL_ALIGNMENT


def choose_metric(
    method: Method, metric: str | None, compensate: bool | None, structure: StructureName = "neuron"
) -> tuple[str | None, bool]:
    """The metric, and whether the remaining columns are re-fitted; raises UsageError for an unknown name.

    By default selective pruning uses `best`, what the task can do without, and reverse pruning S, what is specific to
    it, as does `matched`, its control. Of blocks, of which nothing is re-fitted, the default is `rms`.
    """
    row = STRUCTURES[structure]
    if compensate and not row.refits:
        raise UsageError(f"nothing is re-fitted where a whole {row.noun} goes; leave out --compensate")
    if method == "random":
        return None, bool(compensate)
    name = metric or {"selective": "best" if row.refits else "rms", "reverse": "smd", "matched": "smd"}[method]
    check_metric_of(structure, BEST_METRIC if name == "best" else check_metric(name))
    if name == "best":
        return BEST_METRIC, compensate is not False
    return check_metric(name), bool(compensate)


def pruned_width(intermediate_size: int, ratio: float, alignment: int, noun: str = "neuron") -> int:
    """The remaining width: the multiple of the alignment that is nearest to (1 - ratio) * intermediate_size.

    Of two that are as near, the larger. Ratio 0 keeps all; any other ratio removes at least what alignment allows.

    Raises UsageError for a ratio outside [0, 1), an alignment below 1, or where no neuron would be left.
    """
    if not 0 <= ratio < 1 or math.isnan(ratio):
        raise UsageError(f"ratio {ratio} is outside [0, 1); it is the fraction of FFN neurons to remove, 0.2 for 20 %")
    if alignment < 1:
        raise UsageError(f"alignment {alignment} must be at least 1")
    if ratio == 0:
        return intermediate_size
    exact = round((1 - ratio) * intermediate_size, 6)  # 0.9 * 640 is 576, not 575.99..
    nearest = math.floor((exact + alignment / 2) / alignment) * alignment
    width = min(nearest, (intermediate_size - 1) // alignment * alignment)
    if width < 1:
        raise UsageError(
            f"ratio {ratio} leaves no {noun} of {intermediate_size} at alignment {alignment}; lower --ratio or --align"
        )
    return width


@dataclass(frozen=True)
class PlanRequest:
    """What to remove.

    Attributes:
        protect: Share of the neurons with the largest contribution that stay whatever the metric says.
        compensated: Re-fit the remaining down_proj columns.
        sequential: Re-fit each layer on the output of the pruned layers before it.
        reconstructed: Optimise each layer's FFN against the dense layer after the re-fit.
        structure: Of what the ratio is a share; of blocks it is a share of the layers.
    """

    ratio: float
    method: Method = "selective"
    metric: str | None = "rms"
    seed: int = 0
    alignment: int = 1
    allocation: Allocation = "uniform"
    min_width: int = 0
    protect: float = 0.0
    compensated: bool = False
    sequential: bool = False
    structure: StructureName = "neuron"
    reconstructed: bool = False


def uniform_width(request: PlanRequest, intermediate_size: int) -> int:
    """The units of every layer that stay; with global allocation, of the mean layer. Of blocks, the layers with one."""
    if not STRUCTURES[request.structure].in_layers:
        return intermediate_size - removed_blocks(request.ratio, intermediate_size)
    noun = STRUCTURES[request.structure].noun.removeprefix("FFN ")
    return pruned_width(intermediate_size, request.ratio, request.alignment, noun)


def real_ratio(request: PlanRequest, intermediate_size: int) -> float:
    """The share of neurons that a request removes at this width, or of what else it is about."""
    return 1 - uniform_width(request, intermediate_size) / intermediate_size


def why_rounded(request: PlanRequest, whole: int) -> str:
    """Why a ratio is not done as it was asked."""
    row = STRUCTURES[request.structure]
    if request.structure == "neuron":
        return f"widths are multiples of {request.alignment}, --align sets another"
    return f"a layer has {whole} {row.noun}s" if row.in_layers else f"the model has {whole} {row.noun}s"


def check_request(request: PlanRequest, intermediate_size: int) -> None:
    """Raises UsageError for a request that cannot be planned, before anything is scored."""
    uniform = uniform_width(request, intermediate_size)
    if request.allocation == "search":
        _check_search(request)
    if not 0 <= request.protect < 1:
        raise UsageError(
            f"protect {request.protect} is outside [0, 1); it is the share of neurons that always stay, 0.01 for 1 %"
        )
    if request.protect and not STRUCTURES[request.structure].in_layers:
        raise UsageError(f"--protect is of neurons or KV groups, not of {STRUCTURES[request.structure].noun}s")
    if request.sequential and not request.compensated:
        raise UsageError("--sequential is a way to re-fit, and nothing is re-fitted; add --compensate or leave it out")
    if request.reconstructed:
        _check_reconstructed(request)
    if request.allocation == "global" and request.method == "random":
        raise UsageError("a random choice has no ranking over layers; use --allocation uniform")
    if request.min_width > uniform:
        raise UsageError(
            f"--min-width {request.min_width} is above the {uniform} that ratio {request.ratio} leaves; lower one"
        )
    if round(request.protect * intermediate_size) > uniform:
        raise UsageError(
            f"protect {request.protect} keeps more than the width {uniform} that "
            f"ratio {request.ratio} leaves; lower one"
        )
    if request.method == "matched" and 2 * uniform < intermediate_size:
        raise UsageError(f"ratio {request.ratio} is over 0.5, where not every neuron has another one as its match")
    if request.allocation != "uniform":
        least_width(request, intermediate_size)


def _check_search(request: PlanRequest) -> None:
    """Raises UsageError where measured damage is not what the widths should go by."""
    if request.structure != "neuron":
        noun = STRUCTURES[request.structure].noun
        raise UsageError(f"--allocation search finds FFN widths, and {noun}s have none; use --allocation uniform")
    if request.method != "selective":
        raise UsageError(
            f"--allocation search finds the widths that cost least, which {request.method} pruning is no part of; "
            "use --method selective, or another --allocation"
        )
    if not request.compensated:
        raise UsageError(
            "--allocation search measures layers with re-fitted columns; add --compensate or use --metric best"
        )


def _check_reconstructed(request: PlanRequest) -> None:
    if request.structure != "neuron":
        noun = STRUCTURES[request.structure].noun
        raise UsageError(f"--reconstruct optimises FFNs that lost neurons, not what lost {noun}s; leave it out")
    if not request.compensated:
        raise UsageError("--reconstruct starts from re-fitted columns; add --compensate, or leave out --reconstruct")


def make_plan(scores: NeuronScores, request: PlanRequest, widths: Sequence[int] | None = None) -> PruningPlan:
    """Removes the lowest scores (selective), the highest (reverse), any (random), or in place of the highest others of
    the same contribution (matched), with uniform or per-layer widths.

    Args:
        scores: Of the request's structure.
        request: What to remove.
        widths: Of each layer, where the allocation is a search, which found them.

    Raises:
        UsageError: The scores lack the metric, or the widths are impossible or missing.
    """
    table = (
        next(iter(scores.scores.values()))
        if request.method == "random"
        else _scores_of(scores.scores, str(request.metric))
    )
    if scores.structure != request.structure:
        raise UsageError(
            f"the scores are of each {scores.structure}, not of each {request.structure}; "
            f"score again with --structure {request.structure}"
        )
    if STRUCTURES[request.structure].in_layers:
        kept = _of_units(_kept_units(scores, table, request, widths), table.shape[1], scores, request)
    else:
        kept = _of_blocks(table, scores, request)
    return PruningPlan(
        **kept,
        structure=request.structure,
        method=request.method,
        metric=None if request.method == "random" else request.metric,
        ratio=request.ratio,
        seed=request.seed,
        alignment=request.alignment,
        model=scores.model,
        model_kind=scores.model_kind,
        model_hash=scores.model_hash,
        scores_hash=scores.file_hash,
        tokens=scores.tokens,
        allocation=request.allocation,
        protect=request.protect,
        compensated=request.compensated,
        sequential=request.sequential,
        reconstructed=request.reconstructed,
        general_weight=scores.general_weight,
    )


def removal_order(scores: NeuronScores, request: PlanRequest) -> tuple[IndexArray, ...]:
    """All neurons of every layer, the one that is removed last first: the first N are those that `make_plan` keeps at
    width N with the request's method, metric, seed and protected share.
    """
    random = request.method == "random"
    table = next(iter(scores.scores.values())) if random else _scores_of(scores.scores, str(request.metric))
    return tuple(np.argsort(-each, kind="stable").astype(np.int32) for each in _ranked(scores, table, request))


def _ranked(scores: NeuronScores, table: FloatArray, request: PlanRequest) -> FloatArray:
    """[layers, units]: what is worth most stays longest, and what is protected always."""
    worth = np.stack([_worth(row, request.method, (request.seed, layer)) for layer, row in enumerate(table)])
    worth[_protected(scores, request.protect)] = np.inf
    return worth


def _kept_units(
    scores: NeuronScores, table: FloatArray, request: PlanRequest, given: Sequence[int] | None
) -> tuple[IndexArray, ...]:
    """Indices of the neurons or KV groups of each layer that stay."""
    check_request(request, table.shape[1])
    ranked = _ranked(scores, table, request)
    keep = tuple(_best(row, width) for row, width in zip(ranked, _widths(ranked, request, given), strict=True))
    if request.method == "matched":
        return tuple(map(matched_keep, keep, _scores_of(scores.scores, CONTRIBUTION)))
    return keep


def _of_units(keep: tuple[IndexArray, ...], units: int, scores: NeuronScores, request: PlanRequest) -> dict[str, Any]:
    if request.structure == "neuron":
        return {"keep": keep, "intermediate_size": units}
    whole = scores.intermediate_size
    return {
        "keep": all_neurons(len(keep), whole),
        "intermediate_size": whole,
        "kv_keep": keep,
        "num_key_value_heads": units,
    }


def _of_blocks(table: FloatArray, scores: NeuronScores, request: PlanRequest) -> dict[str, Any]:
    """One ranking over all layers, of which the lowest lose their block."""
    check_request(request, len(table))
    worth = _worth(table[:, 0], request.method, (request.seed, 0))[:, None]
    if request.structure == "attention":
        worth[0] = np.inf  # which every form of such plans needs
    layers, whole = lowest_layers(worth, request.ratio), scores.intermediate_size
    skips = {f"skip_{block}": layers for block in STRUCTURES[request.structure].blocks}
    return {"keep": all_neurons(len(table), whole), "intermediate_size": whole, **skips}


def _scores_of(scores: Mapping[str, FloatArray], metric: str) -> FloatArray:
    if metric not in scores:
        raise UsageError(
            f"the scores hold {', '.join(sorted(scores))}, not {metric!r}; score again with --metric {metric}"
        )
    return scores[metric]


def _worth(scores: FloatArray, method: Method, seed: tuple[int, int]) -> FloatArray:
    """The order in which neurons stay, highest first: the score, its negative, or a random rank."""
    if method == "random":
        worth = np.empty(len(scores))
        worth[np.random.default_rng(seed).permutation(len(scores))] = np.arange(len(scores), 0, -1)
        return worth
    exact = scores.astype(np.float64)
    return exact if method == "selective" else -exact


def _protected(scores: NeuronScores, share: float) -> npt.NDArray[np.bool_]:
    """[layers, intermediate_size]: the top `share` of every layer by contribution to the task."""
    table = next(iter(scores.scores.values()))
    mask = np.zeros(table.shape, dtype=bool)
    count = round(share * table.shape[1])
    if count:
        best = np.argsort(-_scores_of(scores.scores, CONTRIBUTION), axis=1, kind="stable")[:, :count]
        np.put_along_axis(mask, best, True, axis=1)
    return mask


def _widths(ranked: FloatArray, request: PlanRequest, given: Sequence[int] | None) -> list[int]:
    layers, size = ranked.shape
    uniform = uniform_width(request, size)
    if request.allocation == "uniform" or request.ratio == 0:
        return [uniform] * layers
    if request.allocation == "search":
        return _found_widths(given, ranked.shape)
    return global_widths(_comparable(ranked, request), layers * uniform, request.alignment, request.min_width)


def _found_widths(given: Sequence[int] | None, shape: tuple[int, ...]) -> list[int]:
    """Raises UsageError where a search has not found a width for every layer."""
    layers, size = shape
    if given is None or len(given) != layers or not all(0 < width <= size for width in given):
        raise UsageError(
            "--allocation search needs widths that were found on the model, one for each layer; use `harness run`"
        )
    return list(given)


def _comparable(ranked: FloatArray, request: PlanRequest) -> FloatArray:
    """Scores on one scale over the layers: unchanged for a metric without unit, else standardised per layer as in
    FLAP.
    """
    if request.metric in UNIT_FREE:
        return ranked
    held = np.where(np.isinf(ranked), np.nan, ranked)
    standard = (ranked - np.nanmean(held, axis=1, keepdims=True)) / (
        np.nanstd(held, axis=1, keepdims=True) + np.finfo(float).tiny
    )
    return np.asarray(standard)


def global_widths(scores: FloatArray, total: int, alignment: int, min_width: int = 0) -> list[int]:
    """One ranking over all layers: neurons in steps of `alignment` go to the layer whose next ones are worth most.

    Every width is a multiple of the alignment, at least `min_width` (at least an eighth of the layer), at most the
    layer, and they sum to at most `total`. Raises UsageError where the floor alone is above it.
    """
    layers, size = scores.shape
    floor = _floor(total // layers, size, alignment, min_width)
    steps = size // alignment
    blocks = np.sort(scores, axis=1)[:, ::-1][:, : steps * alignment].reshape(layers, steps, alignment)
    gains = np.nan_to_num(blocks.mean(axis=2), posinf=np.finfo(float).max)
    taken = np.full(layers, floor // alignment)
    heap = [(-gains[layer, taken[layer]], layer) for layer in range(layers) if taken[layer] < steps]
    heapq.heapify(heap)
    for _ in range((total - floor * layers) // alignment):
        if not heap:
            break
        _, layer = heapq.heappop(heap)
        taken[layer] += 1
        if taken[layer] < steps:
            heapq.heappush(heap, (-gains[layer, taken[layer]], layer))
    return [int(count) * alignment for count in taken]


def least_width(request: PlanRequest, size: int) -> int:
    """The least width of a layer where layers differ; raises UsageError where it is above the mean width."""
    return _floor(uniform_width(request, size), size, request.alignment, request.min_width)


def _floor(uniform: int, size: int, alignment: int, min_width: int) -> int:
    floor = floor_width(size, alignment, min_width)
    if floor > uniform:
        raise UsageError(
            f"a floor of {floor} neurons per layer is more than the ratio leaves; lower --ratio, --min-width or --align"
        )
    return floor


def floor_width(size: int, alignment: int, min_width: int) -> int:
    """The least width of a layer where layers differ: `min_width`, at least an eighth, rounded up to the alignment."""
    return -(-max(min_width, size // 8, 1) // alignment) * alignment


def _best(ranked: FloatArray, width: int) -> IndexArray:
    """Sorted indices of the neurons that stay; equal scores fall to the lower index."""
    return np.sort(np.argsort(-ranked, kind="stable")[:width]).astype(np.int32)
