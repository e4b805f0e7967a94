"""What a run directory names lies below it and is a regular file, or is refused in one line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.core.contained_files import file_below, path_below, read_text_below
from harness.core.errors import UsageError


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run directory with a secret beside it, and every way that leads there."""
    folder = tmp_path / "run"
    (folder / "samples").mkdir(parents=True)
    (tmp_path / "secret").write_text("secret")
    (folder / "samples" / "own").write_text("own")
    (folder / "link-inside").symlink_to("samples/own")
    (folder / "link").symlink_to("../secret")
    (folder / "up").symlink_to("..")
    (folder / "circle").symlink_to("circle")
    (folder / "zero").symlink_to("/dev/zero")
    os.mkfifo(folder / "fifo")
    return folder


@pytest.mark.parametrize(
    "name",
    ["../secret", "/etc/passwd", "/dev/zero", "zero", "link", "up/secret", "circle", ".", "", "..", "a\x00b"],
)
def test_what_leads_out_is_refused(run: Path, name: str) -> None:
    with pytest.raises(UsageError, match=r"leads out of it|is no path"):
        file_below(run, name)


@pytest.mark.parametrize("name", ["fifo", "samples"])
def test_what_is_no_regular_file_is_refused(run: Path, name: str) -> None:
    with pytest.raises(UsageError, match="is not a regular file"):
        read_text_below(run, name, 100)


def test_what_lies_below_is_read_up_to_a_limit(run: Path) -> None:
    assert read_text_below(run, "samples/own", 3) == read_text_below(run, "link-inside", 3) == "own"
    assert read_text_below(run, "samples/none", 3) is None and read_text_below(run, "x" * 5000, 3) is None
    with pytest.raises(UsageError, match="at most 2"):
        read_text_below(run, "samples/own", 2)


def test_a_run_directory_that_is_a_link_itself_is_one(run: Path, tmp_path: Path) -> None:
    (tmp_path / "latest").symlink_to(run)
    assert read_text_below(tmp_path / "latest", "samples/own", 3) == "own"


def test_a_fifo_in_place_of_a_file_is_not_waited_for(run: Path) -> None:
    with pytest.raises(UsageError, match="not a regular file"):
        read_text_below(run, "fifo", 10)


@given(st.text(st.sampled_from("./a~\\"), max_size=12))
def test_every_name_is_below_or_refused(name: str) -> None:
    folder = Path("/nowhere/run")
    try:
        path = path_below(folder, name)
    except UsageError:
        assert os.path.commonpath([os.path.normpath(folder / name), folder]) != str(folder) or os.path.normpath(
            folder / name
        ) == str(folder)
    else:
        assert path.is_relative_to(folder) and path != folder
