"""What a model takes of a device and how much faster a narrower one could be at best: formulas on its shape, nothing measured."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from harness.errors import UsageError
from harness.types import ModelShape

_GIB = 1 << 30
_SHARE = 0.92  # of the device that vLLM takes unless told otherwise (gpu_memory_utilization)
_BATCHED_TOKENS = 8192  # vLLM's steps on a GPU take up to so many tokens while it measures its peak
_SEQUENCES = 256
_CONTEXT_BYTES = _GIB  # CUDA's context, graphs and workspaces, about


@dataclass(frozen=True)
class Device:
    """Memory, dense BF16 operations per second and memory bandwidth as its maker gives them; None where only the memory is known."""

    name: str
    memory_bytes: int
    flops: float | None = None
    bandwidth: float | None = None


DEVICES: Mapping[str, Device] = {
    name: Device(name, gib * _GIB, teraflops * 1e12, gigabytes * 1e9)
    for name, gib, teraflops, gigabytes in (
        ("T4", 16, 65, 320),
        ("L4", 24, 121, 300),
        ("A10", 24, 125, 600),
        ("RTX3090", 24, 71, 936),
        ("RTX4090", 24, 165, 1008),
        ("L40S", 48, 362, 864),
        ("A100-40", 40, 312, 1555),
        ("A100-80", 80, 312, 2039),
        ("H100", 80, 989, 3350),
        ("H200", 141, 989, 4800),
        ("B200", 180, 2250, 8000),
    )
}


def find_device(text: str) -> Device:
    """A name of `DEVICES`, or a memory size like 24GiB or 16GB; raises UsageError for anything else."""
    known = next((device for name, device in DEVICES.items() if name.lower() == text.lower()), None)
    size = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(G|GB|GiB)", text, re.IGNORECASE)
    if known is None and (size is None or float(size[1]) == 0):
        raise UsageError(f"unknown device {text!r}; give its memory, like 24GiB, or one of {', '.join(DEVICES)}")
    return known or Device(text, int(float(size[1]) * (10**9 if size[2].upper() == "GB" else _GIB)))  # type: ignore[index]


@dataclass(frozen=True)
class Work:
    """Of one decoding step: floating-point operations and bytes read."""

    flops: float
    read_bytes: float

    def seconds(self, device: Device) -> float | None:
        """The roofline: whichever takes longer (Williams et al. 2009, doi 10.1145/1498765.1498785); None for an unknown device."""
        if device.flops is None or device.bandwidth is None:
            return None
        return max(self.flops / device.flops, self.read_bytes / device.bandwidth)


def decode_work(shape: ModelShape, concurrency: int, context: int, number: int) -> Work:
    """One token for each of `concurrency` sequences of `context` tokens; `number`: bytes of a weight or of a cached value.

    2 operations per parameter of a matrix and token, and 4 per attended position, head and dimension of it; an embedding is only
    looked up, but for one that is the LM head. Read are all matrices once, and the keys and values of every sequence.
    """
    matrices = shape.parameters - (0 if shape.tied else shape.vocab_size * shape.hidden_size)
    attention = 4 * shape.num_hidden_layers * shape.num_attention_heads * shape.head_dim * context
    keys_and_values = shape.kv_bytes_per_token // shape.dtype_bytes * number * context
    return Work(concurrency * (2 * matrices + attention), matrices * number + concurrency * keys_and_values)


def ideal_speedup(before: ModelShape, after: ModelShape, concurrency: int, context: int, number: int) -> tuple[float, float]:
    """How many times faster decoding is at best: (by operations, by bytes read)."""
    old, new = (decode_work(shape, concurrency, context, number) for shape in (before, after))
    return old.flops / new.flops, old.read_bytes / new.read_bytes


def kv_capacity_tokens(shape: ModelShape, device: Device) -> int:
    """Tokens whose keys and values fit beside the weights, 0 where the weights do not; an estimate of vLLM's own accounting.

    vLLM takes 92 % of the device and leaves room for a step's largest layer: the FFN's gate, up and product or the logits.
    """
    ffn = _BATCHED_TOKENS * (3 * shape.intermediate_size + 4 * shape.hidden_size) * shape.dtype_bytes
    logits = 2 * _SEQUENCES * shape.vocab_size * 4
    free = int(_SHARE * device.memory_bytes) - shape.parameters * shape.dtype_bytes - max(ffn, logits) - _CONTEXT_BYTES
    return max(0, free) // shape.kv_bytes_per_token
