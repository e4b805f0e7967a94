"""Files that others made, read with limits: regular files only, so many bytes, so deep. Every file from outside is
opened here.
"""

from __future__ import annotations

import errno
import json
import os
import re
import stat
from collections.abc import Iterator, Mapping
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.core.errors import UsageError

if TYPE_CHECKING:
    import yaml

JSON_BYTES = 32 << 20
TEXT_BYTES = 4 << 20
YAML_BYTES = 256 << 10
_DEPTH = 64  # of nested JSON and YAML; run.json has 8 levels
_STACK_LEVELS = 10_000  # a stack of 8 MiB, the usual size, holds about 70,000
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.S)
_NO_BRACKETS = bytes(sorted(set(range(256)) - set(b"[]{}")))
_YAML_NODES = 20_000  # with every alias written out
_NUMBER_CHARACTERS = 64
_KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
    stat.S_IFDIR: "a folder",
}


def open_regular(path: Path, limit_bytes: int | None = None) -> BufferedReader:
    """Opens a regular file for reading, and waits for nothing.

    Args:
        path: The file, or a link to it.
        limit_bytes: The largest size; None for files that are read in pieces.

    Raises:
        OSError: There is none, or it may not be read.
        UsageError: It is something else than a file, or larger than the limit.
    """
    try:  # without O_NONBLOCK a FIFO would be waited for
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise UsageError(f"{path} cannot be read: it is a socket or a device; put a file there") from error
        raise
    try:
        _check(path, os.fstat(descriptor), limit_bytes)
    except BaseException:
        os.close(descriptor)
        raise
    return os.fdopen(descriptor, "rb")


def check_regular(path: Path, limit_bytes: int | None = None) -> None:
    """Raises what `open_regular` raises, for a file that a library will open; opens nothing itself."""
    _check(path, path.stat(), limit_bytes)


def _check(path: Path, found: os.stat_result, limit_bytes: int | None) -> None:
    if not stat.S_ISREG(found.st_mode):
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), "something else")
        raise UsageError(f"{path} cannot be read: it is {kind}; put a file there")
    if limit_bytes is not None and found.st_size > limit_bytes:
        raise UsageError(
            f"{path} cannot be read: it has {found.st_size} bytes, and such a file has at most {limit_bytes}; "
            "get the file again"
        )


def not_readable(path: str | Path, error: OSError) -> UsageError:
    """What to raise for a file or folder that is there and cannot be read."""
    reason = (error.strerror or type(error).__name__).lower()
    advice = "change its permissions" if isinstance(error, PermissionError) else "correct the path, or mend the disk"
    return UsageError(f"{str(path)[:200]} may not be read: {reason}; {advice}")


def check_permission(path: Path) -> None:
    """Raises UsageError where this user may not read a file; opens nothing."""
    if not os.access(path, os.R_OK, effective_ids=True):
        raise not_readable(path, PermissionError(errno.EACCES, os.strerror(errno.EACCES)))


def read_bytes(path: Path, limit_bytes: int) -> bytes:
    """The content of a file; raises what `open_regular` raises."""
    with open_regular(path, limit_bytes) as file:
        content = file.read(limit_bytes + 1)
    if len(content) > limit_bytes:  # files of /proc say that they have no bytes
        raise UsageError(f"{path} cannot be read: it has more than {limit_bytes} bytes; get the file again")
    return content


def read_text(path: Path, limit_bytes: int = TEXT_BYTES, errors: str = "strict") -> str:
    """The content of a UTF-8 file with "\\n" as line end.

    Raises what `open_regular` raises, and ValueError for other encodings.
    """
    text = read_bytes(path, limit_bytes).decode("utf-8", errors)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_json(path: Path, limit_bytes: int = JSON_BYTES) -> Any:
    """The value in a JSON file; raises what `open_regular` and `parse_json` raise."""
    return parse_json(read_bytes(path, limit_bytes))


