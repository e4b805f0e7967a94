"""scores.safetensors: every metric per neuron, the moments they came from, and how stable the rankings are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from harness.core.errors import UsageError
from harness.core.files import load_arrays, save_arrays
from harness.core.hashing import file_hash
from harness.core.types.arrays import FloatArray
from harness.core.types.calibration import CalibrationSet, TokenScope
from harness.core.types.pruning import ActivationStats, NeuronScores
from pruning.inspection import stability


def save(
    stats: ActivationStats,
    tables: Mapping[str, FloatArray],
    calibration: CalibrationSet,
    general_weight: float,
    path: Path,
) -> None:
    """`layers.{i}.{metric}` float32 and the moments they came from; the same scores give the same bytes."""
    arrays = {
        f"layers.{layer}.{name}": values[layer]
        for name, values in {**tables, **_moment_tables(stats)}.items()
        for layer in range(len(values))
    }
    metadata = {
        "model": calibration.model,
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
    """Raises UsageError where the file holds no scores."""
    arrays, meta = load_arrays(path, "harness score")
    if "calibration_hash" not in meta:
        raise UsageError(f"{path} holds no scores; make them with `harness score`")
    layers = int(meta["layers"])
    names = sorted({key.split(".", 2)[2] for key in arrays if ".moments." not in key})
    tables = {name: np.stack([arrays[f"layers.{layer}.{name}"] for layer in range(layers)]) for name in names}
    tokens: TokenScope = meta["tokens"]  # type: ignore[assignment]
    return NeuronScores(
        scores=tables,
        model=meta["model"],
        model_hash=meta["model_hash"],
        tokens=tokens,
        calibration_hash=meta["calibration_hash"],
        file_hash=file_hash(path),
        general_weight=float(meta["general_weight"]),
        n_target=int(meta["n_target"]),
        n_distractor=int(meta["n_distractor"]),
        path=path,
    )


def load_stability(path: Path) -> dict[str, Any]:
    """What `pruning.inspection.stability` found when the scores were made."""
    return dict(json.loads(load_arrays(path, "harness score")[1]["stability"]))
