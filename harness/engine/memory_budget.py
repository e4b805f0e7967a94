"""The settings of an engine, and how the device's memory is divided among weights and KV caches. Starts nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from harness.core.dtypes import BY_NAME
from harness.core.errors import MeasurementError
from harness.engine.devices import device_bytes, device_name, supports_bfloat16
from pruning.checkpoint import ModelFolder
from pruning.families import stored_dtype

_LARGEST_BLOCK = 128  # tokens; vLLM's block on a CPU, those on CUDA are smaller
_LARGEST_CPU_CACHE = 2 << 30
_ACTIVATION_BYTES = 4 << 30  # on CUDA: activations, graphs and context, an estimate
_FILE_FACTOR = 1.1  # loaded weights, by the size of their files: padding and what vLLM keeps beside them
_LARGEST_SHARE = 0.95  # of the device, for an engine alone
_SHARED = 0.9  # of the device, for engines side by side


@dataclass(frozen=True)
class EngineSettings:
    """How an engine is started.

    dtype: a torch name, or "auto": float32 on a CPU, where bfloat16 is emulated or differs in near-ties, and the
    checkpoint's own on CUDA. max_model_len: tokens of a prompt and its answer. max_num_seqs: requests at a time.
    threads: OpenMP threads, None for all cores. prefix_caching: keep keys and values of shared prompt beginnings.
    tensor_parallel: GPUs that share the model. kv_cache_bytes: over all GPUs; None: vLLM takes what it finds, which on
    CUDA is nearly the whole device.
    """

    dtype: str = "auto"
    max_model_len: int = 2048
    max_num_seqs: int = 128
    threads: int | None = None
    prefix_caching: bool = True
    tensor_parallel: int = 1
    kv_cache_bytes: int | None = 1 << 30


def with_kv_cache(model: ModelFolder, settings: EngineSettings) -> EngineSettings:
    """The settings with a cache for all sequences at full length, as far as `kv_cache_bytes` allows."""
    per_token = cached_bytes_per_token(model, settings.dtype)
    return replace(settings, kv_cache_bytes=kv_cache_bytes(per_token, settings.max_model_len, settings.max_num_seqs))


def kv_cache_bytes(bytes_per_token: int, max_model_len: int, sequences: int) -> int:
    """Bytes for this many sequences of full length, and for one more: vLLM keeps a block for itself, without which the
    last sequence would wait for the others to end.

    On a CPU, where the cache competes with everything else, at most 2 GiB, but always enough for one sequence.
    """
    one = bytes_per_token * whole_blocks(max_model_len)
    need = one * (sequences + 1)
    return need if device_name() == "cuda" else max(2 * one, min(need, _LARGEST_CPU_CACHE))


def whole_blocks(tokens: int) -> int:
    """Tokens rounded up to whole blocks of the cache, which is what a sequence takes."""
    return -(-tokens // _LARGEST_BLOCK) * _LARGEST_BLOCK


def cached_bytes_per_token(model: ModelFolder, dtype: str) -> int:
    """Bytes of keys and values per token, by formula, in the engine's number type."""
    shape = model.shape
    return shape.kv_bytes_per_token // shape.dtype_bytes * BY_NAME[working_dtype(model, dtype)].item_bytes


def working_dtype(model: ModelFolder, dtype: str) -> str:
    """The torch name of the number type in which an engine computes that is started with `dtype`.

    On CUDA, vLLM's "auto" keeps half precision where the GPU has it, and takes float32 checkpoints down to it.
    """
    name = _requested_dtype(dtype)
    if name != "auto":
        return name
    stored = stored_dtype(model.config).name
    halves = ("bfloat16", "float16") if supports_bfloat16() else ("float16",)
    return stored if stored in halves else halves[0]


def _requested_dtype(dtype: str) -> str:
    return "float32" if dtype == "auto" and device_name() == "cpu" else dtype


def engine_arguments(model: ModelFolder, settings: EngineSettings) -> dict[str, Any]:
    """Arguments by vLLM's names, which are the flags of `vllm serve` as well; what vLLM decides is left out."""
    parallel, cache = settings.tensor_parallel, settings.kv_cache_bytes
    arguments = {
        "dtype": _requested_dtype(settings.dtype),
        "enforce_eager": device_name() == "cpu",
        "max_model_len": settings.max_model_len,
        "kv_cache_memory_bytes": cache and cache // parallel,  # of one device
        "max_num_seqs": settings.max_num_seqs,
        "gpu_memory_utilization": _memory_share(model, settings),
        "enable_prefix_caching": settings.prefix_caching,
        "tensor_parallel_size": parallel if parallel > 1 else None,
    }
    return {name: value for name, value in arguments.items() if value is not None}


def _memory_share(model: ModelFolder, settings: EngineSettings) -> float | None:
    """The share of each GPU that an engine with a cache of known size takes, so that another can start beside it."""
    if device_name() == "cpu" or settings.kv_cache_bytes is None:
        return None
    divided = _FILE_FACTOR * model.weight_bytes + settings.kv_cache_bytes
    return min(_LARGEST_SHARE, (divided / settings.tensor_parallel + _ACTIVATION_BYTES) / device_bytes())


def side_by_side(models: Mapping[str, ModelFolder], wanted: Mapping[str, EngineSettings]) -> dict[str, EngineSettings]:
    """On CUDA, caches of one size for all, so small that all engines fit on the same GPUs together.

    All have the same `tensor_parallel`. Raises MeasurementError where not even the weights fit.
    """
    if device_name() == "cpu":
        return dict(wanted)
    room = _room(models, next(iter(wanted.values())).tensor_parallel)
    least = min(room, *(settings.kv_cache_bytes or room for settings in wanted.values()))
    if least <= 0:
        raise MeasurementError(f"{', '.join(models)} do not fit on the device together; measure fewer at a time")
    return {name: replace(settings, kv_cache_bytes=least) for name, settings in wanted.items()}


def fit_together(models: Mapping[str, ModelFolder], tensor_parallel: int = 1) -> bool:
    """Whether engines on all models have room for weights and some cache; on a CPU this is not checked."""
    return device_name() == "cpu" or _room(models, tensor_parallel) > 0


def _room(models: Mapping[str, ModelFolder], tensor_parallel: int) -> int:
    """Bytes for the cache of each, over its `tensor_parallel` GPUs; at most 0 where weights and activations take all.

    Every engine gets an equal part of every GPU: 0.9 of its memory / engines - 4 GiB - 1.1 * weights / GPUs.
    """
    share = tensor_parallel * (_SHARED * device_bytes() / len(models) - _ACTIVATION_BYTES)
    return min(int(share - _FILE_FACTOR * model.weight_bytes) for model in models.values())
