"""The NVIDIA driver here, and whether it is new enough. Standard library only: asked before anything is installed."""

from __future__ import annotations

import os
import shutil
import subprocess

TORCH_CUDA = 13  # the CUDA that PyPI's torch 2.13 is built for; `python -m scripts.check_cuda_install` compares it
LEAST_DRIVER = {12: 525, 13: 580}  # CUDA -> the oldest driver for Linux that runs all its releases


def driver_version() -> str | None:
    """What nvidia-smi says; None where it finds no GPU, and where CUDA_VISIBLE_DEVICES is empty, which hides all."""
    tool = shutil.which("nvidia-smi")
    if tool is None or os.environ.get("CUDA_VISIBLE_DEVICES", "all") == "":
        return None
    query = [tool, "--query-gpu=driver_version", "--format=csv,noheader"]
    asked = subprocess.run(query, capture_output=True, text=True)
    lines = asked.stdout.split()
    return lines[0] if asked.returncode == 0 and lines else None


def too_old(driver: str, cuda: int = TORCH_CUDA) -> str | None:
    """Why a driver such as 535.183.01 cannot run what is built for this major version of CUDA, and what to do; None
    where it can.
    """
    least, major = LEAST_DRIVER.get(cuda, max(LEAST_DRIVER.values())), driver.partition(".")[0]
    if not major.isdigit() or int(major) >= least:
        return None
    return (
        f"the NVIDIA driver {driver} is too old for CUDA {cuda}, for which torch is built: it needs {least} or newer; "
        "update the driver, or leave the GPU out with CUDA_VISIBLE_DEVICES= before the command"
    )
