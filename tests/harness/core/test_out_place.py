"""`--out` is tried before any work: what cannot be written is said in one line, and nothing is left there."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.core.errors import HarnessError, StorageError, UsageError
from harness.core.out_place import check_file, check_folder, check_new_folder, given_path
from harness.core.run_directory import check_run_directory

CHECKS = {"file": check_file, "folder": check_folder, "new folder": check_new_folder, "run": check_run_directory}


@pytest.fixture(autouse=True)
def places() -> None:
    Path("file").write_text("mine")
    Path("folder").mkdir()
    Path("folder/notes").write_text("mine")
    Path("link").symlink_to("nowhere")
    os.mkfifo("fifo")


@pytest.mark.parametrize("kind", CHECKS)
@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("file/below/it", "file is a file, so file/below/it cannot be written"),
        ("link", "link is a link to nowhere, which is not there"),
        ("fifo", "fifo is"),
        ("a" * 300, "cannot be written"),
        ("a" * 250, "cannot be written"),
        ("new/" + "a" * 300 + "/b", "too long a name"),
        ("a\0b", "cannot be written"),
        ("/proc/none/of/these", "/proc/none/of/these cannot be written"),
    ],
)
def test_what_cannot_be_written_is_refused(kind: str, out: str, message: str) -> None:
    if (kind, len(out)) in (("run", 250), ("folder", 250)):
        pytest.skip("no longer name is made beside a run directory")
    before = sorted(Path().rglob("*"))
    with pytest.raises(HarnessError, match=message) as error:
        CHECKS[kind](Path(out))
    assert "another --out" in str(error.value) and "\n" not in str(error.value)
    assert sorted(Path().rglob("*")) == before


@pytest.mark.parametrize(
    ("check", "out", "message"),
    [
        (check_file, "folder", "folder is a folder; give the name of a file"),
        (check_file, ".", "is a folder"),
        (check_folder, "file", "file is a file, and a folder is to be written"),
        (check_new_folder, ".", "is in use and cannot be replaced"),
        (check_new_folder, "..", "is in use and cannot be replaced"),
        (check_new_folder, "/proc", "cannot be"),
        (check_run_directory, "folder", "not empty and is not a run directory"),
    ],
)
def test_a_file_is_no_folder_and_the_reverse(check: Callable[[Path], None], out: str, message: str) -> None:
    with pytest.raises(HarnessError, match=message):
        check(Path(out))


def test_files_beside_count_too() -> None:
    Path("scores.calibration.json").mkdir()
    with pytest.raises(UsageError, match=r"scores\.calibration\.json is a folder"):
        check_file(Path("scores"), (".calibration.json",))


def test_a_place_that_can_be_written_stays_as_it_is() -> None:
    before = sorted(Path().rglob("*"))
    check_file(Path("file"), (".calibration.json", ".partial"))
    check_file(Path("new/scores"))
    check_folder(Path("folder"))
    check_new_folder(Path("folder"))
    check_new_folder(Path("new/checkpoint"))
    check_run_directory(Path("runs/mine"))
    assert sorted(Path().rglob("*")) == before and Path("file").read_text() == "mine"


def test_a_read_only_place_is_named_with_what_is_free() -> None:
    with pytest.raises(StorageError, match=r"/proc/x cannot be written \(.*/proc, .* free\)"):
        check_file(Path("/proc/x"))


def test_an_empty_out_is_not_the_current_folder() -> None:
    with pytest.raises(UsageError, match="--out is empty"):
        given_path("")
    assert given_path("a") == Path("a")
