"""Values of settings as users write them."""

from __future__ import annotations

from typing import Any


def split_commas(value: Any) -> Any:
    """A text, or the texts in a list, cut at commas: `--task a,b --task c` are three. Other values stay."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    if isinstance(value, list | tuple):
        return [part for each in value for part in (split_commas(each) if isinstance(each, str) else [each])]
    return value
