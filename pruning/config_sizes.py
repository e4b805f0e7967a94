"""Which sizes a config.json may state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.core.bounded_read import is_count
from harness.core.errors import UnsupportedModelError

NEEDED = ("hidden_size", "num_hidden_layers", "intermediate_size", "num_attention_heads", "vocab_size")
MOST_SIZES: Mapping[str, int] = {  # beyond any model there is, so that a damaged config.json ends before memory does
    "hidden_size": 1 << 20,
    "num_hidden_layers": 1024,
    "intermediate_size": 1 << 22,
    "num_attention_heads": 1 << 14,
    "num_key_value_heads": 1 << 14,
    "head_dim": 1 << 14,
    "vocab_size": 1 << 24,
    "max_position_embeddings": 1 << 24,
    "word_embed_proj_dim": 1 << 20,
    "num_labels": 1 << 16,  # transformers makes a name for each
}


def check_sizes(values: Mapping[str, Any], where: str) -> None:
    """Raises UnsupportedModelError where a size is missing, no number, or beyond any model there is."""
    wrong = [
        key for key, value in values.items() if not is_count(value, MOST_SIZES[key], 1) and (value or key in NEEDED)
    ]
    if wrong:
        raise UnsupportedModelError(f"{where} has no usable {', '.join(wrong)}; get the model again")
