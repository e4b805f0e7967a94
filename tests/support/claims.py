"""Outcomes of a sweep that are made for a verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from harness.core.types.run import Variant
from harness.sweeps.claims import judge
from harness.sweeps.curves import GridPoint, Outcomes
from harness.sweeps.evidence import Evidence
from tests.support.runs import make_variant

N = 400
RATIOS = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35)
Levels = Mapping[str, Mapping[float, float | Sequence[float]]]  # arm -> ratio -> accuracy, of every seed


def right(level: float, seed: int = 0) -> list[float]:
    """A share `level` of N items right, always the first ones, but for a few that a seed shifts."""
    return [float((i + 7 * seed) % N < round(level * N)) for i in range(N)]


def variant(name: str, ratio: float) -> Variant:
    return make_variant(name, ratio)


def evidence(levels: Levels, others: Levels | None = None, dense: float = 0.9, **more: Any) -> Evidence:
    places, table = [], {("dense", 0.0): {"math": np.array([right(dense)]), "facts": np.array([right(0.95)])}}
    for arm, along in levels.items():
        for ratio, level in along.items():
            seeds = [level] if isinstance(level, float) else level
            places.append(
                GridPoint(arm, ratio, tuple(variant(f"{arm}-{ratio:g}-{i}", ratio) for i in range(len(seeds))))
            )
            other = (others or {}).get(arm, {}).get(ratio, 0.95)
            table[arm, ratio] = {
                "math": np.array([right(value, i) for i, value in enumerate(seeds)]),
                "facts": np.array([right(other) for _ in seeds]),  # type: ignore[arg-type]
            }
    outcomes = Outcomes(
        run=Path(),
        metrics={"math": "exact_match", "facts": "exact_match"},
        dense=GridPoint("dense", 0.0, (variant("dense", 0.0),)),
        places=tuple(places),
        right=table,
    )
    return replace(
        Evidence(
            outcomes=outcomes, speed_ratios=(), recoveries=(), sizes={}, chance=0.0, collapse_share=0.1, margin=0.05
        ),
        **more,
    )


def along(value: float | Sequence[float]) -> dict[float, float | Sequence[float]]:
    return dict.fromkeys(RATIOS, value)


def claim(number: int, found: Evidence) -> Any:
    return judge(found)[number - 1]


def masks(level: float, count: int = 19) -> list[float]:
    """Accuracies of masks, two points to either side."""
    return [level + 0.02 * ((i % 3) - 1) for i in range(count)]
