"""The settings of an engine, and how the device's memory is divided among weights and KV caches. Starts nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from harness.core.dtypes import BY_NAME
from harness.core.errors import MeasurementError
from harness.core.processors import cpu_dtype
from harness.core.text import size_text
from harness.engine.devices import device_bytes, device_name, half_dtype
from pruning.checkpoint import ModelFolder
from pruning.families import stored_dtype

_LARGEST_BLOCK = 128  # tokens; vLLM's block on a CPU, those on CUDA are smaller
_LARGEST_CPU_CACHE = 2 << 30
BATCHED_TOKENS = {"cpu": 4096, "cuda": 8192}  # of a step; vLLM's own default differs between an engine and a server
STEP_OPTIONS = frozenset({"max_num_batched_tokens", "max_num_seqs", "max_model_len", "enable_chunked_prefill"})
_ACTIVATION_BYTES = 4 << 30  # on CUDA: activations, graphs and context, an estimate
_FILE_FACTOR = 1.1  # loaded weights, by their own size: padding and what vLLM keeps beside them
HALF_BYTES = 2  # of a number in 16 bits
NOTHING_TIMED = "the device has no room for two engines, so nothing is timed; use more GPUs with --tensor-parallel"
_NO_FLOAT16 = ("gemma2", "gemma3", "gemma3_text")  # vllm/config/model.py: _FLOAT16_NOT_SUPPORTED_MODELS
_LARGEST_SHARE = 0.95  # of the device, for an engine alone
_SHARED = 0.9  # of the device, for engines side by side


@dataclass(frozen=True)
class EngineSettings:
    """How an engine is started.

    dtype: a torch name; "auto", the checkpoint's own on CUDA and bfloat16 on a CPU that computes in it; or "default",
    auto on CUDA and float32 on a CPU, where bfloat16 may be emulated and differs in near-ties. max_model_len: tokens of
    a prompt and its answer. max_num_seqs: requests at a time. threads: OpenMP threads, None for all cores.
    prefix_caching: keep keys and values of shared prompt beginnings. tensor_parallel: GPUs that share the model.
    kv_cache_bytes: over all GPUs; None: vLLM takes what it finds, which on CUDA is nearly the whole device.
    whole_prompts: on a CPU, read every prompt in one step; there vLLM 0.32 ends as a whole ("CPU Generator does not use
    offset") when it reads a prompt in parts whose request has a seed. options: vLLM's own, which win
    (harness/config/engine_options.py).
    """

    dtype: str = "default"
    max_model_len: int = 2048
    max_num_seqs: int = 128
    threads: int | None = None
    prefix_caching: bool = True
    tensor_parallel: int = 1
    kv_cache_bytes: int | None = 1 << 30
    whole_prompts: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)


def with_kv_cache(model: ModelFolder, settings: EngineSettings) -> EngineSettings:
    """The settings with a cache for all sequences at full length, as far as `kv_cache_bytes` allows."""
    per_token = cached_bytes_per_token(model, settings.dtype, settings.tensor_parallel)
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


def cached_bytes_per_token(model: ModelFolder, dtype: str, tensor_parallel: int = 1) -> int:
    """Bytes of keys and values per token over all GPUs, by formula, in the engine's number type."""
    shape = model.shape
    numbers = shape.kv_bytes_per_token // shape.dtype_bytes * kv_copies(shape.num_key_value_heads, tensor_parallel)
    return numbers * BY_NAME[working_dtype(model, dtype)].item_bytes


def kv_copies(heads: int, tensor_parallel: int) -> int:
    """How many GPUs hold the same keys and values: vLLM copies a KV head where there are more GPUs than heads."""
    return max(1, tensor_parallel // heads)


def working_dtype(model: ModelFolder, dtype: str) -> str:
    """The torch name of the number type in which an engine computes that is started with `dtype`.

    On CUDA, vLLM's "auto" keeps half precision where the GPU has it, and takes float32 checkpoints down to it. Gemma 2
    and 3 it never runs in float16, in which they overflow.
    """
    name = _requested_dtype(dtype)
    if name != "auto":
        return name
    stored, own = stored_dtype(model.config).name, half_dtype()
    if model.config.get("model_type") in _NO_FLOAT16:
        return own if own == "bfloat16" else "float32"
    return stored if stored in (own, "float16") else own


def loaded_bytes(model: ModelFolder, dtype: str) -> int:
    """Of the weights in an engine that is started with `dtype`, which may differ from that of the files."""
    return model.weight_bytes // stored_dtype(model.config).item_bytes * BY_NAME[working_dtype(model, dtype)].item_bytes


def weight_item_bytes(dtype: str) -> int:
    """Of a weight in an engine that is started with `dtype`: vLLM's "auto" takes float32 down to 16 bits on a GPU."""
    name = _requested_dtype(dtype)
    return HALF_BYTES if name == "auto" else BY_NAME[name].item_bytes


def _requested_dtype(dtype: str) -> str:
    return cpu_dtype(dtype) if device_name() == "cpu" else dtype.replace("default", "auto")


def engine_arguments(model: ModelFolder, settings: EngineSettings) -> dict[str, Any]:
    """Arguments by vLLM's names, which are the flags of `vllm serve` as well; what vLLM decides is left out."""
    parallel, cache = settings.tensor_parallel, settings.kv_cache_bytes
    told = settings.options.get("kv_cache_memory_bytes")
    if "gpu_memory_utilization" in settings.options:
        cache = told  # vLLM does not look at that share where it is told the size of the cache
    each = told if told or cache is None else cache // parallel  # of one device
    share = None
    if device_name() == "cuda" and each:  # so that another can start beside it
        share = memory_share(loaded_bytes(model, settings.dtype), each * parallel, parallel, device_bytes())
    whole = settings.whole_prompts and device_name() == "cpu" and STEP_OPTIONS.isdisjoint(settings.options)
    step = max(BATCHED_TOKENS[device_name()], settings.max_num_seqs, settings.max_model_len if whole else 0)
    arguments = {
        "dtype": _requested_dtype(settings.dtype),
        "enforce_eager": device_name() == "cpu",
        "max_model_len": settings.max_model_len,
        "kv_cache_memory_bytes": each,
        "max_num_batched_tokens": step,
        "enable_chunked_prefill": False if whole else None,
        "max_num_seqs": settings.max_num_seqs,
        "gpu_memory_utilization": share,
        "enable_prefix_caching": settings.prefix_caching,
        "tensor_parallel_size": parallel if parallel > 1 else None,
    }
    return {name: value for name, value in {**arguments, **settings.options}.items() if value is not None}


def memory_share(weight_bytes: int, cache_bytes: int, tensor_parallel: int, gpu_bytes: int) -> float:
    """The share of each GPU that an engine takes.

    Args:
        weight_bytes: Of the weights, as the engine holds them.
        cache_bytes: Of the KV cache, over all GPUs.
        tensor_parallel: GPUs that share both.
        gpu_bytes: Memory of one GPU.
    """
    divided = _FILE_FACTOR * weight_bytes + cache_bytes
    return min(_LARGEST_SHARE, (divided / tensor_parallel + _ACTIVATION_BYTES) / gpu_bytes)


def side_by_side(models: Mapping[str, ModelFolder], wanted: Mapping[str, EngineSettings]) -> dict[str, EngineSettings]:
    """On CUDA, caches of one size for all, so small that all engines fit on the same GPUs together.

    All have the same `tensor_parallel`. Raises MeasurementError where not even the weights fit.
    """
    if device_name() == "cpu":
        return dict(wanted)
    parallel = next(iter(wanted.values())).tensor_parallel
    weights = [loaded_bytes(model, wanted[name].dtype) for name, model in models.items()]
    room = cache_room(weights, parallel, device_bytes())
    least = min(room, *(settings.kv_cache_bytes or room for settings in wanted.values()))
    if least <= 0:
        raise MeasurementError(_no_room(list(models), parallel, device_bytes()))
    return {name: replace(settings, kv_cache_bytes=least) for name, settings in wanted.items()}


def _no_room(names: Sequence[str], tensor_parallel: int, gpu_bytes: int) -> str:
    where = f"{f'{tensor_parallel} GPUs' if tensor_parallel > 1 else 'one GPU'} of {size_text(gpu_bytes)}"
    if len(names) == 1:
        return f"{names[0]} does not fit on {where}; give --tensor-parallel for more GPUs, or use larger ones"
    return (
        f"{', '.join(names)} do not fit on {where} together; measure fewer at a time, or give --tensor-parallel for "
        "more GPUs"
    )


def check_fits(name: str, weight_bytes: int, tensor_parallel: int) -> None:
    """Raises MeasurementError where an engine on this model alone has no room for a cache; on a CPU vLLM says so."""
    if device_name() == "cuda" and cache_room([weight_bytes], tensor_parallel, device_bytes()) <= 0:
        raise MeasurementError(_no_room([name], tensor_parallel, device_bytes()))


def fit_together(models: Mapping[str, ModelFolder], tensor_parallel: int = 1, dtype: str = "default") -> bool:
    """Whether engines on all models have room for weights and some cache; on a CPU this is not checked."""
    return have_room([loaded_bytes(model, dtype) for model in models.values()], tensor_parallel)


def have_room(weight_bytes: Sequence[int], tensor_parallel: int) -> bool:
    """`fit_together` of weights whose size alone is known."""
    return device_name() == "cpu" or cache_room(weight_bytes, tensor_parallel, device_bytes()) > 0


def cache_room(weight_bytes: Sequence[int], tensor_parallel: int, gpu_bytes: int) -> int:
    """Bytes for the KV cache of each of several engines that share the same GPUs, over all GPUs of an engine.

    Every engine gets an equal part of every GPU: 0.9 of its memory / engines - 4 GiB - 1.1 * weights / GPUs.

    Args:
        weight_bytes: Of the weights of each engine's model, as the engine holds them.
        tensor_parallel: GPUs of an engine.
        gpu_bytes: Memory of one GPU.

    Returns:
        At most 0 where the weights and activations of an engine take all.
    """
    share = tensor_parallel * (_SHARED * gpu_bytes / len(weight_bytes) - _ACTIVATION_BYTES)
    return int(share - _FILE_FACTOR * max(weight_bytes))
