"""Whether a checkpoint's weights are quantised, by any of the marks that quantisation tools leave."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from harness.core import model_card
from harness.core.bounded_read import read_text
from harness.core.errors import UnsupportedModelError
from harness.core.hub_ids import is_hub_id
from harness.core.safetensors_stream import Entry

_KEYS = ("quantization_config", "compression_config")
_FILES = ("hf_quant_config.json", "quantize_config.json", "quant_config.json")  # of ModelOpt, AutoGPTQ and AutoAWQ
_FLOATS = ("F64", "F32", "F16", "BF16")
# scales, zeros and codes beside the weights; the scales of a cache of keys and values say nothing about the weights
_PARTS = re.compile(
    r"(.*\.)?((?!(k|v|q|kv|prob)_scale$)\w*_scale(_inv|_2)?|\w*_?scales|\w*_blocks|weight:_\w+|centroids|indices|qweight|qzeros|g_idx|weight_packed|weight_shape"
    r"|weight_zero_point|SCB|W_q|codes|codebooks|weight\.(absmax|quant_map|quant_state\..+|nested_\w+))"
)
_CARD_BYTES = 1 << 20


def quantised_key(config: Mapping[str, Any]) -> str | None:
    """The key of config.json that says that the weights are quantised."""
    inner = config.get("text_config")
    places = (config, inner if isinstance(inner, Mapping) else {})
    return next((key for key in _KEYS for place in places if place.get(key)), None)


def check_tensors(folder: Path, entries: Iterable[Entry], own: Mapping[str, Entry], wanted: Iterable[str]) -> None:
    """Raises UnsupportedModelError for quantised weights, with the model they were quantised from by the card.

    Args:
        folder: The model's folder.
        entries: Its tensors.
        own: Those of them that the architecture has, by name.
        wanted: The names of all tensors that the architecture has.
    """
    complete = all(name in own for name in wanted)
    marks = (
        *(f"tensor {entry.name}" for entry in entries if _PARTS.fullmatch(entry.name)),
        *(f"{entry.name} is {entry.dtype}" for entry in own.values() if entry.dtype not in _FLOATS),
        *(name for name in _FILES if not complete and (folder / name).exists()),
    )
    if marks:
        raise _refusal(folder, marks[0])


def check_config(folder: Path, config: Mapping[str, Any]) -> None:
    """Raises UnsupportedModelError where config.json says that the weights are quantised."""
    if key := quantised_key(config):
        raise _refusal(folder, key)


def _refusal(folder: Path, mark: str) -> UnsupportedModelError:
    return UnsupportedModelError(f"{folder} is quantised ({mark[:120]}); {_instead(folder)}")


def _instead(folder: Path) -> str:
    original = _original(folder)
    return f"give {original}, from which it was made by its card" if original else "give the model it was made from"


def _original(folder: Path) -> str | None:
    """`base_model` of the card."""
    try:
        front, _ = model_card.split(read_text(folder / "README.md", _CARD_BYTES))
    except (OSError, ValueError):
        return None
    found = front.get("base_model")
    name = found[0] if isinstance(found, list) and found else found
    return name if isinstance(name, str) and is_hub_id(name) else None
