"""Free memory of this machine and of its GPUs, and what the GPUs compute in."""

from __future__ import annotations

import gc
import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class FreeMemory:
    """Bytes that are free now.

    Attributes:
        main: Main memory.
        gpus: Of each GPU that torch sees; empty on a CPU.
        bfloat16: Whether the first GPU computes in bfloat16 itself.
    """

    main: int
    gpus: tuple[int, ...] = ()
    bfloat16: bool = False


def free_memory() -> FreeMemory:
    """Free memory of this machine; without torch no GPU is seen."""
    if importlib.util.find_spec("torch") is None:  # a dry run does without
        return FreeMemory(available_bytes())
    import torch

    if not torch.cuda.is_available():
        return FreeMemory(available_bytes())
    gpus = tuple(_gpu_bytes(number) for number in range(torch.cuda.device_count()))
    return FreeMemory(available_bytes(), gpus, supports_bfloat16())


def device_bytes_free(device: Any) -> int:
    """Free memory of a torch device: of main memory or of one GPU."""
    return _gpu_bytes(device.index or 0) if device.type == "cuda" else available_bytes()


def _gpu_bytes(number: int) -> int:
    """What the driver calls free, and what torch has reserved and does not use."""
    import torch

    unused = torch.cuda.memory_reserved(number) - torch.cuda.memory_allocated(number)
    return int(torch.cuda.mem_get_info(number)[0]) + unused


def supports_bfloat16() -> bool:
    """Whether the first GPU computes in bfloat16 itself, without emulation."""
    import torch

    return bool(torch.cuda.is_bf16_supported(including_emulation=False))


def release_memory() -> None:
    """Frees memory of deleted objects and returns torch's cached GPU memory."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


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
