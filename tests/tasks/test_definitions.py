"""Where a program defines its entry point: every form is kept whole, run on two numbers, and used without its
examples.
"""

from __future__ import annotations

import ast
from typing import Any

import pytest

from tasks.definitions import defines, definitions_in
from tasks.programs import find_program
from tests.tasks.test_programs import PROMPT

USE = "print(add(1, 2))\nassert add(1, 2) == 3\nn = input()\n"
FUNCTION = "    def add(a, b):\n        return a + b\n"
RECURSIVE = "    def add(a, b):\n        return a if not b else add(a + 1, b - 1)\n"
DEFINED = {
    "if": f"import sys\nif sys.version_info >= (3,):\n{FUNCTION}else:\n    add = None\n",
    "else": f"if not len('a'):\n    pass\nelse:\n{RECURSIVE}",
    "elif": f"if not len('a'):\n    add = None\nelif len('a'):\n{FUNCTION}",
    "try": f"try:\n{RECURSIVE}except ImportError:\n    add = None\n",
    "except": f"try:\n    from no_such_module import add\nexcept ImportError:\n{RECURSIVE}",
    "except, with two functions": f"try:\n    import no_such_module as np\n{FUNCTION}except ImportError:\n{RECURSIVE}",
    "else of a try": f"try:\n    import math\nexcept ImportError:\n    pass\nelse:\n{FUNCTION}",
    "finally": f"try:\n    x = 1\nfinally:\n{FUNCTION}",
    "with": f"import contextlib\nwith contextlib.suppress(ImportError):\n{FUNCTION}",
    "match": "match 1:\n    case 1:\n        def add(a, b):\n            return a + b\n",
    "a branch in a branch": "try:\n    if len('a'):\n        def add(a, b): return a + b\nfinally:\n    pass\n",
    "a flag": f"try:\n    import no_such_module\n    HAS = True\nexcept ImportError:\n    HAS = False\nif HAS:\n"
    f"    add = no_such_module.add\nelse:\n{FUNCTION}",
    "a lambda in a branch": "try:\n    import no_such_module\n    add = no_such_module.add\nexcept ImportError:\n"
    "    add = lambda a, b: a + b\n",
    "a helper for another Python": "import sys\nif sys.version_info >= (3,):\n    def h(x): return x\nelse:\n"
    "    def h(x): return unicode(x)\ndef add(a, b): return h(a) + b\n",
    "a stub for type checkers": "from typing import TYPE_CHECKING\ndef add(a, b):\n    return a + b\n"
    "if TYPE_CHECKING:\n    def add(a, b): ...\n",
    "annotated": "from typing import Callable\nadd: Callable[[int, int], int] = lambda a, b: a + b\n",
    "tuple": "zero, add = 0, lambda a, b: a + b\n",
    "list": "[add, zero] = [lambda a, b: a + b, 0]\n",
    "starred": "add, *rest = lambda a, b: a + b, 1, 2\n",
    "tuple in a tuple": "(zero, (add, one)) = (0, (lambda a, b: a + b, 1))\n",
    "unpacked": "table = (lambda a, b: a + b), 0\nadd, zero = table\n",
    "chained": "plus = add = lambda a, b: a + b\n",
    "walrus": "(add := lambda a, b: a + b)\n",
    "partial": "import functools\nadd = functools.partial(lambda c, a, b: a + b + c, 0)\n",
    "from an import": "from operator import add\n",
    "an attribute": "import operator\nadd = operator.add\n",
    "an object": "class A:\n    def __call__(self, a, b):\n        return a + b\nadd: A = A()\n",
    "wrapped": "import functools\ndef add(a, b):\n    return a + b\nadd = functools.lru_cache(add)\n",
}
USES = {
    "result": "add = add(1, 2)\n",
    "result in a tuple": "x, add = add(1, 2), 3\n",
    "sum": "add = 0\nfor x in range(3):\n    add += x\n",
    "list of results": "add = [add(x, 1) for x in range(3)]\n",
    "import of the answer": "from solution import add\n",
}


def result(program: str | None) -> Any:
    space: dict[str, Any] = {"__name__": "candidate"}
    exec(str(program), space)
    return space["add"](1, 2)


@pytest.mark.parametrize("prompt", [PROMPT, ""], ids=["completion", "request"])
@pytest.mark.parametrize("case", DEFINED)
def test_the_definition_is_kept_and_the_use_is_not(case: str, prompt: str) -> None:
    text = DEFINED[case]
    for answer in (
        text,
        f"Sure, here it is:\n\n{text}\nIt adds, as asked.\n",
        f"```python\n{text}{USE}```\n",
        text + USE,
    ):
        program = find_program(answer, "add", prompt)
        assert result(program) == 3 and "input" not in str(program)


@pytest.mark.parametrize("case", USES)
def test_a_use_of_the_name_is_no_definition(case: str) -> None:
    text = f"def add(a, b):\n{RECURSIVE.splitlines()[1][4:]}\n"
    assert not any(definitions_in(node, "add") for node in ast.parse(USES[case]).body)
    assert result(find_program(text + USES[case], "add")) == 3
    assert (
        result(find_program(f"```python\n{text}```\nTest:\n```python\n{USES[case]}assert add(1, 2) == 3\n```", "add"))
        == 3
    )


def test_a_function_body_defines_nothing() -> None:
    for body in ("add = max(a, b)\nreturn add\n", "if a:\n    add = max(a, b)\n    return add\nreturn b\n"):
        assert not defines(body, "add")
        assert "def add" in str(find_program(body, "add", PROMPT)).replace(PROMPT, "def add")
    assert not defines("class A:\n    def add(self): return 1\n", "add")
    assert not defines("def other():\n    def add(a, b): return a\n", "add")


def test_a_long_chain_of_branches_is_read() -> None:
    text = "if a:\n    pass\n" + "elif a:\n    pass\n" * 90 + "else:\n    add = max\n"
    assert defines(text, "add")
    deep = "if a:\n    pass\n" + "elif a:\n    pass\n" * 20_000
    assert not defines(deep, "add")
