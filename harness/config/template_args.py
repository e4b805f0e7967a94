"""Arguments of a chat template: `name=value` on the command line and in the environment, a mapping in YAML."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.config.values import parse_pairs

_RESERVED = {  # what apply_chat_template and its renderer take themselves, and what transformers passes to a template
    *("messages", "conversation", "conversations", "tools", "documents", "chat_template", "add_generation_prompt"),
    *("continue_final_message", "tokenize", "padding", "truncation", "max_length", "return_tensors", "return_dict"),
    *("return_assistant_tokens_mask", "tokenizer_kwargs", "self", "raise_exception", "strftime_now"),
    *("range", "namespace", "dict", "lipsum", "cycler", "joiner"),  # Jinja's own
    *(f"{kind}_token" for kind in ("bos", "eos", "unk", "sep", "pad", "cls", "mask")),
}


def parse_template_args(given: Any) -> Any:
    """A mapping of names to values.

    Args:
        given: "a=1,b=false", a list of such texts, or a mapping. true, false and numbers are read as such.

    Raises:
        ValueError: A part is no name=value, a name is given twice, or it is one that is set already.
    """
    given = parse_pairs(given)
    if isinstance(given, Mapping):
        for name in given:
            _check_name(name)
    return given


def _check_name(name: Any) -> None:
    if not isinstance(name, str) or not name.isidentifier():
        raise ValueError(f"{name!r} is not the name of a variable")
    if name in _RESERVED:
        raise ValueError(f"{name} is set already and cannot be given")
