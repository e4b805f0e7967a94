"""JSON Lines are read back as they were written, whatever their texts hold; bad lines are named."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.core.errors import UsageError
from harness.core.jsonl import numbered_rows, read_rows, to_line, write_rows

# what str.splitlines, Python's universal newlines or a decoder would take apart, more often than chance has it
BREAKS = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029\ufeff\x00\ud800\udfff😀"
TEXTS = st.text(st.one_of(st.characters(), st.sampled_from(BREAKS)), max_size=20)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(10**30), 10**30), st.floats(allow_nan=False), TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXTS, inner, max_size=4)),
    max_leaves=8,
)


@pytest.mark.slow
@given(rows=st.lists(st.dictionaries(TEXTS, VALUES, max_size=4), max_size=5))
def test_any_rows_are_read_back_equal(rows: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    rows = [_joined(row) for row in rows]
    write_rows(path, rows)
    assert read_rows(path) == rows
    assert path.read_bytes().count(b"\n") == len(rows)


def _joined(value: Any) -> Any:
    """Two halves of a surrogate pair side by side are one character in JSON, as in UTF-16."""
    if isinstance(value, str):
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
    if isinstance(value, list):
        return [_joined(item) for item in value]
    return {_joined(key): _joined(item) for key, item in value.items()} if isinstance(value, dict) else value


def test_texts_stay_readable() -> None:
    assert to_line({"a": "é\u2028😀"}) == '{"a": "é\u2028😀"}\n'
    assert to_line({"a": "é\ud800"}) == '{"a": "\\u00e9\\ud800"}\n'


@given(cut=st.integers(0, 200))
def test_a_file_cut_anywhere_gives_its_whole_rows(cut: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("cut") / "rows.jsonl"
    rows = [{"n": i, "text": "é😀" * i} for i in range(6)]
    raw = "".join(map(to_line, rows)).encode()
    path.write_bytes(raw[:cut])
    whole = sum(len(to_line(row).encode()) - 1 <= left for row, left in zip(rows, _left(raw, cut), strict=True))
    assert read_rows(path, cut_short=True) == rows[:whole]


def _left(raw: bytes, cut: int) -> list[int]:
    """Bytes before the cut, counted from the start of each row."""
    starts = [0, *(i + 1 for i, byte in enumerate(raw[:-1]) if byte == ord("\n"))]
    return [cut - start for start in starts]


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b'{"a": 1}\n\n{"a"\n', "line 3 is not JSON"),
        (b'{"a": "\xff"}\n', "line 1 is not JSON"),
        (b'{"a": 1}\n[1]\n', "line 2 is not a JSON object"),
        (b'{"a": 1} {"b": 2}\n', "line 1 is not JSON"),
        (b'{"a": ' + b"[" * 100_000 + b"\n", "line 1 is not JSON"),
    ],
)
def test_a_bad_line_is_named(raw: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(raw)
    with pytest.raises(UsageError, match=said) as caught:
        read_rows(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_marks_blank_lines_and_windows_line_ends_are_read_over(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\r\n{"a": 2}')
    assert list(numbered_rows(path)) == [(1, {"a": 1}), (3, {"a": 2})]


def test_packed_files_and_files_that_are_none(tmp_path: Path) -> None:
    packed = tmp_path / "rows.jsonl.gz"
    packed.write_bytes(gzip.compress(b'{"a": "\xe2\x80\xa8"}\n'))
    assert read_rows(packed) == [{"a": "\u2028"}]
    packed.write_bytes(b"no archive")
    for path in (packed, tmp_path / "missing.jsonl", tmp_path):
        with pytest.raises(UsageError, match="cannot be read"):
            read_rows(path)


@pytest.mark.parametrize("name", ["endless.jsonl", "endless.jsonl.gz"])
def test_a_line_without_end_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name.endswith(".gz"):
        path.write_bytes(gzip.compress(b" " * (2**26 + 1)) + b"not gzip")
    else:
        with path.open("wb") as file:
            file.truncate(2**30)  # sparse
    with pytest.raises(UsageError, match="more than 67,108,864 bytes"):
        read_rows(path)


def test_a_device_without_end_is_refused() -> None:
    with pytest.raises(UsageError, match="is a device"):
        read_rows(Path("/dev/zero"))


def test_the_whole_has_a_limit_where_one_is_given(tmp_path: Path) -> None:
    write_rows(tmp_path / "a.jsonl", [{"a": 1}] * 10)
    assert len(list(numbered_rows(tmp_path / "a.jsonl", most_bytes=90))) == 10
    with pytest.raises(UsageError, match="more than 89 bytes"):
        list(numbered_rows(tmp_path / "a.jsonl", most_bytes=89))


def test_gzip_is_known_by_its_content(tmp_path: Path) -> None:
    packed = tmp_path / "rows"
    packed.write_bytes(gzip.compress(b'{"a": 1}\n'))
    assert read_rows(packed) == [{"a": 1}]


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"PAR1\x15\x04", "Parquet"),
        (b"PK\x03\x04\x14", "ZIP"),
        (b"\x28\xb5\x2f\xfd$", "zstd"),
        ('{"a": 1}\n'.encode("utf-16"), "UTF-16"),
    ],
)
def test_other_kinds_of_file_are_named(content: bytes, kind: str, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_bytes(content)
    with pytest.raises(UsageError, match=f"it is .*{kind}.*JSON Lines"):
        read_rows(tmp_path / "rows.jsonl")


def test_half_an_emoji_in_bytes_costs_one_character(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_bytes(b'\xef\xbb\xbf{"a": "\xed\xa0\xbd"}\n{"a": "\xed\xa0\xbd\xed\xb8\x80"}\n')
    assert read_rows(file) == [{"a": "\ufffd"}, {"a": "\U0001f600"}]
    file.write_bytes(b'{"a": "\xe4"}\n')
    with pytest.raises(UsageError, match="line 1 is not JSON"):
        read_rows(file)
