"""The life of a vLLM engine: start, generate, measure, stop. In-process, so that start-up is one import and one
load.
"""

from __future__ import annotations

import gc
import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

from harness.core.dtypes import BY_NAME
from harness.core.errors import MeasurementError, first_line
from harness.core.progress import progress_bar
from harness.engine.library_settings import library_settings, torch_functions
from harness.engine.weight_swap_worker import WORKER
from pruning.checkpoint import ModelFolder
from pruning.families import stored_dtype

_LARGEST_BLOCK = 128  # tokens; vLLM's on a CPU, smaller on CUDA
_REQUESTS = itertools.count()
_LARGEST_CPU_CACHE = 2 << 30
_ACTIVATION_BYTES = 4 << 30  # on CUDA: activations, graphs and context, about


@dataclass(frozen=True)
class EngineConfig:
    """`dtype` "auto" is FP32 on a CPU, where BF16 is emulated or differs in near-ties, and the checkpoint's own on
    CUDA.

    kv_cache_bytes None: vLLM takes what it finds, which on CUDA is nearly the whole device. prefix_caching: of what
    prompts begin with."""

    dtype: str = "auto"
    max_model_len: int = 2048
    kv_cache_bytes: int | None = 1 << 30
    max_num_seqs: int = 128
    threads: int | None = None
    prefix_caching: bool = True
    tensor_parallel: int = 1


def device_name() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def gpus() -> int:
    import torch

    return torch.cuda.device_count()


def release_device() -> None:
    """Gives back what torch keeps of the GPU's memory for later, before another process starts an engine there."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def worker_environment(number: int, size: int) -> dict[str, str]:
    """Of the process of engine `number`, which has `size` GPUs to itself; on a CPU none may bind to the first cores, as
    all would.
    """
    if device_name() == "cpu":
        return {"VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    devices = visible if visible != [""] else [str(device) for device in range(gpus())]
    return {"CUDA_VISIBLE_DEVICES": ",".join(devices[number * size : (number + 1) * size])}


def device_bytes() -> int:
    """Memory of the first GPU."""
    import torch

    return int(torch.cuda.get_device_properties(0).total_memory)


def kv_cache_bytes(bytes_per_token: int, max_model_len: int, sequences: int) -> int:
    """Room for sequences of full length; on a CPU, where the cache competes with everything else, at most 2 GiB, but
    for one always.

    One more than asked for: vLLM keeps a block for itself, and the last sequence would wait for the others to end.
    """
    one = bytes_per_token * whole_blocks(max_model_len)
    need = one * (sequences + 1)
    return need if device_name() == "cuda" else max(2 * one, min(need, _LARGEST_CPU_CACHE))


def whole_blocks(tokens: int) -> int:
    """Rounded up, as a sequence takes whole blocks of the cache."""
    return -(-tokens // _LARGEST_BLOCK) * _LARGEST_BLOCK


@contextmanager
def engine(model: ModelFolder, config: EngineConfig = EngineConfig()) -> Iterator[Any]:
    """A vllm.LLM on a checkpoint folder, shut down on leaving; raises MeasurementError where vLLM refuses the
    checkpoint.
    """
    with library_settings(config.threads), torch_functions(), _restored_transformers_class(model):
        llm = _start(model, config)
        try:
            yield llm
        finally:
            llm.llm_engine.engine_core.shutdown()
            del llm
            gc.collect()


def _start(model: ModelFolder, config: EngineConfig) -> Any:
    try:
        from vllm import LLM
    except ImportError as error:
        raise MeasurementError(f"vLLM is not installed here ({error}); run `make install`") from error
    try:
        return LLM(
            str(model.path),
            disable_log_stats=False,
            use_tqdm_on_load=False,
            seed=0,
            worker_extension_cls=WORKER,
            **engine_arguments(model, config),
        )
    except Exception as error:
        raise MeasurementError(f"vLLM cannot load {model.path}: {first_line(error)}") from error


def engine_arguments(model: ModelFolder, config: EngineConfig) -> dict[str, Any]:
    """By the names of vLLM's engine arguments, which are those of `vllm serve` as well."""
    cache = config.kv_cache_bytes and config.kv_cache_bytes // config.tensor_parallel  # of a device
    found = {
        "dtype": _dtype(config.dtype),
        "enforce_eager": device_name() == "cpu",
        "max_model_len": config.max_model_len,
        "kv_cache_memory_bytes": cache,
        "max_num_seqs": config.max_num_seqs,
        "gpu_memory_utilization": _memory_share(model, config),
        "enable_prefix_caching": config.prefix_caching,
        "tensor_parallel_size": config.tensor_parallel if config.tensor_parallel > 1 else None,
    }
    return {name: value for name, value in found.items() if value is not None}


