"""Values of Python as JSON text that keeps types: plain JSON where that is exact, {"tag": ...} for everything else.

Used on both sides of the sandbox's wall, so it needs nothing but the standard library. Only base types cross, read with
the base type's own methods: what a subclass overrides (`__eq__`, `__iter__`) is left behind. Everything else is opaque,
a number that stands for it.
"""

import json
import math
from collections import deque
from collections.abc import Callable, Iterable
from decimal import Decimal
from fractions import Fraction
from json.encoder import encode_basestring_ascii as quoted
from typing import Any

DEPTH, NODES, TEXT = 200, 200_000, 1 << 20  # limits of one value: nesting, parts, characters of JSON
PROOF = 32  # bytes of a word that nobody but the server can say: tasks/jail/server.py
PROOFS = 1024 * PROOF
_LONGEST_PLAIN_INT = 8192  # bits; decimal text of longer ones is refused by Python
_TYPES: dict[str, type] = {
    kind.__name__: kind for kind in (bool, int, float, str, bytes, complex, list, tuple, set, frozenset, dict)
}


class TooLarge(Exception):
    """A value that is nested, or long, beyond the limits."""


def dumps(value: Any, opaque: Callable[[Any], int]) -> str:
    """JSON text of a value; `opaque(x)` gives the number for what cannot cross. Raises TooLarge."""
    return _Writer(opaque).text(value, DEPTH)


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


class _Writer:
    """The text of one value, and what is left of the limits."""

    def __init__(self, opaque: Callable[[Any], int]) -> None:
        self.opaque = opaque
        self.nodes = NODES
        self.characters = TEXT

    def text(self, value: Any, depth: int) -> str:
        """By the real type: `__class__` of an object may lie, type() does not."""
        self.nodes -= 1
        if depth == 0 or self.nodes < 0:
            raise TooLarge
        kind = type(value)
        write = _EXACT.get(id(kind)) or next((_OF_BASE[base] for base in _OF_BASE if issubclass(kind, base)), _opaque)
        return write(self, value, depth - 1)

    def spend(self, characters: int) -> None:
        self.characters -= characters
        if self.characters < 0:
            raise TooLarge


_Write = Callable[[_Writer, Any, int], str]


def _int(writer: _Writer, value: Any, _depth: int) -> str:
    value = int.__pos__(value)
    if value.bit_length() <= _LONGEST_PLAIN_INT:
        return str(value)
    writer.spend(value.bit_length() // 4)
    return f'{{"int": "{value:#x}"}}'


def _float(_writer: _Writer, value: Any, _depth: int) -> str:
    value = float.__pos__(value)
    return repr(value) if math.isfinite(value) else f'{{"float": "{value!r}"}}'


def _str(writer: _Writer, value: Any, _depth: int) -> str:
    writer.spend(str.__len__(value))
    return quoted(str.__str__(value))


def _bytes(writer: _Writer, value: Any, _depth: int) -> str:
    writer.spend(2 * bytes.__len__(value))
    return f'{{"bytes": "{bytes.hex(value)}"}}'


def _complex(writer: _Writer, value: Any, depth: int) -> str:
    value = complex.__pos__(value)
    return f'{{"complex": [{_float(writer, value.real, depth)}, {_float(writer, value.imag, depth)}]}}'


def _sequence(parts: Callable[[Any], Iterable[Any]], tag: str = "") -> _Write:
    """{tag: [parts]}, or the list alone; `parts` are a base type's own."""
    head, tail = (f'{{"{tag}": [', "]}") if tag else ("[", "]")

    def write(writer: _Writer, value: Any, depth: int) -> str:
        return f"{head}{', '.join([writer.text(part, depth) for part in parts(value)])}{tail}"

    return write


def _dict(writer: _Writer, value: Any, depth: int) -> str:
    pairs = [f"[{writer.text(key, depth)}, {writer.text(part, depth)}]" for key, part in dict.items(value)]
    return f'{{"dict": [{", ".join(pairs)}]}}'


def _fraction(writer: _Writer, value: Any, depth: int) -> str:
    return f'{{"fraction": [{_int(writer, value.numerator, depth)}, {_int(writer, value.denominator, depth)}]}}'


def _decimal(writer: _Writer, value: Any, depth: int) -> str:
    return f'{{"Decimal": {_str(writer, str(value), depth)}}}'


def _bytearray(writer: _Writer, value: Any, _depth: int) -> str:
    writer.spend(2 * len(value))
    return f'{{"bytearray": "{value.hex()}"}}'


def _range(_writer: _Writer, value: Any, _depth: int) -> str:
    return f'{{"range": [{value.start}, {value.stop}, {value.step}]}}'


def _type(writer: _Writer, value: Any, depth: int) -> str:
    return f'{{"type": "{value.__name__}"}}' if value in _TYPES.values() else _opaque(writer, value, depth)


def _opaque(writer: _Writer, value: Any, _depth: int) -> str:
    return f'{{"opaque": {writer.opaque(value)}}}'


_OF_BASE: dict[type, _Write] = {  # values of subclasses are written as their base's
    int: _int,
    float: _float,
    str: _str,
    bytes: _bytes,
    complex: _complex,
    list: _sequence(list.__iter__),
    tuple: _sequence(tuple.__iter__, "tuple"),
    set: _sequence(set.__iter__, "set"),
    frozenset: _sequence(frozenset.__iter__, "frozenset"),
    dict: _dict,
}
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
_OF_KIND: dict[type, _Write] = {
    type(None): lambda _writer, _value, _depth: "null",
    bool: lambda _writer, value, _depth: "true" if value else "false",
    **dict.fromkeys(_ITERATORS, _sequence(iter, "iterator")),
    type({}.keys()): _sequence(iter, "keys"),
    type({}.values()): _sequence(iter, "values"),
    type({}.items()): _sequence(iter, "items"),
    range: _range,
    Fraction: _fraction,
    Decimal: _decimal,
    bytearray: _bytearray,
    deque: _sequence(iter, "deque"),
    type: _type,
}
# by identity: hash and equality of a class may be a program's own
_EXACT = {id(kind): write for kind, write in (_OF_BASE | _OF_KIND).items()}
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
