"""A checkpoint as one GGUF file, the format of llama.cpp and of programs that are built on it.

Matrices keep their number type; norms and biases become FP32, as llama.cpp computes with them. The words are those of
llama.cpp's own converter (ggml-org/llama.cpp: convert_hf_to_gguf.py, src/models/).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harness.core.errors import UsageError
from harness.core.files import atomic_path, check_disk
from harness.core.safetensors_stream import Array, Entry, as_array
from harness.core.types.pruning import ModelShape
from pruning.checkpoint import ModelFolder
from pruning.decilm import rope_of
from pruning.families import tensors_of
from pruning.gguf_tokens import add_tokens, tokens_refusal
from pruning.shards import Shard

SUFFIX = ".gguf"
_FAMILIES = ("llama", "qwen2", "qwen3")
_PER_LAYER = "deci"  # llama.cpp's Llama with sizes of its own in every layer
_NEIGHBOURS = ("llama", _PER_LAYER)  # where RoPE turns channels 2i and 2i + 1 of a head, not i and i + half of it
_TYPES = ("F32", "F16", "BF16")  # of safetensors and of GGUF, by the same names
_ROPE = ("default", "linear", "llama3")
NO_BARE_LAYERS = "layers without attention are not written as GGUF"


@dataclass(frozen=True)
class _Tensor:
    """name: in the file. heads: whose channels are put in the order of `_NEIGHBOURS`; 0: none."""

    name: str
    shard: Shard
    entry: Entry
    heads: int

    @property
    def type(self) -> str:
        return "F32" if len(self.entry.shape) == 1 else self.entry.dtype

    @property
    def data_bytes(self) -> int:
        return self.entry.data_bytes * (4 if self.type == "F32" else 2) // self.entry.item_bytes

    def data(self) -> Array:
        """As it is written, of unsigned integers or FP32; a memory map where nothing changes."""
        array = as_array(self.shard.path, self.entry)
        if self.heads:
            array = neighbours(array, self.heads)
        return _in_fp32(array, self.entry.dtype) if self.type != self.entry.dtype else array


def neighbours(array: Array, heads: int) -> Array:
    """Rows of q_proj or k_proj so that RoPE turns neighbouring channels of a head.

    Args:
        array: [heads * head_dim, ...], where channel i of a head is turned with i + head_dim / 2.
        heads: Heads of this projection.

    Returns:
        The same shape; row 2i of a head was row i, row 2i + 1 was row i + head_dim / 2.
    """
    half = array.shape[0] // heads // 2
    return array.reshape(heads, 2, half, *array.shape[1:]).swapaxes(1, 2).reshape(array.shape)


def _in_fp32(array: Array, dtype: str) -> Array:
    """Exact: BF16 is the upper half of FP32."""
    if dtype == "BF16":
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array.view(np.float16).astype(np.float32)


def gguf_refusal(model: ModelFolder, widths: tuple[int, ...]) -> str | None:
    """Why no GGUF file can be a model at these widths, None where one can. Reads no weights."""
    if model.shape.skipped_attention:
        return NO_BARE_LAYERS
    if model.shape.model_type not in _FAMILIES:
        return f"a GGUF file is written of {', '.join(_FAMILIES)}, not of {model.shape.model_type}"
    if importlib.util.find_spec("gguf") is None:
        return 'the package gguf is not installed (pip install -e ".[gguf]")'
    arch = _arch(model.shape, widths)
    return (
        _shape_refusal(model, arch)
        or _rope_refusal(model.config, arch)
        or _type_refusal(model)
        or tokens_refusal(model)
    )


def _arch(shape: ModelShape, widths: tuple[int, ...]) -> str:
    """llama.cpp's name of the architecture; its own llama and qwen2 have one FFN width."""
    return shape.model_type if len(set(widths)) == 1 else _PER_LAYER


