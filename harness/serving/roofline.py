"""What a model takes of a device and how much faster a narrower one could be at best: formulas on its shape, nothing
measured.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from harness.core.errors import UsageError
from harness.core.types.pruning import ModelShape
from harness.engine.memory_budget import BATCHED_TOKENS, HALF_BYTES, kv_copies

_GIB = 1 << 30
_SHARE = 0.92  # of the device that vLLM takes unless told otherwise (gpu_memory_utilization)
_SEQUENCES = 256
_CONTEXT_BYTES = _GIB  # CUDA's context, graphs and workspaces of a GPU, about
_MOST_GPUS = 64


@dataclass(frozen=True)
class Device:
    """Memory, dense BF16 operations per second and memory bandwidth of one GPU as its maker gives them; None where only
    the memory is known. `count`: GPUs that share one engine by tensor parallelism.
    """

    name: str
    memory_bytes: int
    flops: float | None = None
    bandwidth: float | None = None
    count: int = 1


DEVICES: Mapping[str, Device] = {
    name: Device(name, mebibytes << 20, teraflops * 1e12, gigabytes * 1e9)
    for name, mebibytes, teraflops, gigabytes in (  # memory as the driver shows it, error correction taken off
        ("T4", 15_360, 65, 320),
        ("L4", 23_034, 121, 300),
        ("A10", 23_028, 125, 600),
        ("RTX3090", 24_576, 71, 936),
        ("RTX4090", 24_564, 165, 1008),
        ("L40S", 46_068, 362, 864),
        ("A100-40", 40_960, 312, 1555),
        ("A100-80", 81_920, 312, 2039),
        ("H100", 81_559, 989, 3350),
        ("H100-80", 81_559, 989, 3350),
        ("H200", 143_771, 989, 4800),
        ("B200", 183_359, 2250, 8000),
    )
}


def find_device(text: str) -> Device:
    """A name of `DEVICES`, or a memory size like 24GiB or 16GB, and several of one kind as 2xH100-80; raises UsageError
    for anything else.
    """
    several = re.fullmatch(r"(\d{1,3})x(.+)", text, re.IGNORECASE)
    if several and 1 <= int(several[1]) <= _MOST_GPUS:
        return replace(_find_one(several[2]), name=text, count=int(several[1]))
    return _find_one(text)


def _find_one(text: str) -> Device:
    known = next((device for name, device in DEVICES.items() if name.lower() == text.lower()), None)
    size = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(G|GB|GiB)", text, re.IGNORECASE)
    if known is None and (size is None or float(size[1]) == 0):
        raise UsageError(
            f"unknown device {text!r}; give its memory, like 24GiB or 2x24GiB, or one of {', '.join(DEVICES)}"
        )
    return known or Device(text, int(float(size[1]) * (10**9 if size[2].upper() == "GB" else _GIB)))  # type: ignore[index]


@dataclass(frozen=True)
class Work:
    """Floating-point operations and bytes read."""

    flops: float
    read_bytes: float

    def seconds(self, device: Device) -> float | None:
        """The roofline: whichever takes longer (Williams et al. 2009, doi 10.1145/1498765.1498785); None for an unknown
        device. Several GPUs divide the work; what they exchange is not counted.
        """
        if device.flops is None or device.bandwidth is None:
            return None
        return max(self.flops / device.flops, self.read_bytes / device.bandwidth) / device.count


def decode_work(shape: ModelShape, concurrency: int, context: int, number: int, gpus: int = 1) -> Work:
    """One token for each of `concurrency` sequences of `context` tokens, over all `gpus`; `number`: bytes of a weight
    or of a cached value.

    2 operations per parameter of a matrix and token, and 4 per attended position, head and dimension of it; an
    embedding is only looked up, but for one that is the LM head. Read are all matrices once, and the keys and values of
    every sequence.
    """
    matrices = _body(shape) + _head(shape)
    cached = _cached_numbers(shape) * kv_copies(shape.num_key_value_heads, gpus)
    return Work(
        concurrency * (2 * matrices + _attention(shape) * context),
        matrices * number + concurrency * context * cached * number,
    )


def round_work(shape: ModelShape, concurrency: int, prompt: int, output: int, number: int) -> Work:
    """`concurrency` requests from their prompts, taken in one step, to their last of `output` tokens: what a timed
    round is made of.

    Of a prompt only the last position goes through the LM head. Position t attends to t positions; the last token is
    never fed in.
    """
    fed = prompt + output - 1
    operations = 2 * _body(shape) * fed + 2 * _head(shape) * output + _attention(shape) * fed * (fed + 1) // 2
    attended = sum(range(prompt + 1, fed + 1))
    read = (_body(shape) + _head(shape)) * output + concurrency * attended * _cached_numbers(shape)
    return Work(concurrency * operations, read * number)


def _head(shape: ModelShape) -> int:
    return shape.vocab_size * shape.hidden_size


def _body(shape: ModelShape) -> int:
    """Parameters beside the LM head and the embedding."""
    return shape.parameters - _head(shape) * (1 if shape.tied else 2)


def _attention(shape: ModelShape) -> int:
    """Operations per attended position."""
    return 4 * shape.attention_layers * shape.num_attention_heads * shape.head_dim


def _cached_numbers(shape: ModelShape) -> int:
    """Keys and values of a token."""
    return shape.kv_bytes_per_token // shape.dtype_bytes


def ideal_speedup(old: Work, new: Work) -> tuple[float, float]:
    """How many times faster `new` is at best: (by operations, by bytes read)."""
    return old.flops / new.flops, old.read_bytes / new.read_bytes


def roofline_speedup(old: Work, new: Work, device: Device) -> float | None:
    """How many times faster `new` is on a device at best; None where its speeds are unknown."""
    before, after = old.seconds(device), new.seconds(device)
    return before / after if before and after else None


def engine_shape(shape: ModelShape) -> ModelShape:
    """As an engine on a GPU holds the model: vLLM's "auto" takes float32 down to 16 bits."""
    return replace(shape, dtype_bytes=min(HALF_BYTES, shape.dtype_bytes))


def kv_capacity_tokens(shape: ModelShape, device: Device) -> int:
    """Tokens whose keys and values fit beside the weights, 0 where the weights do not; an estimate of vLLM's own
    accounting.

    vLLM takes 92 % of each GPU and leaves room for a step's largest layer: the FFN's gate, up and product or the
    logits. Several GPUs share weights, FFN, vocabulary and KV heads; hidden states and the logits of all ranks, which
    are gathered, are whole on each.
    """
    n = device.count
    free = room_bytes(shape, device) - shape.parameters * shape.dtype_bytes // n
    return max(0, free) * n // (shape.kv_bytes_per_token * kv_copies(shape.num_key_value_heads, n))


def room_bytes(shape: ModelShape, device: Device) -> int:
    """Of each GPU, for weights and KV cache; as `kv_capacity_tokens`."""
    n, number = device.count, shape.dtype_bytes
    ffn = BATCHED_TOKENS["cuda"] * (3 * shape.intermediate_size // n + 4 * shape.hidden_size) * number
    logits = 2 * _SEQUENCES * shape.vocab_size * 4
    return int(_SHARE * device.memory_bytes) - max(ffn, logits) - _CONTEXT_BYTES
