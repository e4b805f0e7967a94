"""What the engines run on: the CPU, or the GPUs that torch sees."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any

from harness.core.errors import MeasurementError, UsageError
from harness.core.memory import supports_bfloat16
from harness.core.types.pruning import ModelShape

_OLDEST = (
    7,
    5,
)  # compute capability of Turing; CUDA 13, for which the wheels of torch and vLLM are built, has no older


def device_name() -> str:
    """ "cuda" where torch sees a GPU, else "cpu"."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def gpus() -> int:
    """The number of GPUs; 0 on a CPU."""
    import torch

    return torch.cuda.device_count()


def device_bytes() -> int:
    """The memory of the first GPU, where possible by its driver: a CUDA context would stay on it, about half a
    gigabyte, as long as this process, beside the engines of others.
    """
    import torch

    return _driver_bytes() or int(torch.cuda.get_device_properties(0).total_memory)


def _driver_bytes() -> int | None:
    """None where the driver's library cannot say, for a part of a GPU, of which it gives the whole, and where cards
    differ and go by a number: CUDA counts them fastest first, the library by their slots.
    """
    try:
        from vllm.third_party import pynvml

        pynvml.nvmlInit()
    except Exception:  # no vLLM, or no driver: each has errors of its own
        return None
    try:
        first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()
        find = pynvml.nvmlDeviceGetHandleByIndex if first.isdigit() else pynvml.nvmlDeviceGetHandleByUUID
        gpu = find(int(first) if first.isdigit() else first)
        with suppress(pynvml.NVMLError):  # of a GPU that cannot be divided
            if pynvml.nvmlDeviceGetMigMode(gpu)[0]:
                return None
        if first.isdigit() and os.environ.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID" and not _alike(pynvml):
            return None
        return int(pynvml.nvmlDeviceGetMemoryInfo(gpu).total)
    except pynvml.NVMLError:
        return None
    finally:
        pynvml.nvmlShutdown()


def _alike(pynvml: Any) -> bool:
    """Whether all cards have the same memory."""
    handles = map(pynvml.nvmlDeviceGetHandleByIndex, range(pynvml.nvmlDeviceGetCount()))
    return len({pynvml.nvmlDeviceGetMemoryInfo(handle).total for handle in handles}) == 1


def half_dtype() -> str:
    """The 16-bit type of the first GPU: bfloat16, or float16 where it only emulates that."""
    return "bfloat16" if supports_bfloat16() else "float16"


def check_gpus(tensor_parallel: int, engines: int = 1) -> None:
    """Whether engines of `tensor_parallel` GPUs each can start here.

    Raises:
        UsageError: More GPUs are asked for than there are.
        MeasurementError: The GPU is too old for vLLM.
    """
    import torch

    count, wanted = gpus(), tensor_parallel * engines
    if wanted > count if count else tensor_parallel > 1:
        many = f" with {engines} --workers" if engines > 1 else ""
        raise UsageError(
            f"--tensor-parallel {tensor_parallel}{many} needs {wanted} GPUs and {count or 'none'} "
            f"{'is' if count < 2 else 'are'} here; give less"
        )
    if count and (found := torch.cuda.get_device_capability()) < _OLDEST:
        raise MeasurementError(
            f"the GPU has compute capability {found[0]}.{found[1]} and vLLM needs {_OLDEST[0]}.{_OLDEST[1]} (Turing) "
            "or later; use a newer one, or hide it (CUDA_VISIBLE_DEVICES=) to run on the CPU"
        )


def check_divides(name: str, shape: ModelShape, widths: tuple[int, ...], tensor_parallel: int) -> None:
    """Raises UsageError where vLLM cannot divide the model's heads or one of its FFN widths among the GPUs."""
    n, heads, cached = tensor_parallel, shape.num_attention_heads, shape.num_key_value_heads
    odd = sorted({width for width in widths if width % n})
    if heads % n:
        what = f"{heads} attention heads"
    elif cached % n and n % cached:
        what = f"{cached} KV heads"
    elif odd:
        what = f"FFN width {odd[0]}"
    else:
        return
    raise UsageError(
        f"tensor parallelism over {n} GPUs cannot divide the {what} of {name}; give another number of GPUs"
    )


def worker_environment(number: int, size: int) -> dict[str, str]:
    """Environment variables for the process of engine `number`, which has `size` GPUs to itself.

    On a CPU no engine is bound to cores: vLLM would bind every one of them to the same first cores.
    """
    if device_name() == "cpu":
        return {"VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    devices = visible if visible != [""] else [str(device) for device in range(gpus())]
    return {"CUDA_VISIBLE_DEVICES": ",".join(devices[number * size : (number + 1) * size])}