def _shape_refusal(model: ModelFolder, arch: str) -> str | None:
    config, shape = model.config, model.shape
    if arch == _PER_LAYER and shape.model_type == "qwen3":
        return "llama.cpp has no qwen3 with an FFN width per layer"
    if config.get("hidden_act", "silu") != "silu":
        return f"llama.cpp has SiLU in {arch}, not {str(config['hidden_act'])[:40]}"
    kinds = config.get("layer_types") or ()
    if config.get("use_sliding_window") or any(kind != "full_attention" for kind in kinds):
        return f"llama.cpp has no sliding window in {arch}"
    if shape.model_type == "qwen3" and config.get("attention_bias"):
        return "llama.cpp's qwen3 has no biases"
    if shape.model_type == "qwen2" and shape.num_attention_heads * shape.head_dim != shape.hidden_size:
        return "llama.cpp's qwen2 has a head_dim of hidden_size / heads"
    return None


def _rope_refusal(config: Mapping[str, Any], arch: str) -> str | None:
    rope = rope_of(config)
    kind = str(rope["rope_type"])
    part = rope.get("partial_rotary_factor", config.get("partial_rotary_factor"))
    if part not in (None, 1, 1.0):
        return f"llama.cpp turns whole heads in {arch}, and partial_rotary_factor is {part}"
    if kind not in _ROPE:
        return f"RoPE of the kind {kind[:40]} is not written, only {', '.join(_ROPE)}"
    if kind == "llama3" and arch not in _NEIGHBOURS:
        return f"llama.cpp's {arch} has no RoPE of the kind llama3"
    return None


def _type_refusal(model: ModelFolder) -> str | None:
    other = (e for shard in model.shards for e in shard.entries if e.dtype not in _TYPES)
    found = next(other, None)
    return f"its {found.name[:80]} is {found.dtype}; {', '.join(_TYPES)} are written" if found else None


def check_gguf_place(out: Path) -> None:
    """Raises UsageError where `out` is there, or is not the name of a GGUF file."""
    if out.suffix != SUFFIX:
        raise UsageError(f"{out} would be one file; give --out NAME{SUFFIX}")
    if out.exists():
        raise UsageError(f"{out} is there; remove it, or give another --out")


def write_gguf(model: ModelFolder, out: Path) -> Path:
    """Writes a checkpoint as one GGUF file, tensor by tensor, completely or not at all.

    Args:
        model: A checkpoint that `export` wrote, of any widths, fine-tuned or not; or a dense model.
        out: The file to write.

    Raises:
        UsageError: llama.cpp has no such model (`gguf_refusal`), or `out` is there.
        StorageError: The disk is full.
    """
    from gguf import GGUFWriter

    check_gguf_place(out)
    if reason := gguf_refusal(model, model.widths):
        raise UsageError(f"{model.path} cannot be a GGUF file: {reason}")
    arch = _arch(model.shape, model.widths)
    tensors = list(_tensors(model, arch))
    check_disk(out, sum(tensor.data_bytes for tensor in tensors))
    with atomic_path(out) as scratch, closing(GGUFWriter(scratch, arch)) as writer:
        writer.add_name(out.stem)
        _add_sizes(writer, model)
        add_tokens(writer, model)
        _write_tensors(writer, tensors, _rope_factors(model))
    return out


def _tensors(model: ModelFolder, arch: str) -> Iterator[_Tensor]:
    """What of the shards is the model: no buffers, and no LM head that is the embedding as well."""
    from gguf import MODEL_ARCH_NAMES, get_tensor_name_map

    shape, wanted = model.shape, tensors_of(model.config, model.widths)
    known = next(key for key, name in MODEL_ARCH_NAMES.items() if name == arch)
    names = get_tensor_name_map(known, shape.num_hidden_layers)
    heads = {"attn_q": shape.num_attention_heads, "attn_k": shape.num_key_value_heads} if arch in _NEIGHBOURS else {}
    for shard in model.shards:
        for entry in shard.entries:
            own = entry.name if entry.name in wanted else f"{model.family.body}.{entry.name}"
            if own in wanted:
                name = str(names.get_name(own, try_suffixes=(".weight", ".bias")))
                yield _Tensor(name, shard, entry, heads.get(name.split(".")[-2], 0))


