"""Files that are none, that are too large, or that grow when they are read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from harness.core.bounded_read import (
    check_files_in,
    compose_yaml,
    construct_yaml,
    open_regular,
    parse_json,
    read_bytes,
    read_json_object,
    read_text,
)
from harness.core.errors import UsageError

_SCALARS = st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text()
_VALUES = st.recursive(_SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)


def test_only_regular_files_are_opened_and_none_is_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("fifo")
    for path, kind in (
        (tmp_path / "fifo", "FIFO"),
        (tmp_path / "link", "FIFO"),
        (tmp_path, "folder"),
        (Path("/dev/zero"), "device"),
    ):
        with pytest.raises(UsageError, match=f"cannot be read: it is a {kind}"):
            open_regular(path)
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "missing")


def test_a_file_has_at_most_so_many_bytes(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"1234\r\n5")
    assert read_bytes(file, 7) == b"1234\r\n5" and read_text(file, 7) == "1234\n5"
    with pytest.raises(UsageError, match="it has 7 bytes, and such a file has at most 6"):
        read_bytes(file, 6)
    with pytest.raises(UsageError, match="more than 3 bytes"):
        read_bytes(Path("/proc/self/stat"), 3)  # which says that it has none


@pytest.mark.slow
@given(_VALUES)
def test_json_comes_back(value: object) -> None:
    assert parse_json(json.dumps(value)) == value


def test_deep_json_is_refused_and_named(tmp_path: Path) -> None:
    assert parse_json("[" * 64 + "]" * 64)
    for depth in (65, 900, 100_000):
        with pytest.raises(ValueError, match="nested"):
            parse_json("[" * depth + "]" * depth)
    for text, message in (("[1]", "not a JSON object"), ("{", "not valid JSON"), ('{"a":' * 99, "not valid JSON")):
        (tmp_path / "x.json").write_text(text)
        with pytest.raises(UsageError, match=f"x.json is {message}"):
            read_json_object(tmp_path / "x.json")


@given(_VALUES)
def test_yaml_comes_back(value: object) -> None:
    text = yaml.safe_dump(value)
    assert construct_yaml(compose_yaml(text)) == yaml.safe_load(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "a0: &a0 1\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 40)),
            "every alias written out",
        ),
        ("x: &a {b: *a}", "nested more than 64"),
        ("[" * 90 + "]" * 90, "nested more than 64"),
        ("[" * 100_000, "nested too deeply"),
        ("a: " + "9" * 100, "a number of 100 characters"),
        ("x" * 300_000, "more than 262144 characters"),
        ("a: !!bool 7", "does not fit"),
    ],
)
def test_yaml_that_grows_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        construct_yaml(compose_yaml(text))


def test_anchors_and_merges_are_fine() -> None:
    text = "a: &a {x: 1}\nb: {<<: *a, y: 2}\nc: [*a, *a]"
    assert construct_yaml(compose_yaml(text)) == {"a": {"x": 1}, "b": {"x": 1, "y": 2}, "c": [{"x": 1}] * 2}


def test_a_folder_for_a_library_holds_only_files(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("12345")
    (tmp_path / "weights.bin").write_text("12345")
    (tmp_path / "folder").mkdir()
    check_files_in(tmp_path, 5)
    with pytest.raises(UsageError, match=r"a\.json cannot be read: it has 5 bytes"):
        check_files_in(tmp_path, 4)
    (tmp_path / "nowhere").symlink_to("missing")
    with pytest.raises(UsageError, match="nowhere is a link to missing, which is not there"):
        check_files_in(tmp_path, 5)
    (tmp_path / "nowhere").unlink()
    os.mkfifo(tmp_path / "z")
    with pytest.raises(UsageError, match="z cannot be read: it is a FIFO"):
        check_files_in(tmp_path, 5)


@pytest.mark.slow
@pytest.mark.parametrize("unit", ["[", '{"a":', '[{"b": ['])
def test_nesting_is_refused_whatever_the_limit_of_the_process(unit: str) -> None:
    """A library may raise Python's limit; the parser would then run out of stack and end the process."""
    script = (
        "import sys; from harness.core.bounded_read import parse_json; sys.setrecursionlimit(10**9)\n"
        f"try: parse_json({unit!r} * 200_000)\n"
        "except ValueError as error: print(error)"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)
    assert found.stdout == "it is nested more than 64 levels deep\n"


def test_many_values_are_not_deep() -> None:
    rows = [{"a": [i, "[{"]} for i in range(20_000)]
    assert parse_json(json.dumps(rows)) == rows