@contextmanager
def _restored_transformers_class(model: ModelFolder) -> Iterator[None]:
    """vLLM's transformers back end rewrites the class of its model in place; transformers itself could not build one
    afterwards.
    """
    from transformers import CONFIG_MAPPING, MODEL_MAPPING

    name = model.config.get("model_type")
    body: Any = MODEL_MAPPING.get(CONFIG_MAPPING[str(name)], None) if name in CONFIG_MAPPING else None
    bases, own = (body.__bases__, dict(vars(body))) if body else ((), {})
    try:
        yield
    finally:
        if body and body.__bases__ != bases:
            body.__bases__ = bases
            for name in ("__init__", "__call__"):
                setattr(body, name, own[name]) if name in own else delattr(body, name)


def _memory_share(model: ModelFolder, config: EngineConfig) -> float | None:
    """On CUDA, what an engine with a cache of its own size takes of the device, so that a second one starts beside
    it.
    """
    if device_name() == "cpu" or config.kv_cache_bytes is None:
        return None
    total = device_bytes()
    return min(
        0.95, ((1.1 * model.weight_bytes + config.kv_cache_bytes) / config.tensor_parallel + _ACTIVATION_BYTES) / total
    )


def working_dtype(model: ModelFolder, dtype: str) -> str:
    """The number type in which an engine of this setting computes; vLLM's "auto" takes FP32 checkpoints down to the
    device's own.
    """
    name = _dtype(dtype)
    if name != "auto":
        return name
    import torch

    stored = stored_dtype(model.config).name
    halves = ("bfloat16", "float16") if torch.cuda.is_bf16_supported(including_emulation=False) else ("float16",)
    return stored if stored in halves else halves[0]


def cached_bytes_per_token(model: ModelFolder, dtype: str) -> int:
    """Of keys and values, by formula, at the engine's number type."""
    shape = model.shape
    return shape.kv_bytes_per_token // shape.dtype_bytes * BY_NAME[working_dtype(model, dtype)].item_bytes


def _dtype(name: str) -> str:
    return name if name != "auto" else ("float32" if device_name() == "cpu" else "auto")


def generate(llm: Any, prompts: Sequence[Any], params: Any) -> list[Any]:
    """One vllm.RequestOutput per prompt (text or token ids), in order; without the engine's progress bar."""
    return list(llm.generate(list(prompts), params, use_tqdm=False))


def stream(llm: Any, prompts: Sequence[Any], params: Sequence[Any]) -> Iterator[tuple[int, Any]]:
    """(position, vllm.RequestOutput) of each prompt as soon as it is finished."""
    from vllm.sampling_params import RequestOutputKind

    core = llm.llm_engine
    waiting = {}
    try:
        for position, (prompt, setting) in enumerate(zip(prompts, params, strict=True)):
            setting.output_kind = RequestOutputKind.FINAL_ONLY
            waiting[f"stream-{next(_REQUESTS)}"] = position
            core.add_request(next(reversed(waiting)), prompt, setting)
        while core.has_unfinished_requests():
            for output in core.step():
                if output.finished:
                    yield waiting.pop(output.request_id), output
    finally:
        if waiting:
            core.abort_request(list(waiting))


