"""Lines are numbered as Python numbers them, whatever other separators stand in strings and comments."""

from __future__ import annotations

import ast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.programs import find_program
from tasks.source import indented, lines_of, split_lines, without_lines

# str.splitlines() ends a line at each of them, Python's parser at none
SEPARATORS = ["\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029"]
FUNCTION = "def add(a, b):\n    {}\n    total = a + b\n    return total\n"


@given(st.text("ab\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029", max_size=30))
def test_lines_are_those_of_the_parser(inside: str) -> None:
    source = f"'''{inside}'''\nx = 1\n"
    lines, (first, last) = split_lines(source), ast.parse(source).body
    assert "".join(lines) == source and len(lines) == last.lineno and lines[-1] == "x = 1\n"
    assert without_lines(source, {*lines_of(first)}) == "x = 1\n"


def test_a_string_with_a_separator_is_indented_in_one_place() -> None:
    assert indented("x = '\u2028y'\n\nz = 1") == "    x = '\u2028y'\n\n    z = 1"


@pytest.mark.parametrize("place", ["mark = 'x{}y'", "'''Both{}of them.'''", "# one{}two"])
@pytest.mark.parametrize("separator", SEPARATORS, ids=ascii)
def test_an_example_is_dropped_and_no_line_of_the_function(separator: str, place: str) -> None:
    function = FUNCTION.format(place.format(separator))
    for text in (f"{function}print(add(1, 2))\n", f"```python\nprint(1)\n{function}add(1, 2)\n```"):
        assert str(find_program(text, "add")).strip() == function.strip()
    before = f"print('x{separator}y')\n# z{separator}\n"
    assert str(find_program(f"{before}{function}", "add")).endswith(function)


@pytest.mark.parametrize("separator", SEPARATORS, ids=ascii)
def test_a_body_that_is_not_indented_keeps_its_strings(separator: str) -> None:
    program = find_program(f"mark = 'x{separator}y'\nreturn mark, a + b", "add", "def add(a, b):\n")
    assert f"'x{separator}y'" in str(program)


def test_a_stub_behind_a_separator_is_dropped() -> None:
    function = FUNCTION.format("mark = '\u2028'")
    assert str(find_program(f"{function}\ndef add(a, b): ...\n", "add")).strip() == function.strip()


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=ascii)
def test_every_line_end_of_python_ends_fences_quotes_and_sessions(end: str) -> None:
    function = FUNCTION.format("pass")
    typed = ">>> " + function.replace("\n    ", "\n...     ") + "...\n>>> add(1, 2)\n3\n"
    quote = "> ```python\n> " + function.replace("\n", "\n> ") + "```\n"
    for text in (function, f"```python\n{function}\nprint(1)\n```\n", typed, quote):
        assert str(find_program(text.replace("\n", end), "add")).strip() == function.strip()
