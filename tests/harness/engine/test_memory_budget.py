"""How a GPU's memory is shared out, on a device that is only said to be there; by sums written out here."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from harness.config.settings import load_config
from harness.core.errors import MeasurementError
from harness.engine import devices, memory_budget
from harness.engine.devices import worker_environment
from harness.engine.memory_budget import (
    EngineSettings,
    cache_room,
    cached_bytes_per_token,
    engine_arguments,
    fit_together,
    kv_cache_bytes,
    kv_copies,
    memory_share,
    side_by_side,
    with_kv_cache,
    working_dtype,
)
from harness.engine.vllm_engine import engines_for
from harness.models import registry
from harness.sweeps import batch
from pruning.checkpoint import open_model
from pruning.families import FAMILIES
from tests.support.models import TINY_MATH

GIB = 1 << 30
DEVICE = 80 * GIB
ACTIVATIONS = 4 * GIB  # left for activations, graphs and context of each engine


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    on_a_gpu(monkeypatch)


def on_a_gpu(patch: pytest.MonkeyPatch, memory: int = DEVICE) -> None:
    patch.setattr(memory_budget, "device_name", lambda: "cuda")
    patch.setattr(memory_budget, "device_bytes", lambda: memory)


def model(weight_gib: float, dtype: str = "bfloat16", **config: str) -> Any:
    """All that these functions read of a model."""
    return SimpleNamespace(weight_bytes=int(weight_gib * GIB), config={"dtype": dtype, **config})


@given(st.integers(1, 10_000), st.integers(1, 5000), st.integers(1, 300))
def test_on_a_gpu_the_cache_holds_every_sequence_and_one_more(per_token: int, longest: int, sequences: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        on_a_gpu(patch)
        one = per_token * 128 * math.ceil(longest / 128)  # a sequence takes whole blocks
        assert kv_cache_bytes(per_token, longest, sequences) == one * (sequences + 1)


def test_on_a_cpu_the_cache_is_bounded_but_holds_one_sequence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_budget, "device_name", lambda: "cpu")
    assert kv_cache_bytes(1000, 512, 3) == 1000 * 512 * 4
    assert kv_cache_bytes(100_000, 512, 1000) == 2 * GIB
    assert kv_cache_bytes(1_000_000, 4096, 8) == 2 * 1_000_000 * 4096, "one sequence and vLLM's own block"


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize(("parallel", "expected"), [(1, (1.1 * 15 + 20 + 4) / 80), (2, ((1.1 * 15 + 20) / 2 + 4) / 80)])
def test_an_engine_asks_for_its_weights_its_cache_and_room_to_work(parallel: int, expected: float) -> None:
    settings = EngineSettings(kv_cache_bytes=20 * GIB, tensor_parallel=parallel)
    assert engine_arguments(model(15), settings)["gpu_memory_utilization"] == pytest.approx(expected)


@pytest.mark.usefixtures("gpu")
def test_no_engine_asks_for_all_of_a_device() -> None:
    assert engine_arguments(model(70), EngineSettings(kv_cache_bytes=20 * GIB))["gpu_memory_utilization"] == 0.95
    found = engine_arguments(model(15), EngineSettings(kv_cache_bytes=None))
    assert "gpu_memory_utilization" not in found and "kv_cache_memory_bytes" not in found, "vLLM takes what there is"


@pytest.mark.usefixtures("gpu")
def test_arguments_on_a_gpu_are_per_device() -> None:
    found = engine_arguments(model(15), EngineSettings(kv_cache_bytes=20 * GIB, tensor_parallel=4, max_num_seqs=7))
    assert found["kv_cache_memory_bytes"] == 5 * GIB and found["tensor_parallel_size"] == 4
    assert (found["dtype"], found["enforce_eager"], found["max_num_seqs"]) == ("auto", False, 7)
    assert found["max_num_batched_tokens"] == 8192, "else a server would take steps of other sizes"
    assert engine_arguments(model(15), EngineSettings(max_num_seqs=9000))["max_num_batched_tokens"] == 9000


def test_arguments_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_budget, "device_name", lambda: "cpu")
    found = engine_arguments(model(15), EngineSettings(kv_cache_bytes=GIB, max_model_len=99, prefix_caching=False))
    assert found == {
        "dtype": "float32",
        "enforce_eager": True,
        "max_model_len": 99,
        "kv_cache_memory_bytes": GIB,
        "max_num_batched_tokens": 4096,
        "max_num_seqs": 128,
        "enable_prefix_caching": False,
    }


@pytest.mark.parametrize("option", [*sorted(memory_budget.STEP_OPTIONS)])
def test_whole_prompts_are_for_a_cpu_and_leave_ones_own_steps_alone(
    option: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = EngineSettings(max_model_len=6000, whole_prompts=True)
    monkeypatch.setattr(memory_budget, "device_name", lambda: "cpu")
    found = engine_arguments(model(15), settings)
    assert (found["enable_chunked_prefill"], found["max_num_batched_tokens"]) == (False, 6000)
    own = engine_arguments(model(15), replace(settings, options={option: 256}))
    assert own.get("enable_chunked_prefill", 256) == 256 and own["max_num_batched_tokens"] in (256, 4096)


sizes = st.lists(st.floats(0.1, 12), min_size=1, max_size=5)
_ROUNDING = 4  # bytes: of weights, with a tenth more, of the cache and of the device


@given(sizes, st.lists(st.one_of(st.none(), st.integers(1, 200)), min_size=5, max_size=5))
def test_engines_side_by_side_fit_on_the_device_together(weights: list[float], caches: list[int | None]) -> None:
    """Weights with a tenth more, a cache of one size for all and room to work, within nine tenths of the device."""
    models = {str(i): model(gib) for i, gib in enumerate(weights)}
    asked = [cache and cache * GIB // 10 for cache, _ in zip(caches, weights, strict=False)]
    wanted = {name: EngineSettings(kv_cache_bytes=cache) for name, cache in zip(models, asked, strict=True)}
    most = int(0.9 * DEVICE / len(weights) - 1.1 * max(weights) * GIB) - ACTIVATIONS
    assume(abs(most) > _ROUNDING)  # the bytes of weights and of the device are rounded in another order here
    with pytest.MonkeyPatch.context() as patch:
        on_a_gpu(patch)
        assert fit_together(models) is (most > 0)
        if most <= 0:
            with pytest.raises(MeasurementError, match=r"(does|do) not fit on one GPU of 80"):
                side_by_side(models, wanted)
            return
        (cache,) = {settings.kv_cache_bytes for settings in side_by_side(models, wanted).values()}
    assert cache is not None and cache == pytest.approx(min([most, *(c for c in asked if c)]), abs=_ROUNDING)
    rounded = 0.9 * DEVICE + _ROUNDING * len(weights)
    assert sum(1.1 * gib * GIB + cache + ACTIVATIONS for gib in weights) <= rounded


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize(("parallel", "room_gib"), [(1, None), (2, 136 - 154), (4, 272 - 154)])
def test_a_model_that_is_larger_than_a_gpu_fits_on_several(parallel: int, room_gib: int | None) -> None:
    """140 GiB of weights with a tenth more, on GPUs of 80 GiB: 0.9 * 80 - 4 = 68 GiB of each are for them."""
    models = {"large": model(140)}
    wanted = {"large": EngineSettings(kv_cache_bytes=None, tensor_parallel=parallel)}
    fits = room_gib is not None and room_gib > 0
    assert fit_together(models, parallel) is fits
    if fits:
        assert side_by_side(models, wanted)["large"].kv_cache_bytes == pytest.approx((room_gib or 0) * GIB, abs=2)
    else:
        gpus = "one GPU" if parallel == 1 else f"{parallel} GPUs"
        with pytest.raises(MeasurementError, match=rf"^large does not fit on {gpus} of 80.* give --tensor-parallel"):
            side_by_side(models, wanted)


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize(
    ("stored", "dtype", "factor"),
    [
        ("bfloat16", "default", 1.0),
        ("float32", "default", 0.5),  # vLLM takes it down to 16 bits
        ("float32", "auto", 0.5),
        ("float32", "bfloat16", 0.5),
        ("bfloat16", "float32", 2.0),
        ("float16", "bfloat16", 1.0),
    ],
)
def test_memory_is_for_weights_as_the_engine_holds_them(stored: str, dtype: str, factor: float) -> None:
    """30 GiB of files on a GPU of 80 GiB."""
    large, settings = model(30, stored), EngineSettings(kv_cache_bytes=None, dtype=dtype)
    held = 1.1 * factor * 30
    (found,) = side_by_side({"large": large}, {"large": settings}).values()
    assert found.kv_cache_bytes == pytest.approx((0.9 * 80 - 4 - held) * GIB, abs=2)
    asked = engine_arguments(large, replace(settings, kv_cache_bytes=GIB))
    assert asked["gpu_memory_utilization"] == pytest.approx(min(0.95, (held + 1 + 4) / 80), abs=1e-6)
    assert fit_together({"a": large, "b": large}, 1, dtype) is (0.9 * 80 / 2 - 4 - held > 0)


@pytest.mark.usefixtures("gpu")
def test_several_that_do_not_fit_are_named() -> None:
    models = {"dense": model(40), "pruned": model(30)}
    with pytest.raises(MeasurementError, match=r"^dense, pruned do not fit on one GPU of 80.* together; measure fewer"):
        side_by_side(models, dict.fromkeys(models, EngineSettings()))


CARDS = (24, 48, 80, 141)


@pytest.mark.parametrize("gib", CARDS)
@pytest.mark.parametrize("parallel", [1, 2, 4, 8])
def test_engines_take_their_share_of_cards_of_any_size(gib: int, parallel: int) -> None:
    """Llama-3-70B's 131 GiB and its 10 % narrower export, on each card of a group: both engines' weights, caches and
    room to work fit within nine tenths, to the byte, or there is no room.
    """
    weights = [131 * GIB, 120 * GIB]
    room = cache_room(weights, parallel, gib * GIB)
    one = (1.1 * 131 * GIB + room) / parallel + ACTIVATIONS
    assert 2 * one == pytest.approx(0.9 * gib * GIB, abs=2 * parallel)
    assert (room > 0) is (parallel * (0.45 * gib - 4) > 1.1 * 131)
    if room > 0:
        assert 2 * memory_share(131 * GIB, room, parallel, gib * GIB) == pytest.approx(0.9, abs=1e-6)


@pytest.mark.parametrize("gib", CARDS)
def test_a_sweeps_worker_alone_asks_for_no_more_than_its_card_has(gib: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Qwen2.5-7B with 256 sequences of 4096 tokens wants 60 GB of cache beside 15 GB of weights."""
    import torch

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    on_a_gpu(monkeypatch, gib * GIB)
    seven = SimpleNamespace(
        weight_bytes=15_231_233_024, config={"dtype": "bfloat16"}, shape=registry.shape("qwen-7b", "math")
    )
    config = load_config(None, {"model": "qwen-7b", "threads": 1})
    run: Any = SimpleNamespace(config=config, model=seven, max_model_len=4096, eval_spec=None, path=Path("run"))
    found = engine_arguments(seven, batch.cell_context(run, 1).settings)  # type: ignore[arg-type]
    left = 0.9 * gib * GIB - 1.1 * 15_231_233_024 - ACTIVATIONS
    assert found["kv_cache_memory_bytes"] == pytest.approx(min(57_344 * 4096 * 257, left), abs=2)


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize(("parallel", "copies"), [(1, 1), (2, 1), (4, 1), (8, 2), (28, 7)])
def test_kv_heads_are_copied_where_there_are_more_gpus(
    parallel: int, copies: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Qwen2.5-7B has 4; every GPU holds at least one, and the engine is given memory for all of them."""
    import torch

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    seven: Any = SimpleNamespace(config={"dtype": "bfloat16"}, shape=registry.shape("qwen-7b", "math"))
    assert cached_bytes_per_token(seven, "auto", parallel) == 2 * 28 * max(4, parallel) * 128 * 2
    assert kv_copies(seven.shape.num_key_value_heads, parallel) == copies
    settings = EngineSettings(max_model_len=128, max_num_seqs=1, tensor_parallel=parallel)
    assert with_kv_cache(seven, settings).kv_cache_bytes == 2 * 128 * 2 * 28 * max(4, parallel) * 128 * 2


@pytest.mark.usefixtures("gpu")
def test_vllms_own_options_win_and_its_share_replaces_the_size_of_the_cache() -> None:
    options = {"max_num_batched_tokens": 2048, "enforce_eager": True, "kv_cache_memory_bytes": 7}
    found = engine_arguments(model(15), EngineSettings(options=options))
    assert {name: found[name] for name in options} == options
    two = EngineSettings(tensor_parallel=2, options={"kv_cache_memory_bytes": 20 * GIB})
    assert engine_arguments(model(15), two)["gpu_memory_utilization"] == pytest.approx((1.1 * 15 / 2 + 20 + 4) / 80)
    share = engine_arguments(model(15), EngineSettings(options={"gpu_memory_utilization": 0.4}))
    assert share["gpu_memory_utilization"] == 0.4 and "kv_cache_memory_bytes" not in share


def test_on_a_cpu_engines_keep_the_caches_they_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_budget, "device_name", lambda: "cpu")
    wanted = {"a": EngineSettings(kv_cache_bytes=1), "b": EngineSettings(kv_cache_bytes=2)}
    models = {"a": model(500), "b": model(500)}
    assert side_by_side(models, wanted) == wanted and fit_together(models)


@pytest.mark.parametrize(
    ("stored", "asked", "bf16", "expected"),
    [
        ("float32", "auto", True, "bfloat16"),
        ("float32", "auto", False, "float16"),
        ("bfloat16", "auto", True, "bfloat16"),
        ("bfloat16", "auto", False, "float16"),
        ("float16", "auto", True, "float16"),
        ("float16", "auto", False, "float16"),
        ("bfloat16", "float32", True, "float32"),
        ("float32", "float16", True, "float16"),
    ],
)
@pytest.mark.usefixtures("gpu")
def test_auto_is_the_stored_half_type_or_the_devices_own(
    stored: str, asked: str, bf16: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: bf16)
    assert working_dtype(model(1, stored), asked) == expected


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("bf16", [True, False])
def test_a_model_that_vllm_never_runs_in_float16_takes_bfloat16_or_float32(
    bf16: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from vllm.config.model import _FLOAT16_NOT_SUPPORTED_MODELS

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: bf16)
    of = {kind: working_dtype(model(1, "float16", model_type=kind), "auto") for kind in (*FAMILIES, "gemma3")}
    assert {kind for kind, found in of.items() if found != "float16"} == {*of} & {*_FLOAT16_NOT_SUPPORTED_MODELS}
    assert of["gemma2"] == ("bfloat16" if bf16 else "float32")


def test_on_a_cpu_the_default_is_fp32_and_auto_what_the_processor_computes_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_budget, "device_name", lambda: "cpu")
    for formats, auto in ((("avx2", "avx512_bf16"), "bfloat16"), (("avx2", "avx512f"), "float32")):
        monkeypatch.setattr("harness.core.processors.cpu_formats", lambda formats=formats: formats)
        assert working_dtype(model(1, "bfloat16"), "default") == "float32"
        assert working_dtype(model(1, "float32"), "auto") == auto
        assert engine_arguments(model(1), EngineSettings(dtype="auto"))["dtype"] == auto
    tiny = open_model(TINY_MATH)
    numbers = 2 * 4 * 2 * 32  # key and value, layers, KV heads, head_dim
    assert cached_bytes_per_token(tiny, "default") == 4 * numbers
    assert cached_bytes_per_token(tiny, "bfloat16") == 2 * numbers


@pytest.mark.usefixtures("gpu")
def test_models_that_are_timed_together_get_caches_of_one_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """The embedded model twice: each has the cache of 32 sequences, as there is room for far more."""
    import torch

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    tiny = open_model(TINY_MATH)
    settings = EngineSettings(max_model_len=500, max_num_seqs=32, threads=1)
    alone = with_kv_cache(tiny, settings)
    assert alone.kv_cache_bytes == 2 * 2 * 4 * 2 * 32 * 512 * 33
    found = engines_for({"a": tiny, "b": tiny}, settings)
    assert found.settings == {"a": alone, "b": alone} and found.running == {}
    memory = int(8.92 * GIB)
    on_a_gpu(monkeypatch, memory)
    (cache,) = {each.kv_cache_bytes for each in engines_for({"a": tiny, "b": tiny}, settings).settings.values()}
    assert cache == int(0.9 * memory / 2 - 1.1 * tiny.weight_bytes) - ACTIVATIONS < alone.kv_cache_bytes


@pytest.mark.parametrize(("visible", "numbers"), [("3,5,7,9", "3579"), (None, "0123")])
def test_every_engine_has_its_own_gpus(visible: str | None, numbers: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "gpus", lambda: 4)
    monkeypatch.setattr(devices, "device_name", lambda: "cuda")
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    found = [worker_environment(number, 2)["CUDA_VISIBLE_DEVICES"].split(",") for number in range(2)]
    assert list(itertools.chain(*found)) == list(numbers)
