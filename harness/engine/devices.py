"""What the engines run on: the CPU, or the GPUs that torch sees."""

from __future__ import annotations

import gc
import os


def device_name() -> str:
    """ "cuda" where torch sees a GPU, else "cpu"."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def gpus() -> int:
    """The number of GPUs; 0 on a CPU."""
    import torch

    return torch.cuda.device_count()


def device_bytes() -> int:
    """The memory of the first GPU."""
    import torch

    return int(torch.cuda.get_device_properties(0).total_memory)


def supports_bfloat16() -> bool:
    """Whether the first GPU computes in bfloat16 itself, without emulation."""
    import torch

    return bool(torch.cuda.is_bf16_supported(including_emulation=False))


def release_device() -> None:
    """Frees the GPU memory that torch caches, before another process starts an engine on the same GPU."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def worker_environment(number: int, size: int) -> dict[str, str]:
    """Environment variables for the process of engine `number`, which has `size` GPUs to itself.

    On a CPU no engine is bound to cores: vLLM would bind every one of them to the same first cores.
    """
    if device_name() == "cpu":
        return {"VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    devices = visible if visible != [""] else [str(device) for device in range(gpus())]
    return {"CUDA_VISIBLE_DEVICES": ",".join(devices[number * size : (number + 1) * size])}
