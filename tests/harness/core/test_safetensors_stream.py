"""Streams of bytes against the safetensors library, numpy and torch: blocks, headers and cuts leave no trace."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from harness.core import safetensors_stream as stream
from harness.core.safetensors_stream import Entry, as_array, finite, gather_blocks, iter_blocks

TENSORS = {
    "b.weight": torch.arange(12, dtype=torch.float32).reshape(3, 4),
    "a.bias": torch.tensor([1.5, -2.0, float("inf")], dtype=torch.bfloat16),
    "empty": torch.zeros((0, 5), dtype=torch.float16),
    "scalar": torch.tensor(7, dtype=torch.int64),
}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that even small tensors take several."""
    monkeypatch.setattr(stream, "BLOCK_BYTES", 64)


def test_what_the_library_wrote_is_read_entry_by_entry(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "m", {"format": "pt"})
    entries, metadata = stream.read_entries(tmp_path / "m")
    assert metadata == {"format": "pt"} and {entry.name for entry in entries} == set(TENSORS)
    assert [entry.start for entry in entries] == sorted(entry.start for entry in entries)
    for entry in entries:
        tensor = TENSORS[entry.name]
        assert (entry.shape, entry.data_bytes) == (tuple(tensor.shape), tensor.nbytes)
        assert as_array(tmp_path / "m", entry).tobytes() == tensor.reshape(-1).view(torch.uint8).numpy().tobytes()


def test_what_is_written_the_library_reads_and_its_size_was_known(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "m")
    entries, _ = stream.read_entries(tmp_path / "m")
    source = {entry.name: as_array(tmp_path / "m", entry) for entry in entries}
    metadata = {"z": "1", "format": "pt"}
    stream.write_entries(tmp_path / "out", entries, metadata, lambda entry: iter_blocks(source[entry.name]))
    found = load_file(tmp_path / "out")
    assert all(torch.equal(found[name], tensor) for name, tensor in TENSORS.items())
    assert stream.file_bytes(entries, metadata) == (tmp_path / "out").stat().st_size
    with safe_open(tmp_path / "out", "pt") as file:
        assert file.metadata() == metadata


def test_a_header_that_is_longer_than_the_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes((1 << 40).to_bytes(8, "little") + b"{}")
    with pytest.raises(ValueError, match="claims 1099511627776 bytes"):
        stream.read_entries(tmp_path / "m")


@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([0, 1]), st.integers(0, 999))
def test_gathered_blocks_are_numpys_selection(rows: int, columns: int, axis: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    array = rng.integers(0, 255, (rows, columns)).astype(np.uint16)
    keep = np.sort(rng.permutation(array.shape[axis])[: rng.integers(1, array.shape[axis] + 1)])
    blocks = list(gather_blocks(array, keep, axis))
    np.testing.assert_array_equal(np.concatenate(blocks), np.take(array, keep, axis=axis))
    assert all(block.nbytes <= max(64, array[:1].nbytes) for block in blocks)


def test_blocks_are_small_and_whole() -> None:
    array = np.arange(1000, dtype=np.uint32).reshape(10, 100)
    blocks = list(iter_blocks(array))
    assert max(block.nbytes for block in blocks) == 64
    np.testing.assert_array_equal(np.concatenate(blocks), array.reshape(-1))


@pytest.mark.parametrize(
    ("name", "dtype", "raw"),
    [
        ("F32", torch.float32, np.uint32),
        ("F16", torch.float16, np.uint16),
        ("BF16", torch.bfloat16, np.uint16),
        ("F64", torch.float64, np.uint64),
    ],
)
@pytest.mark.parametrize("odd", [0.0, -0.0, "largest", float("inf"), float("-inf"), float("nan")])
def test_not_finite_is_what_torch_says(name: str, dtype: torch.dtype, raw: type, odd: float | str) -> None:
    values = torch.ones(5, dtype=dtype)
    values[3] = torch.finfo(dtype).max if odd == "largest" else odd
    bits = np.frombuffer(values.view(torch.uint8).numpy().tobytes(), raw)
    assert finite(bits, name) is bool(torch.isfinite(values).all())


def test_integers_are_always_finite() -> None:
    assert finite(np.full(4, 0xFFFFFFFF, np.uint32), "I32")


def test_an_entry_of_another_length_has_other_bytes() -> None:
    entry = Entry("w", "BF16", (6, 10))
    assert (entry.data_bytes, entry.resized(1, 4).shape, entry.resized(0, 3).data_bytes) == (120, (6, 4), 60)
