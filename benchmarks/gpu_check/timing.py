"""Seconds of a piece of work, the device's own included, and the most memory that it took there."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from harness.engine.devices import device_name


@dataclass(frozen=True)
class Timed:
    """result: of the work. seconds: by the clock. peak_bytes: of torch's tensors on the GPU; None on a CPU."""

    result: Any
    seconds: float
    peak_bytes: int | None


def timed(work: Callable[[], Any]) -> Timed:
    """Runs `work` once; waits for the GPU before and after."""
    import torch

    on_gpu = device_name() == "cuda"
    if on_gpu:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    result = work()
    if on_gpu:
        torch.cuda.synchronize()
    seconds = time.perf_counter() - started
    return Timed(result, seconds, torch.cuda.max_memory_allocated() if on_gpu else None)
