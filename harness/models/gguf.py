"""Converts a GGUF file to a BF16 safetensors folder, dequantising one tensor at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.core.dtypes import BY_NAME, bits_of
from harness.core.errors import UnsupportedModelError, first_line
from harness.core.hashing import sampled_hash
from harness.core.safetensors_stream import Array, Entry, iter_blocks, write_entries
from harness.models.gguf_header import check_header
from pruning.families import family_of

_DTYPE = BY_NAME["bfloat16"]
_VERSION = 2  # of the conversion: raise it where a file is converted otherwise, so that cached folders are left


def read_config(source: Path) -> dict[str, Any]:
    """config.json made from the file's metadata; raises UnsupportedModelError where they cannot be read."""
    from transformers import AutoConfig

    try:
        check_header(source)
        config = AutoConfig.from_pretrained(source.parent, gguf_file=source.name).to_dict()
    except UnsupportedModelError as error:
        raise UnsupportedModelError(f"{source}: {error}") from error
    except Exception as error:  # the readers below raise many kinds for a damaged or unknown file
        raise UnsupportedModelError(
            f"{source} cannot be read as GGUF ({first_line(error)}); get the file again"
        ) from error
    return {key: value for key, value in config.items() if key != "quantization_config"} | {"dtype": "bfloat16"}


def name_of(source: Path) -> str:
    """A folder name for the cache, from the file's name, its modification time and a hash of samples of it."""
    total = sampled_hash(source)
    total.update(f"{source.stat().st_mtime_ns} {_VERSION}".encode())
    return f"{source.stem}-{total.hexdigest()[:12]}"


def convert(source: Path, out: Path) -> None:
    """Writes config.json, weights and tokenizer to the folder `out`; a GGUF file has no generation settings.

    Args:
        source: the .gguf file.
        out: the folder, which is created.

    Raises:
        UnsupportedModelError: the architecture cannot be pruned, a tensor is missing, or one is not of the model.
    """
    from transformers import AutoTokenizer

    config = read_config(source)
    architecture = family_of(config).architecture
    out.mkdir(exist_ok=True)
    _write_weights(source, out / "model.safetensors")
    AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name).save_pretrained(out)
    text = json.dumps({**config, "architectures": [architecture]}, indent=2, default=str)
    (out / "config.json").write_text(text + "\n", encoding="utf-8")


def _write_weights(source: Path, out: Path) -> None:
    from gguf import GGUFReader

    model, processor = _skeleton(source)
    names = _names(model, processor)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    stored = {tensor.name: tensor for tensor in GGUFReader(source).tensors}
    if foreign := sorted(stored.keys() - names.keys()):
        raise UnsupportedModelError(
            f"{source} has {foreign[0]} ({len(foreign)} such tensors), which transformers does not read for "
            f"{model.config.model_type}; give the Hugging Face folder"
        )
    tensors = {names[name]: tensor for name, tensor in stored.items()}
    tied = set(getattr(model, "_tied_weights_keys", None) or ()) if model.config.tie_word_embeddings else set()
    if missing := sorted(shapes.keys() - tensors.keys() - tied):
        raise UnsupportedModelError(
            f"{source} has no {missing[0]} ({len(missing)} tensors missing); get the file again"
        )
    entries = [Entry(name, _DTYPE.code, shapes[name]) for name in shapes if name in tensors]

    def blocks(entry: Entry) -> Iterator[Array]:
        yield from iter_blocks(_bits(tensors[entry.name], processor, entry))

    write_entries(out, entries, {"format": "pt"}, blocks)


def _skeleton(source: Path) -> tuple[Any, Any]:
    """The model without weights, and what undoes llama.cpp's own layout of some tensors (transformers' processors)."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.modeling_gguf_pytorch_utils import TENSOR_PROCESSORS, TensorProcessor

    config = AutoConfig.from_pretrained(source.parent, gguf_file=source.name)
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(config)
    architecture = {"gemma3_text": "gemma3", "mistral": "llama"}.get(config.model_type, config.model_type)
    processor: Any = TENSOR_PROCESSORS.get(architecture, TensorProcessor)
    return model, processor(config=config.to_dict())


def _names(model: Any, processor: Any) -> dict[str, str]:
    """GGUF tensor name -> checkpoint tensor name."""
    from transformers.modeling_gguf_pytorch_utils import get_gguf_hf_weights_map

    return dict(get_gguf_hf_weights_map(model, processor))


def _bits(tensor: Any, processor: Any, entry: Entry) -> Array:
    import numpy as np
    import torch
    from gguf import dequantize

    weights = processor.process(weights=dequantize(tensor.data, tensor.tensor_type), name=tensor.name).weights
    if weights.size * _DTYPE.item_bytes != entry.data_bytes:
        raise UnsupportedModelError(
            f"{entry.name} has {weights.size} weights, {list(entry.shape)} are needed; get the file again"
        )
    plain = torch.from_numpy(np.array(weights)).to(torch.bfloat16)
    return bits_of(plain)
