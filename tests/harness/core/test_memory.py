from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness.core import memory
from harness.core.errors import MeasurementError

TOTAL = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
needs_cpu = pytest.mark.skipif("__import__('torch').cuda.is_available()", reason="a GPU scores in BF16")


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


@needs_cpu
def test_a_large_model_is_scored_in_bf16_and_a_larger_one_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """24 GB, of which four fifths for the weights: 7B fits in BF16 (15.2 GB) and not in FP32 (30.5 GB)."""
    monkeypatch.setattr(memory, "available_bytes", lambda: 24 * 10**9)
    assert memory.scoring_dtype(1_500_000_000) == "float32"
    assert memory.scoring_dtype(7_615_616_512) == "bfloat16"
    assert memory.loading_bytes(7_615_616_512) == 2 * 7_615_616_512
    assert memory.moments_memory(15_231_233_024) == pytest.approx((24e9 - 15_231_233_024) / 2)
    with pytest.raises(MeasurementError, match=r"needs 26\.1 GiB for the weights and 17\.9 GiB"):
        memory.scoring_dtype(14_000_000_000)
