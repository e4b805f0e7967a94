"""The sizes and levels that the house promises."""

from __future__ import annotations

import ast

import pytest

from scripts import structure


def test_the_house_keeps_its_limits(capsys: pytest.CaptureFixture[str]) -> None:
    assert structure.main() == 0
    assert "level 1: core, embedded\n" in capsys.readouterr().out


def test_levels_count_from_the_bottom_and_a_circle_is_named() -> None:
    assert structure.levels_of({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == {"c": 1, "b": 2, "a": 3}
    with pytest.raises(ValueError, match="a, b"):
        structure.levels_of({"a": {"b"}, "b": {"a"}, "c": set()})


def test_a_function_is_as_long_as_its_decorators_and_lines() -> None:
    tree = ast.parse("@one\n@two\ndef f():\n    def g():\n        pass\n    return g\n")
    assert sorted(structure.function_lengths(tree)) == [2, 6]
