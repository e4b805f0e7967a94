"""Values of settings as users write them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

Value = bool | int | float | str
_NUMBER = re.compile(r"[-+]?(\d+|\d*\.\d+|\d+\.\d*)([eE][-+]?\d{1,3})?")


def split_commas(value: Any) -> Any:
    """A text, or the texts in a list, cut at commas: `--task a,b --task c` are three. Other values stay."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    if isinstance(value, list | tuple):
        return [part for each in value for part in (split_commas(each) if isinstance(each, str) else [each])]
    return value


def split_choices(value: Any) -> Any:
    """A text, or the texts in a list, cut at the commas before a NAME=: `a=acc,b=exact_match,strict` are two. Other
    values stay.
    """
    if isinstance(value, list | tuple) and all(isinstance(each, str) for each in value):
        value = ",".join(value)
    if not isinstance(value, str):
        return value
    return [part.strip() for part in re.split(r",(?=[^,]*=)", value) if part.strip()]


def parse_pairs(given: Any) -> Any:
    """A mapping of names to values; other values stay.

    Args:
        given: "a=1,b=false", a list of such texts, or a mapping. true, false and numbers are read as such.

    Raises:
        ValueError: A part is no name=value, or a name is given twice.
    """
    if isinstance(given, str):
        given = given.split(",")
    if isinstance(given, list | tuple):
        return dict(_unique(_pair(str(part)) for part in given if str(part).strip()))
    return given


def _pair(part: str) -> tuple[str, Value]:
    name, sign, value = (piece.strip() for piece in part.partition("="))
    if not sign:
        raise ValueError(f"{part.strip()!r} is not NAME=VALUE")
    return name, _value(value)


def _value(text: str) -> Value:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    if not _NUMBER.fullmatch(text):
        return text
    return int(text) if re.fullmatch(r"[-+]?\d{1,18}", text) else float(text)


def _unique(pairs: Iterable[tuple[str, Value]]) -> Iterable[tuple[str, Value]]:
    seen = set[str]()
    for name, value in pairs:
        if name in seen:
            raise ValueError(f"{name} is given twice")
        seen.add(name)
        yield name, value
