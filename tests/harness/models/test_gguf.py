"""Names of converted files; that a conversion is what transformers dequantises is in test_registry.py."""

from __future__ import annotations

import os
from pathlib import Path

from harness.models.gguf import name_of


def test_a_converted_file_is_known_by_name_content_and_time(tmp_path: Path) -> None:
    file = tmp_path / "model.Q4_K_M.gguf"
    file.write_bytes(b"GGUF" + bytes(range(256)) * 40)
    os.utime(file, ns=(10**18, 10**18))
    first = name_of(file)
    assert first.startswith("model.Q4_K_M-") and name_of(file) == first
    raw = bytearray(file.read_bytes())
    raw[5000] ^= 1
    file.write_bytes(bytes(raw))
    os.utime(file, ns=(10**18, 10**18))
    second = name_of(file)
    os.utime(file, ns=(10**18, 10**18 + 1))
    assert len({first, second, name_of(file)}) == 3
