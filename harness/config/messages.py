"""Validation errors of settings in plain words, without pydantic's terms."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

# pydantic's kind of error -> what is said about the value that was given
_WORDS = {
    "greater_than_equal": "{given} is below {ge}",
    "greater_than": "{given} is not above {gt}",
    "less_than_equal": "{given} is above {le}",
    "less_than": "{given} is not below {lt}",
    "literal_error": "{given} is not {expected}",
    "too_short": "the list is empty; give at least one",
    "model_type": "{given} is not a section of settings",
    "mapping_type": "{given} is not a mapping",
    "dict_type": "{given} is not a mapping",
    "tuple_type": "{given} is not a list",
    "string_type": "{given} is not text",
    "path_type": "{given} is not a path",
    "bool_type": "{given} is neither true nor false",
    "bool_parsing": "{given} is neither true nor false",
    "int_type": "{given} is not a whole number",
    "int_from_float": "{given} is not a whole number",
    "int_parsing": "{given} is not a whole number",
    "int_parsing_size": "{given} is too large",
    "finite_number": "{given} is not a finite number",
    "float_type": "{given} is not a number",
    "float_parsing": "{given} is not a number",
}


def innermost(error: ValidationError) -> list[Any]:
    """Every wrong setting, without "the list is empty" where pydantic left out an item that was wrong."""
    errors = error.errors()
    places = [e["loc"] for e in errors]
    return [e for e in errors if not any(p != e["loc"] and p[: len(e["loc"])] == e["loc"] for p in places)]


def what_is_wrong(error: Any) -> str:
    """What is wrong with the value of one of pydantic's errors, without the name of the setting."""
    given, text = error["input"], _WORDS.get(error["type"])
    if text is None:
        return str(error["msg"]).removeprefix("Value error, ")
    shown = given if isinstance(given, int | float) else repr(given)
    return text.format(given=shown, **error.get("ctx", {}))
