"""A plan's file: kept indices, and metadata that says how they were chosen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from harness.core.errors import UsageError
from harness.core.files import load_arrays, save_arrays
from harness.core.metadata import Metadata, count_of, flag_of, fraction_of, model_kind_of, name_of, reason
from harness.core.types.arrays import IndexArray
from harness.core.types.calibration import TokenScope
from harness.core.types.pruning import Allocation, Method, PruningPlan
from pruning.config_sizes import MOST_SIZES
from pruning.structure_plan import known_names, read_structures, structure_arrays, structure_metadata

_PLAN_BYTES = 1 << 30  # 80 layers that keep 53,248 neurons take 17 MB
_MOST_SEED = 10**18 - 1


def save_plan(plan: PruningPlan, path: Path) -> None:
    """`layers.{i}.keep` int32, what `structure_plan` adds, and metadata; the same plan gives the same bytes."""
    metadata = {
        "method": plan.method,
        "metric": plan.metric or "",
        "ratio": repr(plan.ratio),
        "seed": str(plan.seed),
        "alignment": str(plan.alignment),
        "model": plan.model,
        "model_kind": plan.model_kind,
        "model_hash": plan.model_hash,
        "scores_hash": plan.scores_hash,
        "tokens": plan.tokens,
        "intermediate_size": str(plan.intermediate_size),
        "layers": str(len(plan.keep)),
        "allocation": plan.allocation,
        "protect": repr(plan.protect),
        "compensated": str(plan.compensated).lower(),
        "sequential": str(plan.sequential).lower(),
        "general_weight": repr(plan.general_weight),
        **structure_metadata(plan),
        **({"reconstructed": "true"} if plan.reconstructed else {}),  # others are as they were before there was any
    }
    kept = {f"layers.{i}.keep": indices for i, indices in enumerate(plan.keep)}
    save_arrays(path, kept | structure_arrays(plan), metadata)


def load_plan(path: Path) -> PruningPlan:
    """Reads and checks a plan.

    Raises:
        UsageError: The file is no plan, or not every layer keeps sorted, unique indices below intermediate_size.
    """
    arrays, meta = load_arrays(path, "harness plan", _PLAN_BYTES)
    try:
        return replace(_plan_of(arrays, meta), path=path)
    except (KeyError, ValueError) as error:
        raise UsageError(f"{path} is not a pruning plan ({reason(error)}); make one with `harness plan`") from error


def _plan_of(arrays: Mapping[str, npt.NDArray[Any]], meta: Metadata) -> PruningPlan:
    """Raises KeyError or ValueError for what is missing or wrong."""
    layers = count_of(meta, "layers", MOST_SIZES["num_hidden_layers"], 1)
    size = count_of(meta, "intermediate_size", MOST_SIZES["intermediate_size"], 1)
    names = [f"layers.{layer}.keep" for layer in range(layers)]
    if unknown := sorted(arrays.keys() - set(names) - known_names(meta, layers)):
        raise ValueError(f"it holds {unknown[0][:80]} and is for {layers} layers")
    return PruningPlan(
        keep=tuple(_checked(arrays[name], name, size) for name in names),
        intermediate_size=size,
        method=name_of(meta, "method", get_args(Method)),
        metric=meta["metric"] or None,
        ratio=fraction_of(meta, "ratio", lambda ratio: 0 <= ratio < 1),
        seed=count_of(meta, "seed", _MOST_SEED),
        alignment=count_of(meta, "alignment", _MOST_SEED, 1),
        model=meta["model"],
        model_kind=model_kind_of(meta),
        model_hash=meta["model_hash"],
        scores_hash=meta["scores_hash"],
        tokens=name_of(meta, "tokens", get_args(TokenScope)),
        allocation=name_of(meta, "allocation", get_args(Allocation)),
        protect=fraction_of(meta, "protect"),
        compensated=flag_of(meta, "compensated"),
        sequential=flag_of(meta, "sequential"),
        reconstructed=flag_of({"reconstructed": "false", **meta}, "reconstructed"),
        general_weight=fraction_of(meta, "general_weight"),
        **read_structures(arrays, meta, layers, _checked),
    )


def _checked(keep: npt.NDArray[Any], name: str, size: int) -> IndexArray:
    if keep.ndim != 1 or keep.dtype.kind not in "iu":
        raise ValueError(f"{name} is {keep.dtype} {list(keep.shape)}, not a list of integers")
    if not len(keep) or not (keep[1:] > keep[:-1]).all() or not 0 <= int(keep[0]) <= int(keep[-1]) < size:
        raise ValueError(f"{name} holds indices that are not sorted, unique and below {size}")
    return keep.astype(np.int32)
