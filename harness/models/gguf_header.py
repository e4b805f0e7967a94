"""The header of a GGUF file, walked with limits before a library makes an object of every element.

The format: magic, version, two counts, then (key, type, value) and (name, axes, type, offset), all little-endian
(ggml-org/ggml, docs/gguf.md).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO, NoReturn

from harness.core.bounded_read import open_regular
from harness.core.errors import UnsupportedModelError
from pruning.config_sizes import MOST_SIZES

_MAGIC, _VERSIONS = b"GGUF", (2, 3)
_FORMATS: Mapping[int, str] = {
    0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d",
}  # fmt: skip
_STRING, _ARRAY = 8, 9
_MOST_KEYS, _MOST_TENSORS, _MOST_AXES = 1 << 16, 1 << 18, 4
_MOST_ELEMENTS = 1 << 23  # of all arrays; a vocabulary of 262,144 with scores, types and merges has a million
_LONGEST_STRING = 16 << 20
_SCALED, _NOT_SCALED = (".rope.scaling.type", ".rope.scale_linear"), (b"none", 1.0)
_FACTORS = (b"rope_freqs.", b"rope_factors_")  # tensors
_SIZES: Mapping[str, str] = {  # the end of a key -> the setting that it becomes
    "block_count": "num_hidden_layers",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "context_length": "max_position_embeddings",
    "vocab_size": "vocab_size",
    "head_count": "num_attention_heads",
    "head_count_kv": "num_key_value_heads",
    "key_length": "head_dim",
}


def check_header(source: Path) -> None:
    """Reads over the header of a GGUF file.

    Raises:
        UsageError: It is not a regular file.
        ValueError: It is damaged, or has more than any model.
        UnsupportedModelError: Its RoPE is scaled, which transformers leaves out without a word.
    """
    with open_regular(source) as file:
        walk = _Walk(file)
        if walk.take(4) != _MAGIC or walk.number("<I") not in _VERSIONS:
            raise ValueError("it has no GGUF header of version 2 or 3")
        tensors, keys = walk.count(_MOST_TENSORS, "tensors"), walk.count(_MOST_KEYS, "keys")
        for _ in range(keys):
            walk.key()
        for _ in range(tensors):
            walk.tensor()


class _Walk:
    """A position in the header."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.left, self.elements = file, os.fstat(file.fileno()).st_size, _MOST_ELEMENTS

    def take(self, length: int) -> bytes:
        if length > self.left:
            raise ValueError("its header is cut")
        self.left -= length
        return self.file.read(length)

    def number(self, form: str) -> int | float:
        found: int | float = struct.unpack(form, self.take(struct.calcsize(form)))[0]
        return found

    def count(self, most: int, what: str) -> int:
        found = int(self.number("<Q"))
        if found > most:
            raise ValueError(f"its header claims {found} {what}")
        return found

    def string(self) -> bytes:
        return self.take(self.count(_LONGEST_STRING, "characters in a string"))

    def key(self) -> None:
        name, kind = self.string().decode("utf-8", "replace"), int(self.number("<I"))
        value = self.value(kind, 0)
        if name.endswith(_SCALED) and value not in _NOT_SCALED:
            _refuse_scaled()
        most = MOST_SIZES.get(_SIZES.get(name.rpartition(".")[2], ""))
        if most is not None and isinstance(value, int | float) and not 0 <= value <= most:
            raise ValueError(f"its {name[:80]} is {value}")

    def value(self, kind: int, depth: int) -> int | float | bytes | None:
        """A number or a string; None for an array."""
        if kind in _FORMATS:
            return self.number(_FORMATS[kind])
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY and depth < 2:
            self.array(depth + 1)
        else:
            raise ValueError(f"its header has a value of the unknown type {kind}")
        return None

    def array(self, depth: int) -> None:
        kind, length = int(self.number("<I")), self.count(self.elements, "elements in arrays")
        self.elements -= length
        if kind in _FORMATS:
            self.take(length * struct.calcsize(_FORMATS[kind]))
        else:
            for _ in range(length):
                self.value(kind, depth)

    def tensor(self) -> None:
        if self.string().startswith(_FACTORS):
            _refuse_scaled()
        axes = int(self.number("<I"))
        if axes > _MOST_AXES:
            raise ValueError(f"its header claims a tensor of {axes} axes")
        self.take(8 * axes + 4 + 8)


def _refuse_scaled() -> NoReturn:
    raise UnsupportedModelError("its RoPE is scaled, which transformers does not read; give the Hugging Face folder")
