"""Starts a vLLM engine, sends it prompts, reads its figures and stops it; in this process, without a server."""

from __future__ import annotations

import gc
import importlib.util
import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from importlib.metadata import version
from typing import Any

from harness.core.errors import HarnessError, MeasurementError, UsageError, first_line
from harness.core.progress import progress_bar
from harness.engine.devices import device_name
from harness.engine.installation import check_engine
from harness.engine.library_settings import library_settings, torch_functions
from harness.engine.memory_budget import EngineSettings, engine_arguments, side_by_side, with_kv_cache
from harness.engine.weight_swap_worker import WORKER
from pruning.checkpoint import ModelFolder

_REQUESTS = itertools.count()
_NO_IMAGES = {"image": 0, "video": 0}  # the prompts here are texts; vLLM does not load the vision tower then


@contextmanager
def engine(model: ModelFolder, settings: EngineSettings = EngineSettings()) -> Iterator[Any]:
    """A vLLM engine on one model; it is shut down on leaving.

    Yields:
        The vllm.LLM.

    Raises:
        MeasurementError: vLLM is not installed, or cannot load the model.
    """
    with library_settings(settings.threads), torch_functions(), _restored_transformers_class(model):
        llm = _start(model, settings)
        try:
            yield llm
        finally:
            with suppress(Exception):  # an engine that has failed does not answer, and its error is on its way
                llm.collective_rpc("drop_weights")
            llm.llm_engine.engine_core.shutdown()
            del llm
            gc.collect()


def check_libraries(model: ModelFolder) -> None:
    """Raises MeasurementError where no engine can start here, or vLLM lacks a library that it needs for this model."""
    check_engine()
    if model.family.tower and not importlib.util.find_spec("torchvision"):
        raise MeasurementError(
            f"vLLM needs torchvision for {model.family.model_type}, a vision-language model, and it is not installed "
            f"here; install the torchvision that belongs to torch {version('torch')}"
        )


def check_options(model: ModelFolder, settings: EngineSettings) -> None:
    """Raises UsageError where vLLM would refuse its own options (`--engine-arg`); starts nothing, and does nothing
    where there are none.
    """
    if not settings.options:
        return
    check_engine()
    from vllm import EngineArgs

    longest = min(settings.max_model_len, model.shape.max_position_embeddings)
    arguments = engine_arguments(model, replace(settings, max_model_len=longest))
    try:
        EngineArgs(str(model.path), **arguments).create_engine_config()
    except Exception as error:  # pydantic's, and those of many checks
        raise UsageError(f"--engine-arg: vLLM refuses {_refused(error)[:300]}; give others, or none") from error


def _refused(error: Exception) -> str:
    details = getattr(error, "errors", None)
    if not callable(details):
        return first_line(error)
    first = details()[0]  # of pydantic, whose first line is only a count
    return " ".join((".".join(map(str, first["loc"])), first["msg"])).strip()


def _start(model: ModelFolder, settings: EngineSettings) -> Any:
    check_libraries(model)
    try:
        from vllm import LLM
    except ImportError as error:
        raise MeasurementError(f"vLLM cannot be imported ({first_line(error)}); `harness doctor` says why") from error
    try:
        return LLM(
            str(model.path),
            disable_log_stats=False,
            use_tqdm_on_load=False,
            seed=0,
            worker_extension_cls=WORKER,
            **engine_arguments(model, settings),
            **({"limit_mm_per_prompt": dict(_NO_IMAGES)} if model.family.tower else {}),
        )
    except Exception as error:
        raise MeasurementError(f"vLLM cannot load {model.path}: {first_line(error)}") from error


