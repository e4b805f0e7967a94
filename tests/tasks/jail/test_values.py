"""What crosses the sandbox's wall comes back equal and of the same type; anything else raises ValueError."""

from __future__ import annotations

import json
import math
from collections import Counter, OrderedDict, deque
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.jail.values import DEPTH, TooLarge, dumps, loads

_plain = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.complex_numbers(allow_nan=False)
    | st.fractions()
    | st.decimals(allow_nan=False)
    | st.sampled_from([int, str, list])
)
_keys = _plain.filter(lambda v: v.__hash__ is not None)
_hashable = st.recursive(_keys, lambda inner: st.tuples(inner, inner) | st.frozensets(inner), max_leaves=5)
_values = st.recursive(
    _plain, lambda inner: st.lists(inner) | st.tuples(inner) | st.dictionaries(_hashable, inner), max_leaves=12
)


def there_and_back(value: Any) -> Any:
    held: list[Any] = []
    return loads(dumps(value, lambda v: held.append(v) or len(held) - 1), held.__getitem__)


@given(_values | st.sets(_hashable) | st.builds(deque, st.lists(_plain)) | st.builds(bytearray, st.binary()))
def test_values_come_back_equal_and_of_the_same_type(value: Any) -> None:
    found = there_and_back(value)
    assert found == value and type(found) is type(value)


def test_special_values_and_subclasses() -> None:
    class Liar(int):
        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = int.__hash__

    assert math.isnan(there_and_back(math.nan)) and there_and_back(-(10**5000)) == -(10**5000)
    found = there_and_back(Liar(3))
    assert type(found) is int and found != 4
    assert there_and_back(Counter("aab")) == {"a": 2, "b": 1} and there_and_back(OrderedDict(a=1)) == {"a": 1}
    assert list(there_and_back(x for x in (1, 2))) == [1, 2] and set(there_and_back({1: 2}.keys())) == {1}
    assert (
        there_and_back(range(3)) == range(3)
        and there_and_back([Fraction(10**5000, 3), Decimal("1e-9")])[0].denominator == 3
    )
    opaque = object()
    assert there_and_back([opaque])[0] is opaque


def test_a_class_with_an_equality_of_its_own_is_opaque() -> None:
    class Meta(type):
        def __eq__(cls, other: object) -> bool:  # without a hash
            return True

    value = Meta("Odd", (), {})()
    assert there_and_back([value]) == [value] and there_and_back(Meta("Text", (str,), {})("a")) == "a"


@pytest.mark.parametrize("wrap", [lambda v: [v], lambda v: (v,), lambda v: {1: v}, lambda v: deque([v])])
def test_values_may_be_nested_as_deep_as_the_limit_says(wrap: Any) -> None:
    value: Any = 1
    for _ in range(DEPTH - 1):
        value = wrap(value)
    assert loads(dumps(value, lambda _: 0), lambda _: 0) == value
    with pytest.raises(TooLarge):
        dumps(wrap(value), lambda _: 0)


LARGE = {"text": "x" * (2 << 20), "list": [0] * 300_000, "int": 1 << (1 << 23), "endless": (x for x in iter(int, 1))}


@pytest.mark.parametrize("value", LARGE.values(), ids=LARGE)
def test_what_is_too_large_is_said_before_it_is_built(value: Any) -> None:
    with pytest.raises(TooLarge):
        dumps(value, lambda _: 0)


def test_a_list_in_itself_is_too_deep() -> None:
    value: list[Any] = []
    value.append(value)
    with pytest.raises(TooLarge):
        dumps(value, lambda _: 0)


_tags = st.sampled_from(["int", "set", "dict", "opaque", "range", "Decimal", "fraction", "type", "items", "x"])
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_tags, inner, max_size=2),
    max_leaves=8,
)


@given(st.text() | _json.map(json.dumps))
def test_forged_text_is_a_value_or_a_value_error(text: str) -> None:
    ours = object()
    try:
        found = loads(text, [ours].__getitem__)
    except (ValueError, IndexError):  # IndexError: a number that stands for nothing, the caller's own lookup
        return
    kinds = (bool, int, float, complex, str, bytes, list, tuple, dict, set, frozenset, bytearray, range)
    assert found is None or found is ours or isinstance(found, kinds)
