"""Python source as the parser sees it: its lines, its parts that parse, and the lines of a statement."""

from __future__ import annotations

import ast
import functools
import re
import warnings
from collections.abc import Set

_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")
# at the start of a line that ends what is above it
_CONTINUES = re.compile(r"[)\]}]|(?:else|elif|except|finally)\b|\"\"\"|'''")
_MOST_PARTS, _MOST_MERGES = 2_000, 30  # top-level parts, parts put together again


def split_lines(source: str) -> list[str]:
    r"""The lines with their ends, numbered as in `lineno`: they end at \n, \r and \r\n.

    str.splitlines() also ends them at form feeds, U+2028 and other characters that may stand inside a string.
    """
    return _LINE.findall(source)


def indented(source: str) -> str:
    """The source as a block: four spaces before every line that holds something."""
    return "".join("    " + line if line.strip() else line for line in split_lines(source))


def lines_of(node: ast.stmt) -> range:
    """The numbers of a statement's lines, decorators included."""
    first = min((decorator.lineno for decorator in getattr(node, "decorator_list", ())), default=node.lineno)
    return range(first, (node.end_lineno or node.lineno) + 1)


def children(node: ast.AST) -> list[ast.AST]:
    """The nodes right below, in no order that counts; without the marks on names, whether they are read or written."""
    found: list[ast.AST] = []
    for field in node._fields:
        value = getattr(node, field, None)
        if isinstance(value, list):
            found += [part for part in value if isinstance(part, ast.AST)]
        elif isinstance(value, ast.AST) and field != "ctx":
            found.append(value)
    return found


def without_lines(source: str, gone: Set[int]) -> str:
    """The source without the lines of these numbers."""
    return "".join(line for number, line in enumerate(split_lines(source), 1) if number not in gone)


@functools.lru_cache(maxsize=4)  # one text is asked for several times in a row
def parsed(source: str) -> ast.Module | None:
    """The syntax tree; None where the source is no Python, or too deep for the parser."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError):
        return None


@functools.lru_cache(maxsize=4)
def parts(source: str) -> tuple[tuple[str, ast.Module], ...]:
    """The source with its tree; where it does not parse, the top-level parts that do.

    A part with an open string or bracket is tried together with what follows.
    """
    if whole := parsed(source):
        return ((source, whole),)
    pieces, found, at, merges = _pieces(source), [], 0, 0
    while at < len(pieces):
        part, tree, size = pieces[at], parsed(pieces[at]), 1
        while tree is None and _is_open(part) and at + size < len(pieces) and merges < _MOST_MERGES:
            part, merges, size = part + pieces[at + size], merges + 1, size + 1
            tree = parsed(part)
        found += [(part, tree)] if tree else []
        at += size if tree else 1
    return tuple(found)


def _pieces(source: str) -> list[str]:
    """Cut before every line that is not indented, but for decorators' functions and lines that go on."""
    pieces: list[list[str]] = []
    decorated = False
    for line in split_lines(source):
        begins = bool(line.strip()) and line[0] not in " \t" and not _CONTINUES.match(line) and not decorated
        if begins and len(pieces) < _MOST_PARTS:
            pieces.append([])
        pieces[-1].append(line) if pieces else pieces.append([line])
        decorated = line.startswith("@")
    return ["".join(piece) for piece in pieces]


def _is_open(part: str) -> bool:
    return (
        part.count('"""') % 2 == 1
        or part.count("'''") % 2 == 1
        or any(part.count(a) > part.count(b) for a, b in ("()", "[]", "{}"))
    )
