"""Arguments of a chat template: `name=value` on the command line and in the environment, a mapping in YAML."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

Value = bool | int | float | str
_RESERVED = {  # what apply_chat_template and its renderer take themselves, and what transformers passes to a template
    *("messages", "conversation", "conversations", "tools", "documents", "chat_template", "add_generation_prompt"),
    *("continue_final_message", "tokenize", "padding", "truncation", "max_length", "return_tensors", "return_dict"),
    *("return_assistant_tokens_mask", "tokenizer_kwargs", "self", "raise_exception", "strftime_now"),
    *("range", "namespace", "dict", "lipsum", "cycler", "joiner"),  # Jinja's own
    *(f"{kind}_token" for kind in ("bos", "eos", "unk", "sep", "pad", "cls", "mask")),
}
_NUMBER = re.compile(r"[-+]?(\d+|\d*\.\d+|\d+\.\d*)([eE][-+]?\d{1,3})?")


def parse_template_args(given: Any) -> Any:
    """A mapping of names to values.

    Args:
        given: "a=1,b=false", a list of such texts, or a mapping. true, false and numbers are read as such.

    Raises:
        ValueError: A part is no name=value, a name is given twice, or it is one that is set already.
    """
    if isinstance(given, str):
        given = given.split(",")
    if isinstance(given, list | tuple):
        given = dict(_unique(_pair(str(part)) for part in given if str(part).strip()))
    if isinstance(given, Mapping):
        for name in given:
            _check_name(name)
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


def _check_name(name: Any) -> None:
    if not isinstance(name, str) or not name.isidentifier():
        raise ValueError(f"{name!r} is not the name of a variable")
    if name in _RESERVED:
        raise ValueError(f"{name} is set already and cannot be given")
