"""scores.safetensors: every metric per neuron, KV group or block, the moments they came from, and how stable rankings
are.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np

from harness.core.bounded_read import parse_json
from harness.core.errors import UnsupportedModelError, UsageError
from harness.core.files import load_arrays, save_arrays
from harness.core.hashing import file_hash
from harness.core.metadata import Metadata, count_of, fraction_of, model_kind_of, name_of, reason
from harness.core.types.arrays import FloatArray
from harness.core.types.calibration import CalibrationSet, TokenScope
from harness.core.types.pruning import ActivationStats, NeuronScores, StructureName
from pruning.config_sizes import MOST_SIZES
from pruning.inspection import stability
from pruning.structure_plan import structure_of

_MOST_PROMPTS = 10**9


def save(
    stats: ActivationStats,
    tables: Mapping[str, FloatArray],
    calibration: CalibrationSet,
    general_weight: float,
    path: Path,
    structure: StructureName = "neuron",
    intermediate_size: int = 0,
) -> None:
    """`layers.{i}.{metric}` float32 and the moments they came from; the same scores give the same bytes.

    Raises UnsupportedModelError where one of them is not finite.
    """
    arrays = {
        f"layers.{layer}.{name}": values[layer]
        for name, values in {**tables, **_moment_tables(stats)}.items()
        for layer in range(len(values))
    }
    if wrong := next((name for name, values in arrays.items() if not np.isfinite(values).all()), None):
        raise UnsupportedModelError(f"{wrong} is not finite (overflow); check the checkpoint and its dtype")
    metadata = {
        "model": calibration.model,
        "model_kind": calibration.model_kind,
        "model_hash": calibration.model_hash,
        "tokens": calibration.tokens,
        "calibration_hash": stats.calibration_hash,
        "target": calibration.target_source,
        "distractors": json.dumps(calibration.distractor_sources),
        "layers": str(len(stats.down_norm)),
        "general_weight": repr(general_weight),
        "n_target": str(stats.target.prompts.count),
        "n_distractor": str(stats.distractor.prompts.count),
        "stability": json.dumps(stability(stats)),
    }
    if structure != "neuron":
        metadata |= {"structure": structure, "intermediate_size": str(intermediate_size)}
    save_arrays(path, arrays, metadata)


def _moment_tables(stats: ActivationStats) -> dict[str, FloatArray]:
    tables = {"moments.down_norm": stats.down_norm}
    for name, group in (("target", stats.target), ("distractor", stats.distractor)):
        values = {
            "prompts.mean": group.prompts.mean,
            "prompts.m2": group.prompts.m2,
            "mean_abs": group.mean_abs,
            "mean": group.mean,
            "mean_square": group.mean_square,
            "positive": group.positive,
        }
        tables.update({f"moments.{name}.{key}": value for key, value in values.items()})
    return tables


def load(path: Path) -> NeuronScores:
    """Reads and checks scores.

    Raises:
        UsageError: The file holds no scores, or not a finite one of every metric for every neuron.
    """
    arrays, meta = load_arrays(path, "harness score")
    try:
        return replace(_scores_of(arrays, meta), file_hash=file_hash(path), path=path)
    except (KeyError, ValueError) as error:
        raise UsageError(f"{path} holds no scores ({reason(error)}); make them with `harness score`") from error


def _scores_of(arrays: Mapping[str, FloatArray], meta: Metadata) -> NeuronScores:
    """Raises KeyError or ValueError for what is missing or wrong."""
    calibration_hash, layers = meta["calibration_hash"], count_of(meta, "layers", MOST_SIZES["num_hidden_layers"], 1)
    return NeuronScores(
        scores=_tables(arrays, layers),
        model=meta["model"],
        model_kind=model_kind_of(meta),
        model_hash=meta["model_hash"],
        tokens=name_of(meta, "tokens", get_args(TokenScope)),
        calibration_hash=calibration_hash,
        general_weight=fraction_of(meta, "general_weight"),
        n_target=count_of(meta, "n_target", _MOST_PROMPTS),
        n_distractor=count_of(meta, "n_distractor", _MOST_PROMPTS),
        **_structure(meta),
    )


def _structure(meta: Metadata) -> dict[str, Any]:
    structure = structure_of(meta)
    if structure == "neuron":
        return {}
    width = count_of(meta, "intermediate_size", MOST_SIZES["intermediate_size"], 1)
    return {"structure": structure, "intermediate_size": width}


def _tables(arrays: Mapping[str, FloatArray], layers: int) -> dict[str, FloatArray]:
    """metric -> [layers, intermediate_size]."""
    names = sorted({key.partition(".")[2].partition(".")[2] for key in arrays if ".moments." not in key})
    expected = {f"layers.{layer}.{name}" for layer in range(layers) for name in names}
    given = {key for key in arrays if ".moments." not in key}
    if not names or given != expected:
        odd = sorted(given ^ expected)
        raise ValueError(f"{odd[0][:80] if odd else 'every metric'} does not fit its {layers} layers")
    shape = arrays[f"layers.0.{names[0]}"].shape
    for key in sorted(expected):
        table = arrays[key]
        if table.dtype.kind != "f" or len(shape) != 1 or table.shape != shape or not table.size:
            raise ValueError(f"{key} is {table.dtype} {list(table.shape)}, not one number for each neuron")
        if not np.isfinite(table).all():
            raise ValueError(f"{key} is not finite")
    return {name: np.stack([arrays[f"layers.{layer}.{name}"] for layer in range(layers)]) for name in names}


def load_stability(path: Path) -> dict[str, Any]:
    """What `pruning.inspection.stability` found when the scores were made."""
    return dict(parse_json(load_arrays(path, "harness score")[1]["stability"]))