def kv_bytes_per_token(llm: Any) -> int:
    """Bytes of keys and values that the engine holds per token, by its own cache specification."""
    config = llm.llm_engine.engine_core.engine_core.scheduler.kv_cache_config
    page = sum(group.kv_cache_spec.page_size_bytes * len(group.layer_names) for group in config.kv_cache_groups)
    return int(page // llm.llm_engine.vllm_config.cache_config.block_size)


def cache_facts(llm: Any) -> tuple[int, int]:
    """(blocks of the KV cache, tokens that it holds); layers with a sliding window share blocks with the others."""
    cache = llm.llm_engine.vllm_config.cache_config
    return int(cache.num_gpu_blocks), int(cache.kv_cache_size_tokens)


def weight_bytes(llm: Any) -> int | None:
    """What the engine counts on CUDA; None on a CPU, where vLLM packs weights out of its own sight."""
    return (
        None
        if device_name() == "cpu"
        else int(llm.collective_rpc(lambda worker: worker.model_runner.model_memory_usage)[0])
    )


def config_for(
    model: ModelFolder,
    dtype: str,
    threads: int | None,
    max_model_len: int,
    max_num_seqs: int = 128,
    prefix_caching: bool = True,
    tensor_parallel: int = 1,
) -> EngineConfig:
    """With a cache for all its sequences at full length, where that is not too much (`kv_cache_bytes`)."""
    cache = kv_cache_bytes(cached_bytes_per_token(model, dtype), max_model_len, max_num_seqs)
    return EngineConfig(
        dtype=dtype,
        max_model_len=max_model_len,
        kv_cache_bytes=cache,
        max_num_seqs=max_num_seqs,
        threads=threads,
        prefix_caching=prefix_caching,
        tensor_parallel=tensor_parallel,
    )


def side_by_side(models: Mapping[str, ModelFolder], wanted: Mapping[str, EngineConfig]) -> dict[str, EngineConfig]:
    """On CUDA, caches of one size for all, so small that all engines fit on the device together.

    Raises MeasurementError where even the weights do not.
    """
    if device_name() == "cpu":
        return dict(wanted)
    least = min(_room(models), *(config.kv_cache_bytes or _room(models) for config in wanted.values()))
    if least <= 0:
        raise MeasurementError(f"{', '.join(models)} do not fit on the device together; measure fewer at a time")
    return {name: replace(config, kv_cache_bytes=least) for name, config in wanted.items()}


def fit_together(models: Mapping[str, ModelFolder]) -> bool:
    """Whether engines on all of them have room for weights and some cache; on a CPU nothing is known of that."""
    return device_name() == "cpu" or _room(models) > 0


def _room(models: Mapping[str, ModelFolder]) -> int:
    """Bytes for the cache of each on the first GPU."""
    share = 0.9 * device_bytes() / len(models)
    return min(int(share - 1.1 * model.weight_bytes) - _ACTIVATION_BYTES for model in models.values())


def engines_for(
    models: Mapping[str, ModelFolder],
    dtype: str,
    threads: int | None,
    max_model_len: int,
    max_num_seqs: int = 128,
    tensor_parallel: int = 1,
) -> Engines:
    """All with the same settings, and room for each other."""
    wanted = {
        name: config_for(path, dtype, threads, max_model_len, max_num_seqs, tensor_parallel=tensor_parallel)
        for name, path in models.items()
    }
    return Engines(models, side_by_side(models, wanted), max_model_len)


class Engines:
    """Engines by name, each started when first asked for and all stopped together."""

    def __init__(
        self, models: Mapping[str, ModelFolder], configs: Mapping[str, EngineConfig], max_model_len: int
    ) -> None:
        self.models, self.configs, self.max_model_len = models, configs, max_model_len
        self.running: dict[str, Any] = {}
        self.stack = ExitStack()

    def __enter__(self) -> Engines:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stack.close()

    def __getitem__(self, name: str) -> Any:
        if name not in self.running:
            with progress_bar(f"Starting vLLM on {name}"):
                self.running[name] = self.stack.enter_context(engine(self.models[name], self.configs[name]))
        return self.running[name]
