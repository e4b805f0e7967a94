"""A folder takes the place of an older one only where nothing in that is anybody else's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from harness.core.errors import UsageError
from harness.core.written_folder import LIST, Replaceable, check_replaceable, written_folder

KNOWN = Replaceable("record", lambda _, name: name in ("record", "weights", "sub/plan"))


def write(out: Path, text: str = "first", known: Replaceable = KNOWN) -> None:
    with written_folder(out, known) as folder:
        (folder / "sub").mkdir()
        for name in ("record", "weights", "sub/plan"):
            (folder / name).write_text(text)


def content(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): p.read_text() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_what_it_wrote_is_replaced(tmp_path: Path) -> None:
    write(tmp_path / "out")
    write(tmp_path / "out", "second")
    assert set(content(tmp_path / "out").values()) - {(tmp_path / "out" / LIST).read_text()} == {"second"}
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def add_adapter(out: Path) -> None:
    (out / "adapter").mkdir()
    (out / "adapter" / "weights").write_text("mine")


ADDITIONS: dict[str, Callable[[Path], object]] = {
    "notes": lambda out: (out / "notes").write_text("mine"),
    ".hidden": lambda out: (out / ".hidden").write_text("mine"),
    "adapter/weights": add_adapter,
    "sub/notes": lambda out: (out / "sub" / "notes").write_text("mine"),
    "link": lambda out: (out / "link").symlink_to(out.parent),
}


@pytest.mark.parametrize("repair", [False, True])
@pytest.mark.parametrize("listed", [False, True])
@pytest.mark.parametrize("name", ADDITIONS)
def test_what_was_added_is_kept(name: str, listed: bool, repair: bool, tmp_path: Path) -> None:
    """Also in a folder of an older version, which has no list, and by a run that repairs its own files."""
    out = tmp_path / "out"
    write(out)
    if not listed:
        (out / LIST).unlink()
    ADDITIONS[name](out)
    before = content(out)
    with pytest.raises(UsageError, match=f"out holds {name}, not written here.*another --out"):
        write(out, known=replace(KNOWN, repair=repair))
    assert content(out) == before and [p.name for p in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("name", ["record", "weights", "sub/plan"])
def test_what_was_changed_is_kept_unless_a_run_repairs_it(name: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    write(out)
    (out / name).write_text("FIRST")
    with pytest.raises(UsageError, match=f"out holds {name}, changed since it was written"):
        check_replaceable(out, KNOWN)
    write(out, "second", replace(KNOWN, repair=True))
    assert (out / name).read_text() == "second"


def test_a_folder_without_the_marker_is_somebody_elses(tmp_path: Path) -> None:
    write(tmp_path / "out")
    (tmp_path / "out" / "record").unlink()
    with pytest.raises(UsageError, match="other things in it; give another --out"):
        write(tmp_path / "out")


def test_an_empty_folder_and_an_older_one_are_taken(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    write(tmp_path / "out")
    (tmp_path / "out" / LIST).unlink()
    write(tmp_path / "out", "second")
    assert (tmp_path / "out" / "weights").read_text() == "second"
