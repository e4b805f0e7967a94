"""Prints the picture of imports and the sizes: `python -m scripts.structure`. Exits 1 where a limit is exceeded.

A room is a folder of harness/ (or api.py); its level is one more than that of the deepest room it imports.
"""

from __future__ import annotations

import ast
import statistics
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("harness", "harness_prune", "pruning", "tasks", "recovery", "reports")
MOST_LEVELS, MOST_FILE_LINES, MOST_MEDIAN, MOST_P90 = 7, 400, 12, 40


def main() -> int:
    files = [file for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py"))]
    trees = {file: ast.parse(file.read_text(encoding="utf-8")) for file in files}
    rooms = room_imports({file: tree for file, tree in trees.items() if file.is_relative_to(ROOT / "harness")})
    levels = levels_of(rooms)
    lines = {file: len(file.read_text(encoding="utf-8").splitlines()) for file in files}
    lengths = sorted(length for tree in trees.values() for length in function_lengths(tree))
    longest = max(lines, key=lambda file: lines[file])
    median, p90 = statistics.median(lengths), lengths[int(0.9 * len(lengths))]
    for level in sorted(set(levels.values()), reverse=True):
        print(f"level {level}: {', '.join(sorted(room for room, at in levels.items() if at == level))}")
    print(f"{len(rooms)} rooms, {max(levels.values())} levels, {sum(map(len, rooms.values()))} edges, no circle")
    print(f"{len(files)} files, the longest {longest.relative_to(ROOT)} with {lines[longest]} lines")
    print(f"{len(lengths)} functions: median {median:g} lines, p90 {p90}, longest {lengths[-1]}")
    fits = max(levels.values()) <= MOST_LEVELS and lines[longest] <= MOST_FILE_LINES
    return 0 if fits and median <= MOST_MEDIAN and p90 <= MOST_P90 else 1


def room_imports(trees: Mapping[Path, ast.Module]) -> dict[str, set[str]]:
    """Room -> the other rooms of harness/ that its files import, inside functions too."""
    found: dict[str, set[str]] = {}
    for file, tree in trees.items():
        room = file.relative_to(ROOT / "harness").parts[0].removesuffix(".py")
        if room.startswith("__"):
            continue
        found.setdefault(room, set()).update(other for other in _imported(tree) if other != room)
    return {room: others & found.keys() for room, others in found.items()}


def _imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "harness":
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("harness."):
            yield str(node.module).split(".")[1]


def levels_of(rooms: Mapping[str, set[str]]) -> dict[str, int]:
    """Room -> level, 1 at the bottom; raises ValueError for a circle."""
    levels: dict[str, int] = {}
    while len(levels) < len(rooms):
        ready = [room for room, below in rooms.items() if room not in levels and below <= levels.keys()]
        if not ready:
            raise ValueError(f"a circle of imports among {', '.join(sorted(rooms.keys() - levels.keys()))}")
        levels |= {room: 1 + max((levels[below] for below in rooms[room]), default=0) for room in ready}
    return levels


def function_lengths(tree: ast.Module) -> Iterator[int]:
    """Lines of every function, decorators and docstring included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            yield int(node.end_lineno or node.lineno) - first + 1


if __name__ == "__main__":
    sys.exit(main())
