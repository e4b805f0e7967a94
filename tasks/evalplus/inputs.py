"""EvalPlus's inputs, which its files hold as JSON, with the tuples, sets and complex numbers of a problem's example."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from tasks.jail.values import TooLarge, dumps

_CONTAINERS = (list, tuple, set, frozenset)


@dataclass(frozen=True)
class Example:
    """The assertion that a prompt shows.

    Attributes:
        arguments: Of its call; None for one that is no literal.
        as_sets: Whether it compares the output as a set.
    """

    arguments: tuple[Any, ...] = ()
    as_sets: bool = False


def example_in(prompt: str, entry_point: str) -> Example:
    """The first assertion in a prompt's docstring that calls the function; an empty one where there is none."""
    for line in prompt.splitlines():
        if not line.strip().startswith("assert "):
            continue
        try:
            tree = ast.parse(line.strip())
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
        named = [call for call in calls if getattr(call.func, "id", "") == entry_point]
        if named:
            wrapped = any(getattr(call.func, "id", "") == "set" and named[0] in call.args for call in calls)
            return Example(tuple(map(_literal, named[0].args)), wrapped)
    return Example()


def _literal(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return None


def packed_inputs(inputs: Sequence[Sequence[Any]], example: Example) -> list[str]:
    """Each input as the text that `tasks.jail.values.loads` reads; those that are too large to be handed to a program
    are left out.
    """
    return list(_packed(inputs, example))


def _packed(inputs: Sequence[Sequence[Any]], example: Example) -> Iterator[str]:
    for arguments in inputs:
        examples = [*example.arguments, *[None] * len(arguments)]
        try:
            yield dumps([_like(*pair) for pair in zip(arguments, examples, strict=False)], _no_object)
        except TooLarge:
            continue


def _like(value: Any, example: Any) -> Any:
    """The value with the example's types: a list becomes a tuple or set, a text a number, where JSON has only that."""
    if isinstance(value, str) and isinstance(example, int | float | complex):
        return _number(value)
    if isinstance(value, list) and isinstance(example, _CONTAINERS):
        parts = [_like(part, _part_example(part, at, example)) for at, part in enumerate(value)]
        return type(example)(parts)
    if isinstance(value, dict) and isinstance(example, dict):
        return {key: _like(part, next(iter(example.values()), None)) for key, part in value.items()}
    return value


def _part_example(part: Any, at: int, example: Any) -> Any:
    """What stands at the same place in the example, else what is of the same kind."""
    parts = list(example)
    if not isinstance(part, list):
        return parts[min(at, len(parts) - 1)] if parts else None
    containers = [each for each in parts if isinstance(each, _CONTAINERS)]
    same_place = parts[at] if at < len(parts) and parts[at] in containers else None
    return same_place or (containers[0] if containers else example)


def _number(text: str) -> Any:
    for kind in (float, complex):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _no_object(value: Any) -> NoReturn:
    raise TypeError(f"{type(value).__name__} is not a value of JSON")
