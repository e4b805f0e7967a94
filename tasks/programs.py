"""The program in a model's answer: out of fences or prose, completed by the prompt where the answer is only a
function's body.

What is kept: imports, definitions and what they need; what is dropped: prose, usage examples, the model's own asserts,
definitions that are cut off. Of several definitions of the entry point the last complete one counts. Python's own
parser decides, and nothing is run.
"""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterator, Set

from tasks.definitions import defines, definitions_in
from tasks.markup import is_code, readings
from tasks.source import indented, lines_of, parsed, parts, without_lines
from tasks.statements import useful

_FUTURE = re.compile(r"^from __future__ import .*\n?", re.M)
_LONGEST = 200_000  # characters


def find_program(text: str, entry_point: str, prompt: str = "", truncated: bool = False) -> str | None:
    """The whole program to run.

    Args:
        text: a model's answer.
        entry_point: the function that was asked for.
        prompt: what the model had to complete, a function's head after imports and helpers; "" for a request in prose.
        truncated: the token limit cut the text, so that a second definition at its end may be half of one.

    Returns:
        None where the text holds no code. Incomplete code is returned as it is, so that running it gives syntax_error,
        and code without the entry point, so that running it gives no_entry_point.
    """
    text = re.sub("\r\n?", "\n", text[:_LONGEST])  # as Python reads them, in strings too
    codes: list[str] = []
    for reading in readings(text, entry_point):
        codes.append(_at_the_margin(reading, entry_point))
        if program := _complete(codes[-1], entry_point, prompt, truncated):
            return program
    return next((program for code in codes if (program := _incomplete(code, entry_point, prompt))), None)


def _complete(code: str, entry_point: str, prompt: str, truncated: bool) -> str | None:
    """The cleaned program where the code holds a whole definition of the entry point, or is the prompt's body."""
    if _is_whole(code, entry_point):
        return _assembled(before_definition(prompt, entry_point) + code, entry_point, truncated)
    if not prompt or ((tree := parsed(code)) and not _is_body(tree)):
        return None
    programs = (_assembled(prompt + body, entry_point, truncated) for body in _bodies(code))
    return next(filter(None, programs), None)


def _incomplete(code: str, entry_point: str, prompt: str) -> str | None:
    """What there is to run where no reading gives a complete program."""
    if not code.strip():
        return None
    if _is_whole(code, entry_point):
        return before_definition(prompt, entry_point) + code
    if not prompt:
        return _clean(code, entry_point).strip() or (code if is_code(code) else None)
    if (tree := parsed(code)) and not _is_body(tree):
        return _clean(code, entry_point).strip() or None
    return prompt + code if is_code(code) else None


def _is_whole(code: str, entry_point: str) -> bool:
    """The code holds the definition, and does not begin as the body of the prompt's function."""
    return defines(code, entry_point) and code.lstrip("\n")[:1] not in (" ", "\t")


def _at_the_margin(code: str, entry_point: str) -> str:
    """Without the indentation of the whole, or of the first line alone, where that hides a definition."""
    if defines(code, entry_point):
        return code
    plain = textwrap.dedent(code).lstrip("\n")
    for candidate in (plain, plain.lstrip()):
        if defines(candidate, entry_point) and re.match(r"(?:def|class|import|from|async|if|try|with)\b|@", candidate):
            return candidate
    return code


def _is_body(tree: ast.Module) -> bool:
    """It may stand inside a function: there is more than definitions, imports and single names."""
    beside = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom)
    return any(
        not isinstance(node, beside)
        and not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Name | ast.Constant))
        for node in tree.body
    )


def before_definition(prompt: str, entry_point: str) -> str:
    """The prompt's imports and helpers."""
    match = re.search(rf"^(?:async\s+)?def\s+{re.escape(entry_point)}\b", prompt, re.M)
    return prompt[: match.start()] if match else prompt


def _bodies(code: str) -> Iterator[str]:
    """The answer as a function's body: as it is, all of it indented, only its first line, or what is indented behind
    prose.
    """
    yield code
    body = indented(textwrap.dedent(code).strip("\n")) + "\n"
    if parsed("def f():\n" + body):
        yield body
    yield "    " + code.lstrip()
    if inner := re.search(r"^[ \t]+\S", code, re.M):
        yield code[inner.start() :]


def _assembled(source: str, entry_point: str, truncated: bool) -> str | None:
    """The cleaned program, where it holds a complete definition of the entry point that does something."""
    program = _without_stubs(_clean(source, entry_point), entry_point, truncated)
    future = "".join(_FUTURE.findall(program))
    program = future + _FUTURE.sub("", program) if future else program
    definitions = _definitions(program, entry_point)
    if not definitions or all(_is_empty(node) for node in definitions_in(definitions[-1], entry_point)):
        return None
    return program


def _definitions(program: str, entry_point: str) -> list[ast.stmt]:
    """The top-level statements in which the entry point is defined."""
    tree = parsed(program)
    return [node for node in tree.body if definitions_in(node, entry_point)] if tree else []


def _without_stubs(program: str, entry_point: str, truncated: bool) -> str:
    """Without later definitions of the entry point that do nothing, as a repeated prompt, or that the token limit may
    have cut.
    """
    definitions = _definitions(program, entry_point)
    real = [node for node in definitions if not all(map(_is_stub, definitions_in(node, entry_point)))]
    if len(real) > 1 and truncated and definitions[-1] is real[-1]:
        real.pop()
    if not real:
        return program
    later = definitions[definitions.index(real[-1]) + 1 :]
    return without_lines(program, {line for node in later for line in lines_of(node)})


def _is_stub(node: ast.stmt) -> bool:
    body = getattr(node, "body", None)
    nothing = (ast.Pass, ast.Import, ast.ImportFrom)
    return isinstance(body, list) and all(isinstance(part, nothing) or _is_constant(part) for part in body)


def _is_constant(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _is_empty(node: ast.stmt) -> bool:
    """Nothing but what a prompt's head may hold, a docstring and imports, and single words of prose."""
    body = getattr(node, "body", None)
    return isinstance(body, list) and all(
        isinstance(part, ast.Import | ast.ImportFrom) or _is_text(part) for part in body
    )


def _is_text(node: ast.stmt) -> bool:
    """A string or a name that stands alone."""
    value = node.value if isinstance(node, ast.Expr) else None
    return isinstance(value, ast.Name) or (isinstance(value, ast.Constant) and isinstance(value.value, str))


def _clean(source: str, entry_point: str) -> str:
    """Top-level statements that make a program; parts that do not parse are left out."""
    trees = parts(source)
    kept = useful([node for _, tree in trees for node in tree.body], entry_point)
    return "\n".join(_kept(part, tree, kept) for part, tree in trees)


def _kept(part: str, tree: ast.Module, kept: Set[int]) -> str:
    """The part without statements that only use the program; lines that a kept statement shares stay."""
    held: set[int] = set()
    gone: set[int] = set()
    for node in tree.body:
        (held if id(node) in kept else gone).update(lines_of(node))
    return without_lines(part, gone - held)
