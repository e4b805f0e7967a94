"""Which statements are kept: against the definition, applied again and again until nothing changes; and how the work
grows with the text.
"""

from __future__ import annotations

import ast
import builtins
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks import statements
from tasks.definitions import definitions_in, only_reuses
from tasks.programs import find_program
from tasks.statements import useful

_NAME = st.sampled_from(["a", "b", "c", "d", "f", "test_x", "main"])
_STATEMENT = st.one_of(
    st.builds("{} = {}".format, _NAME, _NAME),
    st.builds("{} = 1".format, _NAME),
    st.builds("{} += {}".format, _NAME, _NAME),
    st.builds("def {}(x): return {}".format, _NAME, _NAME),
    st.builds("def {0}():\n    global {1}\n    {1} = {2}".format, _NAME, _NAME, _NAME),
    st.builds("{}({})".format, _NAME, _NAME),
    st.builds("{} = {}()".format, _NAME, _NAME),
    st.builds("print({})".format, _NAME),
    st.builds("import numpy as {}".format, _NAME),
    st.builds("try:\n    {} = {}\nexcept: pass".format, _NAME, _NAME),
    st.just("import sys\nsys.setrecursionlimit(9)"),
    st.builds("if {}:\n    def {}(x): return {}".format, _NAME, _NAME, _NAME),
    st.builds("{}, {} = 1, {}()".format, _NAME, _NAME, _NAME),
)


def by_definition(nodes: list[ast.stmt], entry_point: str) -> set[int]:
    if any(definitions_in(n, entry_point) for n in nodes):
        nodes = [n for n in nodes if not only_reuses(n, entry_point)]
    names = {id(node): statements._names(node) for node in nodes}
    first = {id(n) for n in nodes if statements._is_wanted_anyway(n, entry_point)}
    functions = {n.name: names[id(n)].read for n in nodes if isinstance(n, ast.FunctionDef)}
    kept = set(first)

    def belongs(node: ast.stmt) -> bool:
        mine, data = names[id(node)], {name for key in kept - first for name in names[key].made}
        workers = {name for name in mine.called & functions.keys() if not statements._DRIVERS.fullmatch(name)}
        wanted = {name for key in kept for name in names[key].read}
        return bool(
            mine.made & wanted
            or mine.read & data
            or statements._is_setting(node)
            or any(functions[name] & data for name in workers)
        )

    def settle(change: Callable[[], set[int]]) -> None:
        while change():
            pass

    def add() -> set[int]:
        more = {
            id(n)
            for n in nodes
            if id(n) not in kept and statements._may_belong(n, names[id(n)], entry_point) and belongs(n)
        }
        kept.update(more)
        return more

    def drop() -> set[int]:
        made = {name for key in kept for name in names[key].made} | set(dir(builtins))
        loose = {key for key in kept - first if names[key].needed - made}
        kept.difference_update(loose)
        return loose

    settle(add)
    settle(drop)
    return kept


@given(st.lists(_STATEMENT, max_size=12))
def test_what_is_kept_is_what_the_definition_says(lines: list[str]) -> None:
    nodes = ast.parse("\n".join(lines)).body
    kept = useful(nodes, "f")
    expected = by_definition(nodes, "f")
    assert [ast.unparse(n) for n in nodes if id(n) in kept] == [ast.unparse(n) for n in nodes if id(n) in expected]


SHAPES: dict[str, Callable[[int], str]] = {
    "a chain of names": lambda n: "".join(f"a{i} = a{i + 1}\n" for i in range(n)) + f"a{n} = 1\n",
    "a chain from behind": lambda n: "a0 = 1\n" + "".join(f"a{i + 1} = a{i}\n" for i in range(n)),
    "a chain without an end": lambda n: "".join(f"a{i} = a{i + 1}\n" for i in range(n)),
    "one name": lambda n: "a0 = 1\n" * n,
    "calls of helpers": lambda n: "a0 = []\ndef g(): a0.append(1)\n" + "g()\n" * n,
    "many definitions": lambda n: "def f(x):\n    return a0\n" * n,
    "no Python": lambda n: "((((\n" * n,
    "open strings": lambda n: "x = '''\n" * n,
    "fences": lambda n: "```python\nx = 1\n```\n" * n,
    "a list of words": lambda n: "- word\n" * n,
    "branches": lambda n: "if a0:\n    f = max\n" * n,
    "deeper and deeper quotes": lambda n: "> " * n + "f\n",
    "quotes": lambda n: "> f = max\n" * n,
    "sessions": lambda n: ">>> def f():\n" * n,
    "answers of an interpreter": lambda n: ">>> f(\n    1\n" * n,
    "tags": lambda n: "[PYTHON]def f(\n[/PYTHON]\n" * n,
    "words": lambda n: "The code is: def f(x):\n" * n,
    "words in one line": lambda n: "The code is: def f " * n,
    "spans": lambda n: "`f = lambda: 0`\n" * n,
    "one-line fences": lambda n: "```python f = lambda: 0 ```\n" * n,
    "items": lambda n: "1. * ```python\n" * n,
    "tuples": lambda n: "a, f = 1, max\n" * n,
    "one long tuple": lambda n: ", ".join(["f"] * n) + " = max\n",
    "reused names": lambda n: "f = 0\nfrom solution import f\n" * n,
}


def work(head: str, text: str) -> int:
    """Lines of this project's code that run: a measure that does not depend on the machine."""
    count = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal count
        if "/tasks/" not in frame.f_code.co_filename:
            return None
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        find_program(head + text, "f")
    finally:
        sys.settrace(before)
    return count


@pytest.mark.slow
@pytest.mark.parametrize("head", ["def f(x):\n    return a0\n", "if x:\n  def f(:\n"], ids=["whole", "broken"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=list(SHAPES))
def test_the_work_grows_with_the_text_and_not_with_its_square(shape: Callable[[int], str], head: str) -> None:
    small, large = work(head, shape(100)), work(head, shape(400))
    assert large < 5 * small
