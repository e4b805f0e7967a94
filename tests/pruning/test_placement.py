"""Where a model is scored, by its size and the free memory: arithmetic on devices that are not here."""

from __future__ import annotations

from typing import Any

import pytest

from harness.core import memory
from harness.core.errors import MeasurementError
from harness.core.memory import FreeMemory
from harness.models.registry import shape
from pruning.families import shape_of
from pruning.placement import ScoringNeeds, choose, gpu_dtype

GIB = 1 << 30
LLAMA_70B = shape_of(
    {
        "model_type": "llama",
        "hidden_size": 8192,
        "num_hidden_layers": 80,
        "intermediate_size": 28672,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
        "torch_dtype": "bfloat16",
    }
)
SHAPES = {"1.5b": shape("qwen-1.5b", "math"), "7b": shape("qwen-7b", "math"), "70b": LLAMA_70B}
NEEDS = ScoringNeeds(160, second_moments=True)


def on_gpus(*sizes: float, bfloat16: bool = True) -> FreeMemory:
    """GPUs with a CUDA context of half a gigabyte."""
    return FreeMemory(256 * GIB, tuple(int(size * 1e9) - GIB // 2 for size in sizes), bfloat16)


@pytest.mark.parametrize(
    ("model", "gpus", "source"),
    [
        ("1.5b", (24,), "whole"),
        ("7b", (16,), "layers"),
        ("7b", (24,), "whole"),
        ("7b", (16, 16), "gpus"),
        ("7b", (48,), "whole"),
        ("7b", (80,), "whole"),
        ("70b", (24,), "layers"),
        ("70b", (48,), "layers"),
        ("70b", (80,), "layers"),
        ("70b", (80, 80), "layers"),
        ("70b", (80, 80, 80), "gpus"),
        ("70b", (141,), "layers"),
        ("70b", (141, 141), "gpus"),
    ],
)
def test_the_source_for_a_model_and_its_gpus(model: str, gpus: tuple[int, ...], source: str) -> None:
    found = choose(SHAPES[model], NEEDS, on_gpus(*gpus))
    assert (found.source, found.dtype, found.gpus) == (source, "bfloat16", len(gpus) if source == "gpus" else 1)
    if source == "layers":  # the largest part of it is a layer, not the model
        assert found.weight_bytes < 1.1 * 2 * SHAPES[model].parameters / SHAPES[model].num_hidden_layers


def test_a_refit_needs_room_beside_the_whole_model() -> None:
    """Weights of 15.2 GB, and of a layer H and its part in FP32, the part and its factor in FP64: 8.6 GB."""
    needs = ScoringNeeds(160, refit=True)
    assert [choose(SHAPES["7b"], needs, on_gpus(size)).source for size in (24, 32)] == ["layers", "whole"]
    least = next(size for size in range(16, 40) if choose(SHAPES["7b"], NEEDS, on_gpus(size)).source == "whole")
    more = next(size for size in range(16, 40) if choose(SHAPES["7b"], needs, on_gpus(size)).source == "whole")
    assert more - least == pytest.approx((24 - 4) * 18944**2 / 0.9e9, abs=1)


def test_what_is_free_decides_not_what_the_card_has() -> None:
    assert choose(SHAPES["7b"], NEEDS, on_gpus(80)).source == "whole"
    assert choose(SHAPES["7b"], NEEDS, on_gpus(80 - 65)).source == "layers"
    assert choose(SHAPES["1.5b"], NEEDS, on_gpus(10, 80)).device == "cuda:1"
    with pytest.raises(MeasurementError, match=r"one layer needs about .* of the GPU are free; free some"):
        choose(SHAPES["7b"], NEEDS, on_gpus(2))


@pytest.mark.parametrize(
    ("model", "free", "source", "dtype"),
    [
        ("1.5b", 15, "whole", "float32"),
        ("7b", 62, "whole", "float32"),
        ("7b", 24, "layers", "float32"),
        ("7b", 8, "layers", "float32"),
        ("70b", 16, "layers", "float32"),
    ],
)
def test_a_cpu_computes_in_fp32_wherever_a_layer_fits(model: str, free: int, source: str, dtype: str) -> None:
    found = choose(SHAPES[model], ScoringNeeds(16), FreeMemory(free * GIB))
    assert (found.source, found.device, found.dtype, found.gpus) == (source, "cpu", dtype, 0)


def test_gradients_need_the_whole_model() -> None:
    """7B in BF16 where FP32 does not fit, and one line where neither does."""
    gradients = ScoringNeeds(16, gradients=True)
    assert choose(SHAPES["7b"], gradients, FreeMemory(24 * GIB)).dtype == "bfloat16"
    assert choose(SHAPES["7b"], gradients, FreeMemory(24 * GIB)).source == "whole"
    for free in (FreeMemory(8 * GIB), on_gpus(16)):
        with pytest.raises(MeasurementError, match=r"taylor needs gradients .* choose another --metric"):
            choose(SHAPES["7b"], gradients, free)


def test_the_number_type_is_one_that_the_gpu_has() -> None:
    """A T4 emulates BF16; FP16 weights would lose three bits in it."""
    assert [gpu_dtype(stored, True) for stored in ("bfloat16", "float16", "float32")] == [
        "bfloat16",
        "float16",
        "bfloat16",
    ]
    assert [gpu_dtype(stored, False) for stored in ("bfloat16", "float16", "float32")] == [
        "float32",
        "float16",
        "float32",
    ]


def test_the_text_says_where_and_how_much() -> None:
    texts = [choose(SHAPES["70b"], NEEDS, on_gpus(*gpus)).text for gpus in ((80,), (141, 141))]
    assert texts == [
        "layer by layer from the shards: 1.6 GiB in bfloat16 at a time",
        "over 2 GPUs: 131.4 GiB in bfloat16",
    ]
    assert choose(SHAPES["1.5b"], NEEDS, on_gpus(24)).text == "whole model in memory: 2.9 GiB in bfloat16"


def test_free_memory_of_patched_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that torch has reserved and does not use is free; BF16 is asked for without its emulation."""
    import torch

    asked: dict[str, Any] = {}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda number: ((10 + number) * GIB, 24 * GIB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 3 * GIB)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: GIB)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **given: asked.update(given) or False)
    found = memory.free_memory()
    assert found.gpus == (12 * GIB, 13 * GIB) and not found.bfloat16 and asked == {"including_emulation": False}
