"""The YAML files of lm-eval's tasks: which one holds a task, and whether the user's own can be read at all."""

from __future__ import annotations

import functools
import importlib.util
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.core.bounded_read import compose_yaml, read_text
from harness.core.errors import UsageError, first_line
from harness.core.hashing import digest

_KEY = re.compile(rb"""^["']?(task|group|tag)["']?:[ \t]*["']?([^\s"'\[#]+)""", re.MULTILINE)
_FUNCTION = re.compile(r"!function\s+([\w.]+)\.\w+")


@functools.cache
def own_files() -> Mapping[str, Path]:
    """Name -> file of lm-eval's own tasks, groups and tags. Their texts are searched, since parsing the thousands of
    them takes ten times as long.
    """
    spec = importlib.util.find_spec("lm_eval")
    found: dict[str, Path] = {}
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for file in sorted((Path(folder) / "tasks").rglob("*.yaml")):
            for _, name in _KEY.findall(file.read_bytes()):
                found.setdefault(name.decode(errors="replace"), file)
    return found


def manager_of(folder: Path) -> Any:
    """lm-eval's TaskManager of the tasks in a folder alone; raises UsageError where it cannot read them."""
    from lm_eval.tasks import TaskManager

    try:
        return TaskManager(include_path=str(folder), include_defaults=False)
    except Exception as error:  # of YAML, of its tags, of what the files import
        raise UsageError(f"lm-eval cannot read the files in {folder} ({first_line(error)})") from error


def check_files(folder: Path) -> None:
    """Raises UsageError where this is not a folder, or a YAML file in it is one that lm-eval would read without end, or
    includes one.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder; give the one with your lm-eval YAML files")
    read_files(sorted(folder.glob("**/*.yaml")))


def content_hash(file: Path) -> str:
    """A hash of a task's YAML file, of those that it includes and of the Python files whose functions they name."""
    texts = read_files([file])
    code = {
        found
        for path, text in texts.items()
        for name in _FUNCTION.findall(text)
        if (found := path.parent / f"{name.replace('.', '/')}.py").is_file()
    }
    try:
        return digest([*texts.values(), *(read_text(path) for path in sorted(code))])
    except (OSError, ValueError) as error:
        raise UsageError(f"a Python file that {file} names cannot be read ({first_line(error)})") from error


def read_files(files: Sequence[Path]) -> dict[Path, str]:
    """The text of YAML files and of those that they include; raises UsageError where one cannot be read."""
    waiting, texts = list(files), dict[Path, str]()
    while waiting:
        file = waiting.pop()
        if file not in texts:
            texts[file], included = _read(file)
            waiting += [file.parent / name for name in included]
    return texts


def _read(file: Path) -> tuple[str, list[str]]:
    """The text of a task's YAML file, and the files that it includes."""
    import yaml

    try:
        text = read_text(file)
        root = compose_yaml(text)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UsageError(f"{file} cannot be read as YAML ({first_line(error)})") from error
    pairs = root.value if isinstance(root, yaml.MappingNode) else ()
    values = [value for key, value in pairs if key.value == "include"]
    named = [each for value in values for each in (value.value if isinstance(value, yaml.SequenceNode) else [value])]
    return text, [str(node.value) for node in named if isinstance(node, yaml.ScalarNode)]
