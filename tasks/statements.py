"""Which top-level statements of a model's program belong to it, and which only use it: examples, prints, its own
tests.
"""

from __future__ import annotations

import ast
import builtins
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass

_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom)
_NEVER = {"input", "exit", "quit", "breakpoint"}  # calls that wait or end
_SETTINGS = {
    "setrecursionlimit",
    "set_int_max_str_digits",
    "seed",
    "getcontext",
    "filterwarnings",
    "simplefilter",
    "setlocale",
}
_DRIVERS = re.compile(r"main|tests?|test_\w*|\w*_tests?|check|run_tests|demo|example")


@dataclass(frozen=True)
class _Names:
    """Of one statement: names that it reads, that it makes, and functions that it calls by name."""

    read: frozenset[str]
    made: frozenset[str]
    called: frozenset[str]


def useful(nodes: Sequence[ast.stmt], entry_point: str) -> set[int]:
    """The id of every statement to keep: definitions and imports, what makes the names that they read, and what works
    on those.

    A statement that calls the entry point, waits for input or ends the program is never kept, nor one that reads what
    nothing kept makes.
    """
    names = {id(node): _names(node) for node in nodes}
    kept = {id(node) for node in nodes if isinstance(node, _DEFINITIONS) and _is_wanted_anyway(node, entry_point)}
    functions = {
        node.name: names[id(node)].read for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    candidates = [node for node in nodes if id(node) not in kept and _may_belong(node, names[id(node)], entry_point)]
    data: set[str] = set()  # names made by kept statements that are no definitions
    changed = True
    while changed:
        wanted = {name for key in kept for name in names[key].read}
        more = [
            node
            for node in candidates
            if id(node) not in kept and _belongs(node, names[id(node)], wanted, data, functions)
        ]
        changed = bool(more)
        kept |= {id(node) for node in more}
        data |= {name for node in more for name in names[id(node)].made}
    return _founded(nodes, names, kept)


def _is_wanted_anyway(node: ast.stmt, entry_point: str) -> bool:
    """Not an import that may be missing here, nor a driver; those are kept where something reads them."""
    if isinstance(node, ast.Import):
        return all(alias.name.partition(".")[0] in sys.stdlib_module_names for alias in node.names)
    if isinstance(node, ast.ImportFrom):
        return str(node.module).partition(".")[0] in sys.stdlib_module_names
    return getattr(node, "name", "") == entry_point or not _DRIVERS.fullmatch(getattr(node, "name", ""))


def _may_belong(node: ast.stmt, names: _Names, entry_point: str) -> bool:
    if isinstance(node, _DEFINITIONS):
        return True
    if isinstance(node, ast.Assert | ast.Return) or (isinstance(node, ast.AnnAssign) and node.value is None):
        return False
    if isinstance(node, ast.Expr) and (
        not isinstance(node.value, ast.Call) or ("print" in names.called and _calls(node, "print"))
    ):
        return False
    return "__name__" not in names.read and not names.called & {entry_point, *_NEVER}


def _calls(node: ast.Expr, name: str) -> bool:
    call = node.value
    return isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == name


def _belongs(
    node: ast.stmt, names: _Names, wanted: set[str], data: set[str], functions: dict[str, frozenset[str]]
) -> bool:
    if names.made & wanted or names.read & data:
        return True
    if isinstance(node, ast.Expr | ast.Assign) and any(
        isinstance(n, ast.Attribute) and n.attr in _SETTINGS for n in ast.walk(node)
    ):
        return True
    workers = {name for name in names.called & functions.keys() if not _DRIVERS.fullmatch(name)}
    return any(functions[name] & data for name in workers)


def _founded(nodes: Sequence[ast.stmt], names: dict[int, _Names], kept: set[int]) -> set[int]:
    """Without statements that read, as they run, what no kept statement makes."""
    while True:
        made = (
            {name for key in kept for name in names[key].made}
            | set(dir(builtins))
            | {"__file__", "__doc__", "__builtins__"}
        )
        loose = {
            id(node)
            for node in nodes
            if id(node) in kept and not isinstance(node, (*_DEFINITIONS, ast.Try)) and not names[id(node)].read <= made
        }
        if not loose:
            return kept
        kept = kept - loose


def _names(node: ast.stmt) -> _Names:
    read: set[str] = set()
    made: set[str] = set()
    called: set[str] = set()
    for child in ast.walk(node):
        if isinstance(child, ast.Name):
            (read if isinstance(child.ctx, ast.Load) else made).add(child.id)
        else:
            made.update(_made_by(child))
        if isinstance(child, ast.Call) and isinstance(child.func, ast.Name):
            called.add(child.func.id)
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return _Names(
            frozenset(read - (made - {node.name})) | _globals(node), frozenset({node.name}), frozenset(called)
        )
    changed = {node.target.id} if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name) else set()
    return _Names(frozenset(read - made | changed), frozenset(made), frozenset(called))


def _made_by(node: ast.AST) -> set[str]:
    """Names that come with something else than a name: arguments, imports, definitions, caught exceptions."""
    if isinstance(node, ast.arg):
        return {node.arg}
    if isinstance(node, ast.Import | ast.ImportFrom):
        return {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {node.name}
    return {node.name} if isinstance(node, ast.ExceptHandler) and node.name else set()


def _globals(node: ast.stmt) -> frozenset[str]:
    """What a definition declares global: it is the module's although it is assigned inside."""
    return frozenset(name for child in ast.walk(node) if isinstance(child, ast.Global) for name in child.names)
