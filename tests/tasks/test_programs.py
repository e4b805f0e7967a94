"""Which part of an answer is the program: each case is run on two numbers."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.programs import find_program

PROMPT = '''from typing import List

def helper(x):
    return x

def add(a: int, b: int) -> int:
    """Return the sum.
    >>> add(1, 2)
    3
    """
'''
WHOLE = "def add(a, b):\n    return a + b\n"
CASES = {
    "the body": "    return a + b\n",
    "the body without its first indent": "return a + b",
    "a longer body without its first indent": "s = a\n    s += b\n    return s",
    "a body not indented at all": "s = a\ns += b\nreturn s\n",
    "a body with tabs": "\treturn a + b\n",
    "a body, then use of it": "    return a + b\n\nprint(add(1, 2))\nassert add(1, 2) == 4\n",
    "a body, then prose": "    return a + b\n\nThis function adds things. Note: it works.\n",
    "a body, then another function that is cut": "    return a + b\n\ndef main():\n    print(1",
    "a body, then a better definition": "    return a - b\n\n" + WHOLE,
    "the whole function": WHOLE,
    (
        "a whole function that needs the prompt's import and helper"
    ): "def add(a: List[int], b):\n    return helper(a) + b\n",
    "a fence": f"Here:\n```python\n{WHOLE}```\nDone `x`.",
    "an open fence": f"Here:\n```python\n{WHOLE}",
    "a fence that the prompt opened": f"{WHOLE}```\nexplanation: this\n",
    "a fence of tildes": f"~~~python\n{WHOLE}~~~",
    "a fence with the body": "```python\n    return a + b\n```",
    "a fence with the body, not indented": "```\nreturn a + b\n```",
    "a fence in a list": "1. Do:\n   ```python\n   def add(a, b):\n       return a + b\n   ```\n",
    "another language first": f"```bash\npip install x\n```\n```python\n{WHOLE}```",
    "the prompt repeated": PROMPT + "    return a + b\n",
    "the prompt repeated in a fence": f"```python\n{PROMPT}    return a + b\n```",
    "imports and helpers": "import math\ndef h(x):\n    return math.floor(x)\n\ndef add(a, b):\n    return h(a) + b\n",
    "a helper in a fence of its own, and an example": "```python\ndef h(x):\n    return x\n```\nThen\n```python\n"
    "def add(a, b):\n    return h(a) + b\n```\n```python\nprint(add(1, 2))\nx = add(3, 4)\n```",
    "several definitions": "def add(a, b):\n    return a - b\n\nNo, wait.\n\n" + WHOLE,
    "several definitions, the last one cut": WHOLE + "\ndef add(a, b):\n    return (a +",
    "prose around": f"Sure! Here is the function:\n\n{WHOLE}\nIt adds a and b.\n",
    "a lambda": "add = lambda a, b: a + b\n",
    "Windows line ends": WHOLE.replace("\n", "\r\n"),
    "a main guard": WHOLE + 'if __name__ == "__main__":\n    input()\n',
    "a setting": "import sys\nsys.setrecursionlimit(10**5)\n" + WHOLE,
    "a decorator": "from functools import lru_cache\n@lru_cache(None)\n" + WHOLE,
    "a future import": "from __future__ import annotations\ndef add(a: Unknown, b):\n    return a + b\n",
    "a docstring at the margin": 'def add(a, b):\n    """\nAdds.\n    """\n    return a + b\nprose here it is\n',
    (
        "a class beside it"
    ): "class S:\n    def add(self, a, b):\n        return a + b\n\ndef add(a, b):\n    return S().add(a, b)\n",
    "a table made by a loop": "T = {}\nfor i in range(3):\n    T[i] = i\ndef add(a, b):\n    return a + b + T[0]\n",
    "a comment at the margin": "def add(a, b):\n# here it comes\n    return a + b\n",
    "reading input at the end": WHOLE + "n = int(input())\nm = n + 1\nprint(m)\n",
    "results of results": WHOLE + "r = add(1, 2)\ns = f'{r}'\nprint(s)\n",
    "an example in an unmarked fence": f"```python\n{WHOLE}```\nUse:\n```\nresult = a + b\n```",
    "ending the program": WHOLE + "import sys\nsys.exit(0)\n",
    "running unit tests": "import unittest\n" + WHOLE + "unittest.main()\n",
    "waiting": "import time\n" + WHOLE + "time.sleep(100)\n",
    "a table made by a call": "T = []\ndef fill():\n    for i in range(3):\n        T.append(0)\nfill()\n"
    "def add(a, b):\n    return a + b + T[2]\n",
    "an import that may fail": "try:\n    import math as m\nexcept ImportError:\n    print('no')\n"
    "def add(a, b):\n    return m.floor(a + b)\n",
    "a table made by a loop that prints": "T = {}\nfor i in range(3):\n    T[i] = 0\n    print(i)\n"
    "def add(a, b):\n    return a + b + T[2]\n",
    "a value changed later": "x = 0\nx += 0\ndef add(a, b):\n    return a + b + x\n",
    "constants made of constants": "A = 1\nB = A - 1\ndef add(a, b=B):\n    return a + b + B\n",
    "a global that is assigned inside": "c = 0\ndef add(a, b):\n    global c\n    c += 0\n    return a + b + c\n",
    "another name for it": "def _add(a, b):\n    return a + b\nadd = _add\n",
    "a leading space": " " + WHOLE,
    "all of it indented": "    def add(a, b):\n        return a + b\n",
    "a fence that closes behind the code": "```python\ndef add(a, b):\n    return a + b```",
    "the body behind prose": "Here is the body:\n\n    return a + b\n",
    "special tokens": "def add(a, b):\n    return a + b<|im_end|>",
    "text behind the end": WHOLE + "<|endoftext|>def add(a, b):\n    return 0\n",
    "another turn": WHOLE + "<end_of_turn>\n<start_of_turn>user\nAnd 0?<end_of_turn>\ndef add(a, b):\n    return 0\n",
    "another turn in brackets": WHOLE + "[INST] And 0? [/INST]\ndef add(a, b):\n    return 0\n",
    "its own turn's start": "<|im_start|>assistant\n" + WHOLE + "<|im_end|>\n<|im_start|>user\n",
    "an import that is missing here and not needed": "import no_such_package as np\nfrom another.one import thing\n"
    + WHOLE,
    "tests of its own": "import no_such_pytest\n"
    + WHOLE
    + "@no_such_pytest.mark\ndef test_add():\n    assert add(1, 2) == 4\n",
    "a helper called like a test": "def check(x):\n    return x\ndef add(a, b):\n    return check(a) + b\n",
    "a byte order mark": "\ufeff" + WHOLE,
    "HTML": f"<pre><code>{WHOLE}</code></pre>",
    "the body, then the prompt once more": "    return a + b\n\n\n" + PROMPT,
    "a stub behind it": WHOLE + "\ndef add(a, b): ...\n",
    "two statements in a line": "import os; print(1)\ndef add(a, b): return a + b\n",
}


@pytest.mark.parametrize("case", CASES)
def test_the_program_is_found(case: str) -> None:
    program = find_program(CASES[case], "add", PROMPT)
    space: dict[str, Any] = {"__name__": "candidate"}
    limit = sys.getrecursionlimit()
    try:
        exec(str(program), space)
    finally:
        sys.setrecursionlimit(limit)  # one of the programs raises it
    assert space["add"](1, 2) == 3


@pytest.mark.parametrize("prompt", [PROMPT, ""])
@pytest.mark.parametrize(
    "text", ["I cannot help with that.", "The function should return the sum of a and b.\nLet me think.", "  \n", ""]
)
def test_prose_is_no_code(text: str, prompt: str) -> None:
    assert find_program(text, "add", prompt) is None


@pytest.mark.parametrize("text", ["    return (a +", "def add(a, b):\n    x = (1 +\n", "    for x in a:\n        if x"])
def test_what_is_cut_off_stays_a_syntax_error(text: str) -> None:
    program = find_program(text, "add", PROMPT)
    assert program is not None and program.endswith(text)
    with pytest.raises(SyntaxError):
        compile(program, "cut", "exec")


def test_an_import_that_is_needed_stays_although_it_is_missing() -> None:
    assert "no_such_package" in str(
        find_program("import no_such_package as np\ndef add(a, b):\n    return np.add(a, b)\n", "add")
    )


def test_other_definitions_are_kept_so_that_the_entry_point_is_missed() -> None:
    for text in ("def other(a):\n    return 1\n", "class Solution:\n    def add(self, a, b): return a + b\n"):
        assert find_program(text, "add", PROMPT) == text.strip()
    assert find_program("x", "add", PROMPT) is None


def test_the_second_of_two_definitions_may_be_half_of_one_at_the_token_limit() -> None:
    text = WHOLE + "\ndef add(a, b):\n    c = a\n"
    assert "c = a" in str(find_program(text, "add")) and "c = a" not in str(find_program(text, "add", truncated=True))
    assert "c = a" in str(find_program("def add(a, b):\n    c = a\n", "add", truncated=True))


def test_without_a_prompt_the_text_must_define_it() -> None:
    assert find_program(f"So:\n\n{WHOLE}", "add") == find_program(WHOLE, "add")
    assert find_program("def other():\n    return 1\n", "add") == "def other():\n    return 1"


_LINES = st.sampled_from(
    [
        "def add(a, b):",
        "    return a",
        "```python",
        "```",
        '"""',
        "(",
        ")",
        "x = 1",
        "@d",
        "prose here",
        "\x00",
        "\\",
        "  ",
        "é",
    ]
)


@given(st.text() | st.lists(_LINES, max_size=30).map("\n".join))
def test_any_text_is_read_without_an_exception(text: str) -> None:
    for prompt in (PROMPT, ""):
        program = find_program(text, "add", prompt)
        assert program is None or program.strip()
