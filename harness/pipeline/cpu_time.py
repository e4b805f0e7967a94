"""How long work takes on this machine's CPU, by its floating-point operations."""

from __future__ import annotations

import importlib.util
import time

import numpy as np

from reports.figures import count_text

_DAYS = 48 * 3600.0  # seconds from which the number says no more than that


def on_gpu() -> bool:
    """Whether models would run on a GPU, whose time is not estimated."""
    if not importlib.util.find_spec("torch"):
        return False
    import torch

    return bool(torch.cuda.is_available())


def forward_seconds(parameters: int, tokens: int) -> float | None:
    """Of 2 operations per parameter and token; None where a GPU would be used."""
    return None if on_gpu() else 2 * parameters * tokens / flops_per_second()


def flops_per_second(size: int = 1024, repeats: int = 3) -> float:
    """FP32 matrix products on this CPU; the best of a few, as the machine may be busy."""
    a = np.ones((size, size), dtype=np.float32)
    best = float("inf")
    for _ in range(repeats):
        started = time.perf_counter()
        a @ a
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best


def time_text(seconds: float | None) -> str:
    """An upper bound as text."""
    if seconds is None:
        return "not estimated for a GPU"
    if seconds > _DAYS:
        return "days on this CPU; use a GPU"
    minutes = max(1, round(seconds / 60))
    length = count_text(minutes, "minute") if minutes < 120 else count_text(round(minutes / 60), "hour")
    return f"at most about {length} on this CPU"
