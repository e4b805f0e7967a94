"""Forms of answers around one function: each is read with and without the prompt, and run on two numbers."""

from __future__ import annotations

from typing import Any

import pytest

from tasks.programs import find_program
from tests.tasks.test_programs import PROMPT

WHOLE = "import math\ndef add(a, b):\n    return math.floor(a + b)\n"
LINE = "def add(a, b): return a + b"
FENCED = f"```python\n{WHOLE}```"
SESSION = ">>> import math\n>>> def add(a, b):\n...     return math.floor(a + b)\n...\n>>> add(1, 2)\n3\n"


def quoted(text: str) -> str:
    return "".join(f"> {line}\n" for line in text.split("\n"))


CASES = {
    "block quote": quoted(WHOLE),
    "fence in a block quote": quoted(f"The function:\n\n{FENCED}"),
    "block quote in a block quote": quoted(quoted(FENCED)),
    "block quote in prose": f"As asked:\n\n{quoted(FENCED)}\nThat is all.",
    "session": SESSION,
    "session in a fence": f"```python\n{SESSION}```",
    "session in a fence of its own language": f"Try:\n```pycon\n{SESSION}```\nIt works.",
    "session in a block quote": quoted(SESSION),
    "session of IPython": "In [1]: import math\n\nIn [2]: def add(a, b):\n   ...:     return math.floor(a + b)\n"
    "   ...: \n\nIn [3]: add(1, 2)\nOut[3]: 3\n",
    "session without prompts inside the function": f">>> {LINE[:14]}\n\treturn a + b\n\n>>> add(1, 2)\n3\n",
    "lambda in a session": ">>> add = lambda a, b: a + b\n>>> add(1, 2)\n3\n",
    "tag": f"[PYTHON]{WHOLE}[/PYTHON]",
    "tags on one line": f"[PYTHON]{LINE}[/PYTHON]",
    "answer tag": f"<answer>{WHOLE}</answer>",
    "answer tags on one line": f"<answer>{LINE}</answer>",
    "tags in tags": f"<answer>[PYTHON]{WHOLE}[/PYTHON]</answer>",
    "closing tag behind the code": f"[PYTHON]\n{WHOLE.strip()}[/PYTHON]",
    "lambda in tags": "[PYTHON]add = lambda a, b: a + b[/PYTHON]",
    "words": f"The code is: {WHOLE}",
    "words without a colon": f"Here you go. {LINE}",
    "heading": f"### Response: {WHOLE}",
    "bold words": f"**Solution:** {WHOLE}",
    "words and a lambda": "The code is: add = lambda a, b: a + b",
    "words in small letters": f"here it is: {WHOLE}",
    "list item": "1. def add(a, b):\n       return a + b\n",
    "single backticks": f"`{WHOLE}`",
    "single backticks on one line": f"`{LINE}`",
    "single backticks in prose": f"Use `{LINE}` for that.",
    "lambda in single backticks": "You can write `add = lambda a, b: a + b`.",
    "three backticks in prose": f"Use ```{LINE}``` for that.",
    "several spans": "Write\n`import math`\nand\n`def add(a, b): return math.floor(a + b)`\n",
    "one-line fence": f"```{LINE}```",
    "one-line fence with a language": f"```python {LINE} ```",
    "one-line fence behind words": f"Here: ```python {LINE}```",
    "lambda in a one-line fence": "```python add = lambda a, b: a + b```",
    "code on the opening fence's line": f"```python {WHOLE}```",
    "two one-line fences": "```python import math```\n```python def add(a, b): return math.floor(a + b)```",
    "closing fence behind a space": f"```python\n{LINE} ```\n```python\nprint(add(1, 2))\n```",
    "numbered fence": "1. ```python\n   import math\n   def add(a, b):\n       return math.floor(a + b)\n   ```\n2. Hm",
    "fence on a starred item": "* ```python\n  def add(a, b):\n      return a + b\n  ```\n",
    "fence on an item in an item": "- * ```python\n    def add(a, b):\n        return a + b\n    ```\n",
    "one-line fence on an item": f"1) ```python {LINE}```",
    "fence behind an item's words": f"1. First: ```python\n   {LINE}\n   ```\n",
    "fences on two items": "1. ```python\n   import math\n   ```\n2. ```python\n   def add(a, b):\n"
    "       return math.floor(a + b)\n   ```\n",
    "quotes as a fence": f"'''python\n{WHOLE}'''",
    "double quotes as a fence": f'"""\n{WHOLE}"""',
}
BODIES = {
    "single backticks": "`return a + b`",
    "one-line fence": "```python return a + b```",
    "fence on an item": "1. ```python\n   s = a\n   return s + b\n   ```\n",
    "block quote": "> ```python\n>     return a + b\n> ```\n",
}


def result(program: str | None) -> Any:
    space: dict[str, Any] = {"__name__": "candidate"}
    exec(str(program), space)
    return space["add"](1, 2)


@pytest.mark.parametrize("prompt", [PROMPT, ""], ids=["completion", "request"])
@pytest.mark.parametrize("case", CASES)
def test_the_function_is_found(case: str, prompt: str) -> None:
    assert result(find_program(CASES[case], "add", prompt)) == 3


@pytest.mark.parametrize("case", BODIES)
def test_the_body_is_found(case: str) -> None:
    assert result(find_program(BODIES[case], "add", PROMPT)) == 3


@pytest.mark.parametrize(
    "line",
    [
        "    `return a + b`",
        "    return a + b [0",
        "    > return a + b",
        "    return: return a + b",
    ],
)
def test_a_broken_line_is_not_repaired(line: str) -> None:
    program = find_program(f"def add(a, b):\n    s = [0]\n{line}\n", "add")
    with pytest.raises(SyntaxError):
        compile(str(program), "broken", "exec")


def test_what_stands_in_strings_and_comments_stays() -> None:
    text = (
        "def add(a, b):\n    page = '''\n> quoted\n>>> add(1, 2)\nSee: import math\n[PYTHON]x[/PYTHON]\n</div>\n'''\n"
        "    # Note: def add(a, b): return 0\n    d = {'x': lambda: 0}  # `code`\n    return a + b\n"
    )
    assert find_program(text, "add") == text


def test_a_function_in_a_comment_or_a_string_is_none() -> None:
    for text in (f"# {LINE}\n", f"#  {LINE}\n", f"print('{LINE}')\n", f"x = '''{LINE}'''\n"):
        with pytest.raises(KeyError):
            result(find_program(text, "add") or "")
