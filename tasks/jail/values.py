"""Values of Python as JSON text that keeps types: plain JSON where that is exact, {"tag": ...} for everything else.

Used on both sides of the sandbox's wall, so it needs nothing but the standard library. Only base types cross, read with
the base type's own methods: what a subclass overrides (`__eq__`, `__iter__`) is left behind. Everything else is opaque,
a number that stands for it.
"""

import json
import math
from collections import deque
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

DEPTH, NODES, TEXT = 200, 200_000, 1 << 20  # limits of one value: nesting, parts, characters of JSON
_LONGEST_PLAIN_INT = 8192  # bits; decimal text of longer ones is refused by Python
_CONTAINERS: tuple[Any, ...] = (list, tuple, set, frozenset)
_ITERATORS: tuple[Any, ...] = (
    type(iter([])),
    type(iter(())),
    type(x for x in [0]),
    map,
    filter,
    zip,
    enumerate,
    reversed,
)
_TYPES: dict[str, type] = {
    kind.__name__: kind for kind in (bool, int, float, str, bytes, complex, list, tuple, set, frozenset, dict)
}
_VIEWS: dict[type, str] = {type({}.keys()): "keys", type({}.values()): "values", type({}.items()): "items"}


class TooLarge(Exception):
    """A value that is nested, or long, beyond the limits."""


class _Budget:
    def __init__(self) -> None:
        self.nodes = NODES
        self.text = TEXT

    def spend(self, characters: int = 0) -> None:
        self.nodes -= 1
        self.text -= characters
        if self.nodes < 0 or self.text < 0:
            raise TooLarge


def dumps(value: Any, opaque: Callable[[Any], int]) -> str:
    """JSON text of a value; `opaque(x)` gives the number for what cannot cross. Raises TooLarge."""
    return json.dumps(_pack(value, opaque, DEPTH, _Budget()))


def loads(text: str, known: Callable[[int], Any]) -> Any:
    """The value of `dumps`; `known(number)` gives what stands for something opaque. Raises ValueError on anything
    else.
    """
    try:
        packed = json.loads(text)
    except (TypeError, RecursionError) as error:
        raise ValueError(f"not a value: {type(error).__name__}") from None
    return unpack(packed, known)


def unpack(packed: Any, known: Callable[[int], Any]) -> Any:
    """As `loads`, of a text that has been read as JSON already, as a part of a larger one."""
    try:
        return _unpack(packed, known)
    except (TypeError, KeyError, AttributeError, ArithmeticError, RecursionError) as error:
        raise ValueError(f"not a value: {type(error).__name__}") from None


def _pack(value: Any, opaque: Callable[[Any], int], depth: int, budget: _Budget) -> Any:
    """By the real type: `__class__` of an object may lie, type() does not."""
    if depth == 0:
        raise TooLarge
    budget.spend()
    kind = type(value)
    if value is None or kind is bool:
        return value
    for base, packed in _SCALARS.items():
        if issubclass(kind, base):
            return packed(value, budget)

    def inner(part: Any) -> Any:
        return _pack(part, opaque, depth - 1, budget)

    for container in _CONTAINERS:
        if issubclass(kind, container):
            parts = [inner(part) for part in container.__iter__(value)]
            return parts if container is list else {container.__name__: parts}
    if issubclass(kind, dict):
        return {"dict": [[inner(key), inner(part)] for key, part in dict.items(value)]}
    if kind in _ITERATORS or kind in _VIEWS:
        return {_VIEWS.get(kind, "iterator"): [inner(part) for part in value]}
    if kind is range:
        return {"range": [value.start, value.stop, value.step]}
    if kind is Fraction:
        return {"fraction": [_int(value.numerator, budget), _int(value.denominator, budget)]}
    if kind is Decimal or kind is bytearray:
        return {kind.__name__: _str(str(value), budget) if kind is Decimal else _bytes(bytes(value), budget)["bytes"]}
    if kind is deque:
        return {"deque": [inner(part) for part in value]}
    if kind is type and value in _TYPES.values():
        return {"type": value.__name__}
    return {"opaque": opaque(value)}


def _int(value: Any, budget: _Budget) -> Any:
    value = int.__pos__(value)
    if value.bit_length() <= _LONGEST_PLAIN_INT:
        return value
    budget.spend(value.bit_length() // 4)
    return {"int": hex(value)}


def _float(value: Any, _budget: _Budget) -> Any:
    value = float.__pos__(value)
    return value if math.isfinite(value) else {"float": repr(value)}


def _str(value: Any, budget: _Budget) -> str:
    budget.spend(str.__len__(value))
    return str.__str__(value)


def _bytes(value: Any, budget: _Budget) -> Any:
    budget.spend(2 * bytes.__len__(value))
    return {"bytes": bytes.hex(value)}


def _complex(value: Any, budget: _Budget) -> Any:
    value = complex.__pos__(value)
    return {"complex": [_float(value.real, budget), _float(value.imag, budget)]}


_SCALARS: dict[type, Callable[[Any, _Budget], Any]] = {
    int: _int,
    float: _float,
    str: _str,
    bytes: _bytes,
    complex: _complex,
}
_REBUILD: dict[str, Callable[[Any], Any]] = {
    "int": lambda v: int(v, 16),
    "float": float,
    "type": _TYPES.__getitem__,
    "bytes": bytes.fromhex,
    "bytearray": bytearray.fromhex,
    "Decimal": Decimal,
    "fraction": lambda v: Fraction(*(int(part["int"], 16) if isinstance(part, dict) else part for part in v)),
    "complex": lambda v: complex(*(float(part["float"]) if isinstance(part, dict) else part for part in v)),
}
_COLLECT: dict[str, Callable[[list[Any]], Any]] = {
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
    "deque": deque,
    "iterator": iter,
    "keys": lambda parts: dict.fromkeys(parts).keys(),
    "values": lambda parts: dict(enumerate(parts)).values(),
    "items": lambda parts: dict(parts).items(),
    "range": lambda parts: range(*parts),
}


def _unpack(value: Any, known: Callable[[int], Any]) -> Any:
    if isinstance(value, list):
        return [_unpack(part, known) for part in value]
    if not isinstance(value, dict):
        return value
    ((tag, part),) = value.items()
    if tag in _REBUILD:
        return _REBUILD[tag](part)
    if tag in _COLLECT:
        return _COLLECT[tag]([_unpack(one, known) for one in part])
    if tag == "dict":
        return {_unpack(key, known): _unpack(one, known) for key, one in part}
    if tag == "opaque":
        return known(part)
    raise ValueError(f"unknown tag {tag}")
