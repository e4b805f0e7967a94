from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness.core import memory

TOTAL = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def test_what_is_available_is_part_of_the_machine() -> None:
    assert 0 < memory.available_bytes() <= TOTAL


def test_a_container_bounds_it_and_cached_files_count_as_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    for name, text in {
        "memory.max": "1000000",
        "memory.current": "700000",
        "memory.stat": "anon 1\ninactive_file 200000\n",
    }.items():
        (tmp_path / name).write_text(text)
    assert memory.available_bytes() == 500_000
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.available_bytes() > 1_000_000
