"""A YAML file of settings: its values, and the line of each, so that an error can say where it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from harness.core.bounded_read import compose_yaml, construct_yaml, read_text
from harness.core.errors import UsageError


@dataclass(frozen=True)
class YamlFile:
    """`lines`: the path of a setting's keys -> its line, from 1."""

    name: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)
    lines: Mapping[tuple[str, ...], int] = field(default_factory=dict)
    problems: tuple[str, ...] = ()

    def place(self, keys: tuple[str, ...]) -> str | None:
        """file:line of a setting, or of the nearest one around it; None where the file does not have it."""
        for length in range(len(keys), 0, -1):
            if line := self.lines.get(keys[:length]):
                return f"{self.name}:{line}"
        return None


def read_yaml(file: Path | None) -> YamlFile:
    """Reads a file of settings; None is an empty one. Keys that are given twice or are not text become `problems`.

    Raises:
        UsageError: The file cannot be read, or is not a YAML mapping.
    """
    if file is None:
        return YamlFile()
    try:
        node = compose_yaml(read_text(file))
        found = list(_keys(node, ()))  # before values are made of it, which resolves what is merged in
        values = construct_yaml(node) if node is not None else {}
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{file}:{mark.line + 1}" if mark else str(file)
        raise UsageError(
            f"{where} cannot be read as YAML ({getattr(error, 'problem', None) or str(error).splitlines()[0]})"
        ) from error
    except (OSError, ValueError) as error:
        raise UsageError(f"{file} cannot be read ({error})") from error
    if not isinstance(values, dict):
        raise UsageError(f"{file} must hold one mapping of settings, like `ratio: 0.2`")
    lines: dict[tuple[str, ...], int] = {}
    problems = []
    for keys, line in found:
        if keys[-1:] == ("<<",):
            continue
        if keys in lines:
            problems.append(f"{file}:{line}: {'.'.join(keys)} is given twice, first on line {lines[keys]}")
        lines.setdefault(keys, line)
    problems += [f"{file}: {key!r} is not the name of a setting" for key in values if not isinstance(key, str)]
    return YamlFile(
        str(file), {key: value for key, value in values.items() if isinstance(key, str)}, lines, tuple(problems)
    )


def _keys(node: yaml.Node | None, above: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], int]]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            here = (*above, str(key.value))
            yield here, key.start_mark.line + 1
            yield from _keys(value, here)
    elif isinstance(node, yaml.SequenceNode):
        for i, value in enumerate(node.value):
            yield (*above, str(i)), value.start_mark.line + 1