def _add_sizes(writer: Any, model: ModelFolder) -> None:
    """What llama.cpp reads of config.json."""
    from gguf import GGML_QUANT_VERSION, LlamaFileType

    shape, widths, rope = model.shape, model.widths, rope_of(model.config)
    writer.add_block_count(shape.num_hidden_layers)
    writer.add_context_length(shape.max_position_embeddings)
    writer.add_embedding_length(shape.hidden_size)
    writer.add_feed_forward_length(widths[0] if len(set(widths)) == 1 else list(widths))
    writer.add_head_count(shape.num_attention_heads)
    writer.add_head_count_kv(shape.num_key_value_heads)
    writer.add_key_length(shape.head_dim)
    writer.add_value_length(shape.head_dim)
    writer.add_layer_norm_rms_eps(float(model.config.get("rms_norm_eps", 1e-6)))
    writer.add_vocab_size(shape.vocab_size)
    writer.add_rope_dimension_count(shape.head_dim)
    writer.add_rope_freq_base(float(rope["rope_theta"]))
    if rope["rope_type"] == "linear":
        from gguf import RopeScalingType

        writer.add_rope_scaling_type(RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(float(rope["factor"]))
    kinds = {"F32": LlamaFileType.ALL_F32, "F16": LlamaFileType.MOSTLY_F16, "BF16": LlamaFileType.MOSTLY_BF16}
    writer.add_file_type(kinds[_main_type(model)])
    writer.add_quantization_version(GGML_QUANT_VERSION)


def _main_type(model: ModelFolder) -> str:
    """Of the largest tensor."""
    return max((entry for shard in model.shards for entry in shard.entries), key=lambda e: e.data_bytes).dtype


def _rope_factors(model: ModelFolder) -> Array | None:
    rope = rope_of(model.config)
    return llama3_factors(rope, model.shape.head_dim) if rope["rope_type"] == "llama3" else None


def llama3_factors(rope: Mapping[str, Any], head_dim: int) -> Array:
    """By what each frequency of RoPE is divided in Llama 3.1 and later.

    Args:
        rope: rope_parameters of config.json.
        head_dim: Channels of a head.

    Returns:
        float32 [head_dim / 2]: 1 for wavelengths below original_max_position_embeddings / high_freq_factor, `factor`
        above the same / low_freq_factor, and in between what makes the frequency the mean of the two, weighted by
        where the wavelength lies (transformers, modeling_rope_utils: _compute_llama3_parameters).
    """
    low, high, factor = (float(rope[key]) for key in ("low_freq_factor", "high_freq_factor", "factor"))
    wavelength = 2 * np.pi * float(rope["rope_theta"]) ** (np.arange(0, head_dim, 2) / head_dim)
    place = (float(rope["original_max_position_embeddings"]) / wavelength - low) / (high - low)
    share = np.clip(place, 0.0, 1.0)
    return (1.0 / ((1.0 - share) / factor + share)).astype(np.float32)


def _write_tensors(writer: Any, tensors: list[_Tensor], factors: Array | None) -> None:
    """Names and shapes first, then one tensor after the other."""
    from gguf import GGMLQuantizationType

    if factors is not None:
        writer.add_tensor_info("rope_freqs.weight", factors.shape, factors.dtype, factors.nbytes)
    for tensor in tensors:
        bits = np.dtype(f"u{4 if tensor.type == 'F32' else 2}")
        kind = GGMLQuantizationType[tensor.type]
        writer.add_tensor_info(tensor.name, tensor.entry.shape, bits, tensor.data_bytes, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    if factors is not None:
        writer.write_tensor_data(factors)
    for tensor in tensors:
        writer.write_tensor_data(tensor.data())
