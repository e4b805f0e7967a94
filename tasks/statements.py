"""Which top-level statements of a model's program belong to it, and which only use it: examples, prints, its own
tests.
"""

from __future__ import annotations

import ast
import builtins
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from tasks.definitions import definitions_in, imported, is_own_module, only_reuses
from tasks.source import children

_Key = TypeVar("_Key")

_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom)
_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_LATER = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
_MAKERS = (*_DEFINITIONS, ast.arg, ast.ExceptHandler)
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
_GIVEN = frozenset({*dir(builtins), "__file__", "__doc__", "__builtins__"})  # to every program
_DRIVERS = re.compile(r"main|tests?|test_\w*|\w*_tests?|check|run_tests|demo|example")


@dataclass(frozen=True)
class _Names:
    """Of one statement: names that it reads, that it makes, and functions that it calls by name."""

    read: frozenset[str]
    made: frozenset[str]
    called: frozenset[str]
    needed: frozenset[str]  # read as it runs, not later in a function; none of a definition, or of one that may fail


def useful(nodes: Sequence[ast.stmt], entry_point: str) -> set[int]:
    """The id of every statement to keep: definitions and imports, what defines the entry point in another way, what
    makes the names that they read, and what works on those.

    A statement that only calls the entry point, gives its name to something else, waits for input or ends the program
    is never kept, nor one that reads what nothing kept makes. Every name is looked at once, so that the time grows with
    the program's length.
    """
    if any(definitions_in(node, entry_point) for node in nodes):
        nodes = [node for node in nodes if not only_reuses(node, entry_point)]
    names = {id(node): _names(node) for node in nodes}
    definitions = {id(node) for node in nodes if _is_wanted_anyway(node, entry_point)}
    candidates = [
        node for node in nodes if id(node) not in definitions and _may_belong(node, names[id(node)], entry_point)
    ]
    functions = {
        node.name: names[id(node)].read for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    return _founded(names, _reached(definitions, candidates, names, functions), definitions)


def _reached(
    definitions: set[int],
    candidates: Sequence[ast.stmt],
    names: Mapping[int, _Names],
    functions: Mapping[str, frozenset[str]],
) -> set[int]:
    """`definitions` and the candidates that make what a kept statement reads, or work on what one of them makes, or
    change a setting of the interpreter; `functions`: the names that a function reads.
    """
    makers, readers, callers = (
        _index((id(node), getattr(names[id(node)], kind)) for node in candidates) for kind in ("made", "read", "called")
    )
    workers = _index((name, read) for name, read in functions.items() if not _DRIVERS.fullmatch(name))
    kept: set[int] = set()
    read_seen: set[str] = set()
    made_seen: set[str] = set()
    waiting = [*definitions, *(id(node) for node in candidates if _is_setting(node))]
    while waiting:
        key = waiting.pop()
        if key in kept:
            continue
        kept.add(key)
        for name in names[key].read - read_seen:
            waiting += makers.get(name, ())
        read_seen |= names[key].read
        made = frozenset() if key in definitions else names[key].made - made_seen
        for name in made:
            waiting += readers.get(name, ())
            waiting += (node for worker in workers.get(name, ()) for node in callers.get(worker, ()))
        made_seen |= made
    return kept


def _index(rows: Iterable[tuple[_Key, Iterable[str]]]) -> dict[str, list[_Key]]:
    """name -> the keys that have it."""
    index: dict[str, list[_Key]] = {}
    for key, names in rows:
        for name in names:
            index.setdefault(name, []).append(key)
    return index


def _is_wanted_anyway(node: ast.stmt, entry_point: str) -> bool:
    """What defines the entry point; of the rest not an import that may be missing here, nor a driver: those are kept
    where something reads them.
    """
    if definitions_in(node, entry_point):
        return True
    if isinstance(node, ast.Import):
        return all(is_own_module(alias.name) for alias in node.names)
    if isinstance(node, ast.ImportFrom):
        return is_own_module(node.module)
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return not _DRIVERS.fullmatch(node.name)
    return False


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


def _is_setting(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr | ast.Assign) and any(
        isinstance(n, ast.Attribute) and n.attr in _SETTINGS for n in ast.walk(node)
    )


def _founded(names: Mapping[int, _Names], kept: set[int], definitions: set[int]) -> set[int]:
    """Without statements that read, as they run, what no kept statement makes; `definitions` stay."""
    makers = Counter(name for key in kept for name in names[key].made)
    readers = _index((key, names[key].needed - _GIVEN) for key in kept - definitions)
    waiting = [name for name in readers if not makers[name]]
    kept = set(kept)
    while waiting:
        for key in readers[waiting.pop()]:
            if key in kept:
                kept.discard(key)
                makers.subtract(names[key].made)
                waiting += (name for name in names[key].made if not makers[name] and name in readers)
    return kept


def _names(node: ast.stmt) -> _Names:
    read: set[str] = set()
    made: set[str] = set()
    called: set[str] = set()
    needed: set[str] = set()
    of_module: set[str] = set()  # declared global: the module's, although it is assigned in a function
    for child, later in _walk(node):
        if isinstance(child, ast.Name):
            if not isinstance(child.ctx, ast.Load):
                made.add(child.id)
                continue
            read.add(child.id)
            if not later:
                needed.add(child.id)
        elif isinstance(child, ast.Call):
            if isinstance(child.func, ast.Name):
                called.add(child.func.id)
        elif isinstance(child, ast.Global):
            of_module.update(child.names)
        elif isinstance(child, _MAKERS):
            made.update(_made_by(child))
    if isinstance(node, _SCOPES):
        own = frozenset(read - (made - {node.name}) | of_module)
        return _Names(own, frozenset({node.name}), frozenset(called), frozenset())
    changed = {node.target.id} if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name) else set()
    needed = set() if isinstance(node, (ast.Import, ast.ImportFrom, ast.Try)) else needed - made | changed
    return _Names(frozenset(read - made | changed), frozenset(made), frozenset(called), frozenset(needed))


def _walk(node: ast.AST) -> Iterator[tuple[ast.AST, bool]]:
    """Every node of the tree, and whether it stands in a function, which runs later."""
    waiting = [(node, False)]
    while waiting:
        one, later = waiting.pop()
        yield one, later
        later = later or isinstance(one, _LATER)
        waiting += [(child, later) for child in children(one)]


def _made_by(node: ast.AST) -> set[str]:
    """Names that come with something else than a name: arguments, imports, definitions, caught exceptions."""
    if isinstance(node, ast.arg):
        return {node.arg}
    if isinstance(node, ast.Import | ast.ImportFrom):
        return imported(node)
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {node.name}
    return {node.name} if isinstance(node, ast.ExceptHandler) and node.name else set()
