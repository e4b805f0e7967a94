"""The version of run.json, and how an older one is read as the present one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

SCHEMA_VERSION = 2

# version 1 -> 2
_FIELDS = {
    "retain": "general_weight",
    "natural": "stop_at_eos",
    "beyond_half": "margin_over_half",
    "whereabouts": "share_per_layer",
}
_TOKENS = {"question": "prompt", "answer": "completion", "both": "all"}
_NAMES = (
    (re.compile(r"\bselective-obs-refit\b"), "selective-best"),
    (re.compile(r"\b(selective|reverse)-smd\b"), r"\1-S"),
)
_PATHS = ("samples", "checkpoint")  # files keep their names


def upgrade(run: Mapping[str, Any]) -> dict[str, Any]:
    """A run.json of any version with this version's field names, values and variant names.

    Args:
        run: The document as it was read.

    Returns:
        The document in the present version; one that is in it already is returned unchanged.
    """
    if run.get("schema_version") != 1:
        return dict(run)
    return {**_renamed(dict(run)), "schema_version": SCHEMA_VERSION}


def _renamed(value: Any, key: str = "") -> Any:
    if isinstance(value, Mapping):
        return {_new_name(_FIELDS.get(str(k), str(k))): _renamed(v, k) for k, v in value.items()}
    if isinstance(value, list):
        return [_renamed(v, key) for v in value]
    if not isinstance(value, str) or key in _PATHS:
        return value
    return _TOKENS.get(value, value) if key == "tokens" else _new_name(value)


def _new_name(text: str) -> str:
    for pattern, new in _NAMES:
        text = pattern.sub(new, text)
    return text