def read_json_object(path: Path, limit_bytes: int = JSON_BYTES) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        OSError: There is no such file, or it may not be read.
        UsageError: It is not a file, too large, no JSON or not an object; the message names it.
    """
    try:
        value = read_json(path, limit_bytes)
    except ValueError as error:
        raise UsageError(f"{path} is not valid JSON ({error}); get the file again") from error
    if not isinstance(value, dict):
        raise UsageError(f"{path} is not a JSON object; get the file again")
    return value


def parse_json(text: bytes | str) -> Any:
    """The value of a JSON text; raises ValueError for a text that is not JSON, or is nested more than 64 deep."""
    if _may_end_the_process(text):
        raise ValueError(f"it is nested more than {_DEPTH} levels deep")
    try:
        value = json.loads(text)
        deep = _is_deep(value)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except MemoryError:
        raise ValueError("it does not fit into memory") from None
    if deep:
        raise ValueError(f"it is nested more than {_DEPTH} levels deep")
    return value


def _may_end_the_process(text: bytes | str) -> bool:
    """Whether a text is nested so deep that the parser could overflow the stack, where a library has raised Python's
    own limit. Few texts have so many brackets that they are looked at closely.
    """
    raw = text.encode(errors="replace") if isinstance(text, str) else text
    return _is_nested(raw) and _is_nested(_STRING.sub(b"", raw))


def _is_nested(text: bytes) -> bool:
    brackets = text.translate(None, _NO_BRACKETS)
    for _ in range(_DEPTH):
        if brackets.count(b"[") + brackets.count(b"{") < _STACK_LEVELS:
            return False
        brackets = brackets.replace(b"[]", b"").replace(b"{}", b"")
    return True


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(_DEPTH):
        level = [inner for outer in level for inner in _containers(outer)]
    return bool(level)


def _containers(value: Any) -> list[Any]:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [each for each in inner if isinstance(each, dict | list)]


def compose_yaml(text: str) -> yaml.Node | None:
    """The root node of a YAML text; None for an empty one.

    Raises:
        yaml.YAMLError: The text is not YAML.
        ValueError: It is nested too deeply, too large with its aliases written out, or has a number without end.
    """
    import yaml

    if len(text) > YAML_BYTES:
        raise ValueError(f"it has more than {YAML_BYTES} characters")
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    for count, (depth, inner) in enumerate(_yaml_nodes(node), 1):
        if depth > _DEPTH:
            raise ValueError(f"line {inner.start_mark.line + 1} is nested more than {_DEPTH} levels deep")
        if count > _YAML_NODES:
            raise ValueError(f"it has more than {_YAML_NODES} values, with every alias written out")
        if inner.tag.endswith((":int", ":float")) and len(inner.value) > _NUMBER_CHARACTERS:
            raise ValueError(f"line {inner.start_mark.line + 1} has a number of {len(inner.value)} characters")
    return node


def _yaml_nodes(root: yaml.Node | None) -> Iterator[tuple[int, yaml.Node]]:
    """(depth, node) of the tree; an alias counts as what it stands for, at every place."""
    waiting = [(1, root)] if root is not None else []
    while waiting:
        depth, node = waiting.pop()
        yield depth, node
        inner = node.value if isinstance(node.value, list) else ()
        waiting += [(depth + 1, child) for each in inner for child in (each if isinstance(each, tuple) else (each,))]


def construct_yaml(node: yaml.Node | None) -> Any:
    """The value of a node that `compose_yaml` returned; None for None.

    Raises:
        yaml.YAMLError: A tag of another language.
        ValueError: A tag that does not fit its value.
    """
    import yaml

    try:
        return yaml.SafeLoader("").construct_document(node) if node is not None else None
    except (AttributeError, IndexError, KeyError, TypeError, OverflowError) as error:  # as for `!!bool 7`
        raise ValueError("a tag does not fit its value") from error


def is_count(value: Any, most: int, least: int = 0) -> bool:
    """Whether a value of a file is an integer, not a bool, within bounds."""
    return type(value) is int and least <= value <= most


def check_files_in(folder: Path, text_bytes: int) -> None:
    """Raises what `open_regular` raises for each file of a folder, and UsageError for a link to nothing.

    Text files have at most `text_bytes`. For folders that a library reads: it would wait for a FIFO, and read a device
    without end.
    """
    texts: Mapping[str, int] = dict.fromkeys((".json", ".jinja", ".txt", ".model", ".md", ".yaml"), text_bytes)
    for file in sorted(folder.iterdir()):
        if file.is_symlink() and not file.exists():
            raise UsageError(
                f"{file} is a link to {file.readlink()}, which is not there; restore it, or remove the link"
            )
        if not file.is_dir():
            check_regular(file, texts.get(file.suffix))
