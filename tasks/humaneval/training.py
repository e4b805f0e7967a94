"""Training items for HumanEval, which has none: MBPP's programs as a function's head and docstring to be completed.

One raw example (shortened):

    prompt:  def remove_Occ(s, ch):\n    '''Remove first and last occurrence of a character ...
    body:        for i in range(len(s)): ...
"""

from __future__ import annotations

import ast
import textwrap
import warnings
from collections.abc import Mapping
from typing import Any

from tasks.source import indented, split_lines

_OPENING = "Write a python function to "
_INDENT = "    "


def as_completion(doc: Mapping[str, Any]) -> dict[str, str] | None:
    """An MBPP document as prompt, body and tests; None where the judged function is not the last thing in its code."""
    source = str(doc["code"]).rstrip() + "\n"
    try:
        with warnings.catch_warnings(action="ignore"):  # of odd escapes in their strings
            last = ast.parse(source).body[-1]
    except (SyntaxError, IndexError):
        return None
    if (
        not (isinstance(last, ast.FunctionDef) and last.name == doc["entry_point"])
        or last.body[0].lineno == last.lineno
    ):
        return None
    lines = split_lines(source)
    start = last.body[0].lineno - 1
    body = textwrap.dedent("".join(lines[start:]))
    head = "".join(lines[:start]).expandtabs(4)
    body = indented(body.expandtabs(4))
    return {
        "prompt": f"{head}{_docstring(doc['text'], doc['tests'])}",
        "body": body,
        "entry_point": str(doc["entry_point"]),
        "tests": str(doc["tests"]),
        "setup": str(doc["setup"]),
    }


def _docstring(text: str, tests: str) -> str:
    """The description without MBPP's set phrase, and the first assertion as an example."""
    said = text.strip().removeprefix(_OPENING).rstrip(".").replace('"""', "'''").replace("\\", "\\\\")
    shown = tests.splitlines()[0].removeprefix("assert ").replace('"""', "'''").replace("\\", "\\\\")
    return textwrap.indent(f'"""{said[:1].upper()}{said[1:]}.\n\n>>> {shown}\nTrue\n"""\n', _INDENT)
