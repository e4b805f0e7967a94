"""`harness plan --device` against vLLM's own accounting: its request for memory, its cache specification and its
number of blocks, on a device that is only said to have so much memory.
"""

from __future__ import annotations

import json
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from harness.config.settings import load_config
from harness.engine.library_settings import library_settings, torch_functions
from harness.models import registry
from harness.pipeline.device_table import on_device

pytestmark = pytest.mark.slow
CONFIG = {
    **registry._QWEN_7B,
    "architectures": ["Qwen2ForCausalLM"],
    "torch_dtype": "bfloat16",
    "hidden_act": "silu",
}
NOT_OF_TORCH = 1 << 30  # CUDA's context, NCCL and graphs on a GPU; cannot be computed


class LiveBytes(TorchDispatchMode):
    """The most bytes of tensors that were alive at the same time, of those made inside."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **(kwargs or {}))
        before = {id(t.untyped_storage()) for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor) and id(tensor.untyped_storage()) not in before:
                size = tensor.untyped_storage().nbytes()
                self.now += size
                weakref.finalize(tensor, self._freed, size)
        self.peak = max(self.peak, self.now)
        return made

    def _freed(self, size: int) -> None:
        self.now -= size


def peak_of_a_step(width: int, tokens: int) -> int:
    """transformers' own layer on the meta device, its hidden states before it and its residual included."""
    from transformers import Qwen2Config
    from transformers.models.qwen2.modeling_qwen2 import Qwen2MLP

    config = Qwen2Config(**{**CONFIG, "intermediate_size": width})
    with torch.device("meta"), torch.inference_mode():
        mlp = Qwen2MLP(config).to(torch.bfloat16)
        with LiveBytes() as live:
            hidden, residual = (torch.empty((tokens, 3584), dtype=torch.bfloat16) for _ in range(2))
            normed = hidden + residual
            mlp(normed)
    return live.peak


def vllm_tokens(folder: Path, width: int, gpu_bytes: int, gpus: int) -> int:
    """The capacity that vLLM would report."""
    from vllm.engine.arg_utils import EngineArgs
    from vllm.utils.mem_utils import MemorySnapshot
    from vllm.v1.core.kv_cache_utils import get_kv_cache_capacity, get_kv_cache_configs
    from vllm.v1.kv_cache_interface import FullAttentionSpec
    from vllm.v1.worker.utils import request_memory

    (folder / "config.json").write_text(json.dumps({**CONFIG, "intermediate_size": width}))
    given = EngineArgs(str(folder), skip_tokenizer_init=True, block_size=16, dtype="bfloat16")
    with library_settings(), torch_functions():
        vllm_config = given.create_engine_config()
    vllm_config.cache_config.kv_cache_layout = "LBNHC"  # the engine core would ask the attention back end for it
    free = MemorySnapshot(device="cpu", auto_measure=False, total_memory=gpu_bytes, free_memory=gpu_bytes)
    requested = request_memory(free, vllm_config.cache_config)
    shape = registry.shape("qwen-7b", "math")
    parameters = shape.pruned_parameters((width,) * 28)
    step = peak_of_a_step(width // gpus, 8192)
    available = requested - 2 * parameters // gpus - step - NOT_OF_TORCH
    spec = FullAttentionSpec(block_size=16, num_kv_heads=max(1, 4 // gpus), head_size=128, dtype=torch.bfloat16)
    specs = {f"model.layers.{i}.self_attn.attn": spec for i in range(28)}
    cache = get_kv_cache_configs(vllm_config, [specs] * gpus, [available] * gpus)[0]
    return get_kv_cache_capacity(vllm_config, cache)[0]


@pytest.mark.parametrize("gib", [24, 48, 80, 141])
@pytest.mark.parametrize("gpus", [1, 2, 4])
def test_the_forecast_is_within_5_percent_of_vllms_own_accounting(gib: int, gpus: int, tmp_path: Path) -> None:
    table = on_device(load_config(None, {"model": "qwen-7b"}), 0.2, f"{gpus}x{gib}GiB", None)
    for row in table.rows:
        found = vllm_tokens(tmp_path, row.intermediate_size, gib << 30, gpus)
        assert row.kv_capacity_tokens == pytest.approx(found, rel=0.05)


def test_the_named_devices_of_the_documentation_too(tmp_path: Path) -> None:
    table = on_device(load_config(None, {"model": "qwen-7b"}), None, "2xH100-80", None)
    dense = table.rows[0]
    found = vllm_tokens(tmp_path, dense.intermediate_size, table.device.memory_bytes, 2)
    assert dense.kv_capacity_tokens == pytest.approx(found, rel=0.05)
