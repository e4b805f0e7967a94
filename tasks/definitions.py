"""Whether and where a model's program defines a name: a function, a class, an assignment or an import, at the top level
or in the branches of an if, try, with or match there.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable, Iterator

from tasks.source import parts

_BRANCHING = (ast.If, ast.Try, ast.TryStar, ast.With, ast.Match, ast.ExceptHandler, ast.match_case)
_BLOCKS = (*_BRANCHING, ast.For, ast.While)
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_DATA = (ast.Constant, ast.JoinedStr, ast.Dict, ast.Set, ast.BinOp, ast.Compare, *_COMPREHENSIONS)  # cannot be called
_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda, *_COMPREHENSIONS)


def defines(code: str, name: str) -> bool:
    """Whether the code holds a definition of `name` that is not part of a function's body.

    A head of a function at the margin is enough; everything else is looked for only in what parses.
    """
    if not re.search(rf"\b{re.escape(name)}\b", code):
        return False
    if re.search(rf"^\f*(?:async[ \t]+)?(?:def|class)[ \t]+{re.escape(name)}\b", code, re.M):
        return True
    nodes = [node for _, tree in parts(code) for node in tree.body]
    return any(definitions_in(node, name) for node in nodes) and not _returns(nodes)


def definitions_in(node: ast.stmt, name: str) -> list[ast.stmt]:
    """The statements that define `name`: the top-level statement itself, or those in its branches.

    `name = name(1)` and `name = 0` use the name for something else; an import of a module that is not Python's own
    defines nothing here.
    """
    return [found for found in _in_branches([node], _BRANCHING) if name in _defined(found)]


def only_reuses(node: ast.stmt, name: str) -> bool:
    """Whether the top-level statement gives the name to something that is no definition of it."""
    if definitions_in(node, name):
        return False
    waiting: list[ast.AST] = [node]
    while waiting:
        one = waiting.pop()
        if isinstance(one, ast.Name) and one.id == name and isinstance(one.ctx, ast.Store):
            return True
        if isinstance(one, ast.Import | ast.ImportFrom) and name in imported(one):
            return True
        waiting += [] if isinstance(one, _SCOPES) else ast.iter_child_nodes(one)
    return False


def is_own_module(name: str | None) -> bool:
    """Whether a module, perhaps one in a package, belongs to Python's standard library."""
    return str(name).partition(".")[0] in sys.stdlib_module_names


def imported(node: ast.Import | ast.ImportFrom) -> set[str]:
    """The names that an import makes."""
    return {(alias.asname or alias.name).partition(".")[0] for alias in node.names}


def _in_branches(nodes: Iterable[ast.AST], opened: tuple[type, ...]) -> Iterator[ast.stmt]:
    """The statements, in order, with those of `opened` kinds replaced by what they hold."""
    waiting = [*nodes][::-1]
    while waiting:
        node = waiting.pop()
        if isinstance(node, opened):
            waiting += [*ast.iter_child_nodes(node)][::-1]
        elif isinstance(node, ast.stmt):
            yield node


def _returns(nodes: Iterable[ast.stmt]) -> bool:
    """A return outside functions: the code is a function's body."""
    return any(isinstance(node, ast.Return) for node in _in_branches(nodes, _BLOCKS))


def _defined(node: ast.stmt) -> set[str]:
    """The names that a statement without branches defines."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {node.name}
    if isinstance(node, ast.ImportFrom):
        return imported(node) if is_own_module(node.module) and not node.level else set()
    if isinstance(node, ast.Import):
        return imported(node) if all(is_own_module(alias.name) for alias in node.names) else set()
    pairs = [pair for target, value in _assignments(node) for pair in _pairs(target, value)]
    return {name for name, value in pairs if not isinstance(value, _DATA) and not _calls(value, name)}


def _assignments(node: ast.stmt) -> list[tuple[ast.expr, ast.expr]]:
    if isinstance(node, ast.Assign):
        return [(target, node.value) for target in node.targets]
    if isinstance(node, ast.AnnAssign) and node.value:
        return [(node.target, node.value)]
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.NamedExpr):
        return [(node.value.target, node.value.value)]
    return []


def _pairs(target: ast.expr, value: ast.expr) -> Iterator[tuple[str, ast.expr]]:
    """Of `a, (b, c) = 1, x`: a and 1, b and x, c and x."""
    waiting = [(target, value)]
    while waiting:
        target, value = waiting.pop()
        if isinstance(target, ast.Name):
            yield target.id, value
        elif isinstance(target, ast.Starred):
            waiting.append((target.value, value))
        elif isinstance(target, ast.Tuple | ast.List):
            n = len(target.elts)
            values = value.elts if isinstance(value, ast.Tuple | ast.List) and len(value.elts) == n else [value] * n
            waiting += zip(target.elts, values, strict=True)


def _calls(value: ast.expr, name: str) -> bool:
    """Whether an expression calls `name` as it is evaluated."""
    waiting: list[ast.AST] = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, ast.Call) and isinstance(one.func, ast.Name) and one.func.id == name:
            return True
        waiting += [] if isinstance(one, ast.Lambda) else ast.iter_child_nodes(one)
    return False
