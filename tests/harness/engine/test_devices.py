"""What is refused before an engine starts, and what the driver is asked, on devices that are only said to be there."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from harness.core.errors import MeasurementError, UsageError
from harness.engine import devices
from harness.engine.devices import check_divides, check_gpus, device_bytes
from harness.models import registry


def machine(monkeypatch: pytest.MonkeyPatch, gpus: int, capability: tuple[int, int] = (9, 0)) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)


@pytest.mark.parametrize(
    ("gpus", "parallel", "workers", "said"),
    [
        (0, 2, 1, "--tensor-parallel 2 needs 2 GPUs and none is here"),
        (1, 2, 1, "--tensor-parallel 2 needs 2 GPUs and 1 is here"),
        (2, 4, 1, "--tensor-parallel 4 needs 4 GPUs and 2 are here"),
        (4, 2, 3, "--tensor-parallel 2 with 3 --workers needs 6 GPUs and 4 are here"),
        (4, 1, 5, "--tensor-parallel 1 with 5 --workers needs 5 GPUs and 4 are here"),
    ],
)
def test_more_gpus_than_there_are_is_refused(
    gpus: int, parallel: int, workers: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(monkeypatch, gpus)
    with pytest.raises(UsageError, match=said):
        check_gpus(parallel, workers)


def test_as_many_as_there_are_will_do_and_on_a_cpu_any_number_of_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, 4)
    check_gpus(4)
    check_gpus(2, 2)
    machine(monkeypatch, 0)
    check_gpus(1, 8)


def test_a_gpu_for_which_the_wheels_have_no_code_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, 1, (7, 0))
    with pytest.raises(MeasurementError, match=r"compute capability 7\.0 and vLLM needs 7\.5"):
        check_gpus(1)
    machine(monkeypatch, 1, (7, 5))
    check_gpus(1)


SEVEN = registry.shape("qwen-7b", "math")  # 28 heads, 4 KV heads, width 18944


@pytest.mark.parametrize("parallel", [1, 2, 4])
def test_heads_and_widths_that_divide_pass(parallel: int) -> None:
    check_divides("qwen-7b", SEVEN, (18944, 15104), parallel)


@pytest.mark.parametrize(
    ("parallel", "widths", "what"),
    [
        (3, (18944,), "28 attention heads"),
        (8, (18944,), "28 attention heads"),
        (7, (18944,), "4 KV heads"),
        (14, (18944,), "4 KV heads"),
        (4, (18944, 130, 128), "FFN width 130"),
    ],
)
def test_what_vllm_could_not_divide_is_named(parallel: int, widths: tuple[int, ...], what: str) -> None:
    with pytest.raises(UsageError, match=f"over {parallel} GPUs cannot divide the {what} of qwen-7b"):
        check_divides("qwen-7b", SEVEN, widths, parallel)


def test_kv_heads_that_are_copied_pass() -> None:
    """28 GPUs hold 4 KV heads 7 times, one each."""
    check_divides("qwen-7b", SEVEN, (28 * 128,), 28)


class NVMLError(Exception):
    pass


def driver(
    monkeypatch: pytest.MonkeyPatch, mig: int | None = None, cards: tuple[int, ...] = (80 << 30,) * 4
) -> list[Any]:
    """vLLM's binding of the driver's library, and what it was asked for."""
    asked: list[Any] = []

    def mode(_gpu: Any) -> list[int]:
        if mig is None:
            raise NVMLError("not supported")
        return [mig, mig]

    found = SimpleNamespace(
        NVMLError=NVMLError,
        nvmlInit=lambda: None,
        nvmlShutdown=lambda: asked.append("closed"),
        nvmlDeviceGetCount=lambda: len(cards),
        nvmlDeviceGetHandleByIndex=lambda number: asked.append(number) or number,
        nvmlDeviceGetHandleByUUID=lambda name: asked.append(name) or name,
        nvmlDeviceGetMigMode=mode,
        nvmlDeviceGetMemoryInfo=lambda gpu: SimpleNamespace(total=cards[gpu if isinstance(gpu, int) else 0]),
    )
    package = ModuleType("vllm.third_party")
    package.pynvml = found  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm.third_party", package)
    properties = lambda _device: SimpleNamespace(total_memory=10 << 30)  # noqa: E731
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: asked.append("torch") or properties(device))
    return asked


@pytest.mark.parametrize(("visible", "gpu"), [(None, 0), ("3,4", 3), ("GPU-1f,GPU-2", "GPU-1f")])
def test_memory_is_asked_of_the_driver_which_needs_no_context(
    visible: str | None, gpu: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = driver(monkeypatch)
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert device_bytes() == 80 << 30
    assert asked[0] == gpu and asked[-1] == "closed" and "torch" not in asked


@pytest.mark.parametrize(
    ("order", "visible", "gib"), [(None, None, 10), ("FASTEST_FIRST", "1", 10), ("PCI_BUS_ID", "1", 40)]
)
def test_where_cards_differ_a_number_means_the_drivers_card_only_in_its_order(
    order: str | None, visible: str | None, gib: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A T4 in the first slot and an A100 in the second: torch's first is the A100."""
    driver(monkeypatch, cards=(16 << 30, 40 << 30))
    for name, value in (("CUDA_DEVICE_ORDER", order), ("CUDA_VISIBLE_DEVICES", visible)):
        monkeypatch.delenv(name, raising=False)
        if value:
            monkeypatch.setenv(name, value)
    assert device_bytes() == gib << 30, "torch says 10"


def test_a_part_of_a_gpu_is_asked_of_torch_as_the_driver_gives_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = driver(monkeypatch, mig=1)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert device_bytes() == 10 << 30 and asked == [0, "closed", "torch"]


@pytest.mark.parametrize(("bf16", "expected"), [(True, "bfloat16"), (False, "float16")])
def test_bf16_counts_only_without_emulation(bf16: bool, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a T4 torch says that it supports BF16, which it emulates."""
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or bf16)
    assert devices.half_dtype() == expected
