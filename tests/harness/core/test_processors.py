"""What an engine's dtype is on a processor, by what the kernel says of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.core import processors
from harness.core.processors import cpu_dtype, cpu_formats, cpu_name

FLAGS = {
    "fpu avx2 avx512f avx512_bf16 amx_bf16 amx_tile": ("avx2", "avx512f", "avx512_bf16", "amx_bf16"),
    "fpu avx2 avx512f": ("avx2", "avx512f"),
    "": (),
}


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    yield
    cpu_name.cache_clear()
    cpu_formats.cache_clear()


@pytest.mark.parametrize("flags", FLAGS)
def test_formats_are_read_from_the_kernels_flags(flags: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cpuinfo").write_text(f"model name\t: Some CPU\nflags\t\t: {flags} xavx2\n\n" * 2)
    monkeypatch.setattr(processors, "_CPUINFO", tmp_path / "cpuinfo")
    cpu_name.cache_clear()
    cpu_formats.cache_clear()
    assert (cpu_name(), cpu_formats()) == ("Some CPU", FLAGS[flags])


@pytest.mark.parametrize(
    ("asked", "formats", "expected"),
    [
        ("default", ("avx2", "avx512_bf16"), "float32"),
        ("auto", ("avx2", "avx512_bf16"), "bfloat16"),
        ("auto", ("amx_bf16",), "bfloat16"),
        ("auto", ("avx2", "avx512f"), "float32"),
        ("auto", "Some CPU (avx2, avx512f, avx512_bf16)", "bfloat16"),
        ("bfloat16", (), "bfloat16"),
        ("float32", ("amx_bf16",), "float32"),
    ],
)
def test_only_auto_asks_the_processor(asked: str, formats: str | tuple[str, ...], expected: str) -> None:
    assert cpu_dtype(asked, formats) == expected