@contextmanager
def _restored_transformers_class(model: ModelFolder) -> Iterator[None]:
    """Undoes what vLLM's transformers back end does: it rewrites the model's class in place, after which transformers
    could not build such a model any more.
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


@contextmanager
def refusals(llm: Any) -> Iterator[None]:
    """Makes a MeasurementError of one line of what vLLM raises for a model that it has loaded and cannot run."""
    try:
        yield
    except HarnessError:
        raise
    except Exception as error:  # kernels, the scheduler and the tokenizer have their own
        model = llm.llm_engine.vllm_config.model_config.model
        raise MeasurementError(f"vLLM cannot run {model}: {first_line(error)}") from error


def generate(llm: Any, prompts: Sequence[Any], params: Any) -> list[Any]:
    """One vllm.RequestOutput per prompt (text or token ids), in the order of the prompts.

    Raises MeasurementError where vLLM cannot run the model.
    """
    with refusals(llm):
        return list(llm.generate(list(prompts), params, use_tqdm=False))


def stream(llm: Any, prompts: Sequence[Any], params: Sequence[Any]) -> Iterator[tuple[int, Any]]:
    """Answers as soon as they are finished: (position of the prompt, vllm.RequestOutput).

    Args:
        llm: a vllm.LLM.
        prompts: texts or token ids.
        params: one vllm.SamplingParams per prompt.

    Raises:
        MeasurementError: vLLM cannot run the model.
    """
    from vllm.sampling_params import RequestOutputKind

    core = llm.llm_engine
    waiting = {}
    with refusals(llm):
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


def empty_prefix_cache(llm: Any) -> None:
    """Forgets the keys and values of earlier prompts; raises MeasurementError where vLLM still holds some of them."""
    if not llm.reset_prefix_cache():
        raise MeasurementError(
            "vLLM did not empty its prefix cache, so answers could come from the keys and values of other weights; "
            "run again, and without other requests at the engine"
        )


def kv_bytes_per_token(llm: Any) -> int:
    """Bytes of keys and values per token over all GPUs, by the engine's own cache specification."""
    config, vllm_config = llm.llm_engine.engine_core.engine_core.scheduler.kv_cache_config, llm.llm_engine.vllm_config
    page = sum(group.kv_cache_spec.page_size_bytes * len(group.layer_names) for group in config.kv_cache_groups)
    return int(page * vllm_config.parallel_config.tensor_parallel_size // vllm_config.cache_config.block_size)


def cache_facts(llm: Any) -> tuple[int, int]:
    """(blocks of the KV cache, tokens that it can hold); layers with a sliding window share blocks with others."""
    cache = llm.llm_engine.vllm_config.cache_config
    return int(cache.num_gpu_blocks), int(cache.kv_cache_size_tokens)


def weight_bytes(llm: Any) -> int | None:
    """Bytes of the loaded weights over all GPUs, as vLLM counts them on CUDA; None on a CPU, where it does not count
    packed ones.
    """
    return None if device_name() == "cpu" else sum(map(int, llm.collective_rpc(_loaded_bytes)))


def _loaded_bytes(worker: Any) -> int:
    return int(worker.model_runner.model_memory_usage)


def engines_for(models: Mapping[str, ModelFolder], settings: EngineSettings) -> Engines:
    """Engines of all models with the same settings, their caches so small that all fit on the device.

    Raises MeasurementError where not even the weights fit together.
    """
    wanted = {name: with_kv_cache(model, settings) for name, model in models.items()}
    return Engines(models, side_by_side(models, wanted))


class Engines:
    """Engines by name: `engines[name]` starts one where it does not run yet; all stop on leaving."""

    def __init__(self, models: Mapping[str, ModelFolder], settings: Mapping[str, EngineSettings]) -> None:
        self.models, self.settings = models, settings
        self.running: dict[str, Any] = {}
        self.stack = ExitStack()

    def __enter__(self) -> Engines:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stack.close()

    def __getitem__(self, name: str) -> Any:
        if name not in self.running:
            with progress_bar(f"Starting vLLM on {name}"):
                self.running[name] = self.stack.enter_context(engine(self.models[name], self.settings[name]))
        return self.running[name]
