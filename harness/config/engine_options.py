"""vLLM's own options for an engine: those that size and schedule it, by the names and types of vLLM's EngineArgs.

The list says what is allowed, as for the server (harness/serving/vllm_options.py, which has these names too). Every
other option is refused: among them are those that load code, read other files, name another model, or change what is
measured.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Any

from harness.config.values import Value, parse_pairs

INTEGERS = (
    *("block_size", "kv_cache_memory_bytes", "long_prefill_token_threshold", "max_cudagraph_capture_size"),
    *("max_num_batched_tokens", "max_num_scheduled_tokens", "max_num_seqs", "max_parallel_loading_workers"),
    *("num_gpu_blocks_override", "optimization_level", "prefill_schedule_interval"),
)
_MAY_BE_0 = ("long_prefill_token_threshold", "max_cudagraph_capture_size", "optimization_level")
SHARES = ("gpu_memory_utilization", "watermark")  # of a whole, from 0 to 1
NAMES = ("attention_backend", "kv_cache_dtype", "performance_mode")
SWITCHES = (
    *("async_scheduling", "disable_custom_all_reduce", "disable_hybrid_kv_cache_manager", "enable_chunked_prefill"),
    *("enforce_eager", "long_prefill_token_threshold_adaptive", "scheduler_reserve_full_isl", "use_fp64_gumbel"),
)
CHOICES: Mapping[str, tuple[str, ...]] = {
    "distributed_executor_backend": ("mp", "uni"),
    "model_impl": ("auto", "vllm", "transformers"),
    "safetensors_load_strategy": ("lazy", "eager", "prefetch"),
}
KNOWN = (*INTEGERS, *SHARES, *NAMES, *SWITCHES, *CHOICES)
_NAME = re.compile(r"[A-Za-z]\w*", re.ASCII)
_OURS = {  # what the harness sets, and how to set it
    "tensor_parallel_size": "give --tensor-parallel",
    "pipeline_parallel_size": "give --tensor-parallel",
    "dtype": "give --dtype",
    "model": "give the model to the command",
    "tokenizer": "put the tokenizer into the checkpoint",
    "seed": "it is always 0",
    "max_model_len": "it follows from the tasks and the requests",
    "enable_prefix_caching": "it is on in an evaluation and off while speed is measured",
    "worker_extension_cls": "weights are swapped by it",
    "disable_log_stats": "the figures come from it",
    "limit_mm_per_prompt": "prompts are texts",
    "trust_remote_code": "give a checkpoint that needs no code of its own",
    "quantization": "weights are measured as they are written; give it to `harness serve` behind --",
}


def parse_engine_options(given: Any) -> Any:
    """A mapping of vLLM's names to values of the type that vLLM's EngineArgs has for them; other values stay.

    Args:
        given: "block_size=32,enforce_eager=true", a list of such texts, or a mapping. Dashes count as underscores.

    Raises:
        ValueError: A part is no name=value, an option is not among `KNOWN`, or its value is of another type.
    """
    found = parse_pairs(given)
    if not isinstance(found, Mapping):
        return found
    return dict(_checked(str(name).removeprefix("--").replace("-", "_"), value) for name, value in found.items())


def _checked(name: str, value: Any) -> tuple[str, Value]:
    if name not in KNOWN:
        raise ValueError(_refusal(name))
    if not _fits(name, value):
        raise ValueError(f"{name} must be {_form(name)}")
    return name, float(value) if name in SHARES else value


def _form(name: str) -> str:
    if name in CHOICES:
        return f"one of {', '.join(CHOICES[name])}"
    if name in SWITCHES:
        return "true or false"
    if name in SHARES:
        return "a number from 0 to 1" + ("" if name == "watermark" else ", above 0")
    return "a name" if name in NAMES else "a whole number" + ("" if name in _MAY_BE_0 else " of at least 1")


def _fits(name: str, value: Any) -> bool:
    if name in CHOICES:
        return value in CHOICES[name]
    if name in NAMES:
        return isinstance(value, str) and _NAME.fullmatch(value) is not None
    if name in SWITCHES or isinstance(value, bool):
        return name in SWITCHES and isinstance(value, bool)
    if name in SHARES:
        return isinstance(value, int | float) and 0 <= value <= 1 and (value > 0 or name == "watermark")
    return type(value) is int and value >= (0 if name in _MAY_BE_0 else 1)


def _refusal(name: str) -> str:
    """Without the value, which may be a key."""
    if name in _OURS:
        return f"{name} is set already: {_OURS[name]}"
    if not _NAME.fullmatch(name):
        return "a name is not one of vLLM's options; docs/serving.md lists them"
    near = difflib.get_close_matches(name, KNOWN, n=1)
    return f"{name[:60]} is not allowed" + (f", did you mean {near[0]}?" if near else "; docs/serving.md lists what is")
