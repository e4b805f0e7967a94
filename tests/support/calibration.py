"""Calibration items of random tokens."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from harness.core.types.calibration import CalibrationItem, CalibrationSet


def items(lengths: list[int], seed: int) -> tuple[CalibrationItem, ...]:
    rng = np.random.default_rng(seed)
    made = []
    for i, length in enumerate([*lengths, *lengths]):
        start = int(rng.integers(0, length))
        stop = int(rng.integers(start + 1, length + 1))
        made.append(CalibrationItem(i < len(lengths), tuple(map(int, rng.integers(0, 1000, length))), start, stop))
    return tuple(made)


CALIBRATION = CalibrationSet(
    model="m", model_hash="w", target_source="t", distractor_sources=(), tokens="all", items=items([30, 12, 25], 2)
)
LARGER = replace(CALIBRATION, items=items([30, 12, 25] * 10, 3))  # teaches more than a re-fit on the other
