"""Which neurons stay, per layer. Pure: scores in, plan out, the same plan for the same input on every machine."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from harness.errors import UsageError
from harness.store import load_arrays, save_arrays
from harness.types import FloatArray, IndexArray, Method, NeuronScores, PruningPlan

METHODS: tuple[Method, ...] = ("selective", "random", "reverse")
_WIDE, _WIDE_ALIGNMENT, _SMALL_ALIGNMENT = 1024, 128, 16


def default_alignment(intermediate_size: int) -> int:
    """128 from width 1024 up, as vLLM's GPU kernels like it; 16 below."""
    return _WIDE_ALIGNMENT if intermediate_size >= _WIDE else _SMALL_ALIGNMENT


def default_metric(method: Method) -> str | None:
    """Compression asks what the task needs (rms), reverse pruning what is specific to it (smd), random asks nothing."""
    return {"selective": "rms", "reverse": "smd", "random": None}[method]


def pruned_width(intermediate_size: int, ratio: float, alignment: int) -> int:
    """The remaining width: (1 - ratio) * intermediate_size rounded DOWN to the alignment; ratio 0 keeps all.

    Raises UsageError for a ratio outside [0, 1), an alignment below 1, or where no neuron would be left.
    """
    if not 0 <= ratio < 1 or math.isnan(ratio):
        raise UsageError(f"ratio {ratio} is outside [0, 1); it is the fraction of FFN neurons to remove, 0.2 for 20 %")
    if alignment < 1:
        raise UsageError(f"alignment {alignment} must be at least 1")
    if ratio == 0:
        return intermediate_size
    exact = round((1 - ratio) * intermediate_size, 6)  # 0.9 * 640 is 576, not 575.99..
    width = math.floor(exact / alignment) * alignment
    if width < 1:
        raise UsageError(f"ratio {ratio} leaves no neuron of {intermediate_size} at alignment {alignment}; lower --ratio or --align")
    return width


def make_plan(scores: NeuronScores, ratio: float, method: Method, metric: str | None, seed: int, alignment: int) -> PruningPlan:
    """The same width in every layer. selective removes the lowest scores, reverse the highest, random any."""
    if method not in METHODS:
        raise UsageError(f"unknown method {method!r}; known are {', '.join(METHODS)}")
    table = next(iter(scores.scores.values())) if metric is None else _scores_of(scores.scores, metric)
    layers, intermediate_size = table.shape
    width = pruned_width(intermediate_size, ratio, alignment)
    keep = tuple(_keep(table[layer], width, method, (seed, layer)) for layer in range(layers))
    return PruningPlan(
        keep, intermediate_size, method, metric if method != "random" else None, ratio, seed, alignment,
        scores.model, scores.model_hash, scores.file_hash, scores.tokens,
    )  # fmt: skip


def _scores_of(scores: Mapping[str, FloatArray], metric: str) -> FloatArray:
    if metric not in scores:
        raise UsageError(f"the scores hold {', '.join(sorted(scores))}, not {metric!r}; choose one of these")
    return scores[metric]


def _keep(scores: FloatArray, width: int, method: Method, seed: tuple[int, int]) -> IndexArray:
    """Sorted indices of the neurons that stay; equal scores fall to the lower index."""
    if method == "random":
        order = np.random.default_rng(seed).permutation(len(scores))
    else:
        order = np.argsort(-scores if method == "selective" else scores, kind="stable")
    return np.sort(order[:width]).astype(np.int32)


def save_plan(plan: PruningPlan, path: Path) -> None:
    """`layers.{i}.keep` int32 and the metadata of the contract; the same plan gives the same bytes."""
    metadata = {
        "method": plan.method, "metric": plan.metric or "", "ratio": repr(plan.ratio), "seed": str(plan.seed),
        "alignment": str(plan.alignment), "model": plan.model, "model_hash": plan.model_hash,
        "scores_hash": plan.scores_hash, "tokens": plan.tokens,
        "intermediate_size": str(plan.intermediate_size), "layers": str(len(plan.keep)),
    }  # fmt: skip
    save_arrays(path, {f"layers.{i}.keep": indices for i, indices in enumerate(plan.keep)}, metadata)


def load_plan(path: Path) -> PruningPlan:
    """Reads and checks a plan; raises UsageError where the file is no plan or its indices are not sorted and unique."""
    arrays, meta = load_arrays(path, "harness plan")
    try:
        keep = tuple(arrays[f"layers.{i}.keep"] for i in range(int(meta["layers"])))
        size = int(meta["intermediate_size"])
        plan = PruningPlan(
            keep, size, meta["method"], meta["metric"] or None, float(meta["ratio"]), int(meta["seed"]),  # type: ignore[arg-type]
            int(meta["alignment"]), meta["model"], meta["model_hash"], meta["scores_hash"], meta["tokens"],  # type: ignore[arg-type]
        )  # fmt: skip
    except (KeyError, ValueError) as error:
        raise UsageError(f"{path} is not a pruning plan (no {error}); make one with `harness plan`") from error
    if not all(len(k) and (np.diff(k) > 0).all() and k[0] >= 0 and k[-1] < size for k in keep):
        raise UsageError(f"{path} holds indices that are not sorted, unique and below {size}; make the plan again")
    return plan
