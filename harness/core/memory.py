"""Free memory of this machine or its GPUs, and the dtype in which a model can be scored here."""

from __future__ import annotations

import os
from pathlib import Path

from harness.core.errors import MeasurementError
from harness.core.text import size_text

_MOMENTS_SHARE = 0.5  # of what is free beside the model; activations take from the rest
_WEIGHTS_SHARE = 0.8
_CGROUP = Path("/sys/fs/cgroup")


def available_bytes() -> int:
    """Main memory that is available: the kernel's estimate, which counts page cache, capped by this container's
    limit.
    """
    lines = Path("/proc/meminfo").read_text().splitlines()
    kernel = next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")), None)
    free = kernel if kernel is not None else os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    return min(free, _container_bytes(free))


def _container_bytes(otherwise: int) -> int:
    """memory.max - memory.current of the control group (version 2), plus page cache that can be dropped."""
    try:
        limit, used = (_CGROUP / "memory.max").read_text().strip(), int((_CGROUP / "memory.current").read_text())
        statistics = dict(line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())
        return otherwise if limit == "max" else max(0, int(limit) - used + int(statistics.get("inactive_file", 0)))
    except (OSError, ValueError):
        return otherwise


def scoring_dtype(parameters: int) -> str:
    """BF16 on CUDA; on a CPU FP32 if the weights fit, else BF16. Raises MeasurementError if not even that fits."""
    import torch

    if torch.cuda.is_available():
        return "bfloat16"
    free = _WEIGHTS_SHARE * available_bytes()
    if 2 * parameters > free:
        raise MeasurementError(
            f"scoring needs {size_text(2 * parameters)} for the weights and {size_text(int(free))} are available; "
            "free some memory, or use a GPU or a smaller model"
        )
    return "float32" if 4 * parameters <= free else "bfloat16"


def loading_bytes(parameters: int) -> int:
    """Bytes of the weights while they are scored; those of BF16 where not even that fits."""
    try:
        return parameters * (4 if scoring_dtype(parameters) == "float32" else 2)
    except MeasurementError:
        return parameters * 2


def moments_memory(model_bytes: int = 0) -> float:
    """Bytes that second moments may take at once, beside a model of `model_bytes` that is yet to be loaded.

    Half of what is free: on CUDA, the free memory of the fullest GPU times the number of GPUs.
    """
    import torch

    if torch.cuda.is_available():
        count = torch.cuda.device_count()
        free = count * min(torch.cuda.mem_get_info(device)[0] for device in range(count))
    else:
        free = available_bytes()
    return _MOMENTS_SHARE * max(0, free - model_bytes)
