"""Values in the metadata of a safetensors file, which are all texts: read as numbers and names, within bounds.

Each function raises KeyError for a name that is missing and ValueError for a value that does not fit.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, get_args

from harness.core.types.model import ModelKind

_SHOWN = 40  # characters of a wrong value in an error

Metadata = Mapping[str, str]


def count_of(meta: Metadata, key: str, most: int, least: int = 0) -> int:
    """An integer."""
    text = meta[key]
    if not re.fullmatch(r"[0-9]{1,18}", text) or not least <= int(text) <= most:
        raise _wrong(meta, key)
    return int(text)


def fraction_of(meta: Metadata, key: str, allowed: Callable[[float], bool] = lambda value: 0 <= value <= 1) -> float:
    """A number for which `allowed` holds, by default one in [0, 1]; NaN and infinity are none."""
    try:
        value = float(meta[key])
    except ValueError as error:
        raise _wrong(meta, key) from error
    if not allowed(value):
        raise _wrong(meta, key)
    return value


def flag_of(meta: Metadata, key: str) -> bool:
    """True or false."""
    return bool(name_of(meta, key, ("true", "false")) == "true")


def name_of(meta: Metadata, key: str, known: tuple[str, ...]) -> Any:
    """One of the `known` names."""
    if meta[key] not in known:
        raise _wrong(meta, key)
    return meta[key]


def model_kind_of(meta: Metadata) -> ModelKind:
    """What the name of a model in the same metadata is."""
    kind: ModelKind = name_of({"model_kind": "unknown", **meta}, "model_kind", get_args(ModelKind))
    return kind


def reason(error: KeyError | ValueError) -> str:
    """What is wrong, for an error message."""
    return f"it has no {error.args[0]}" if isinstance(error, KeyError) else str(error)


def _wrong(meta: Metadata, key: str) -> ValueError:
    return ValueError(f"its {key} is {meta[key][:_SHOWN]!r}")
