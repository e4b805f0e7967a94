"""A driver that is too old is named; what nvidia-smi says is read as it prints it."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness_prune.nvidia import LEAST_DRIVER, TORCH_CUDA, driver_version, too_old


@pytest.mark.parametrize(
    ("driver", "cuda", "old"),
    [
        ("535.183.01", 13, True),
        ("579.99", 13, True),
        ("580.65.06", 13, False),
        ("600.1", 13, False),
        ("535.183.01", 12, False),
        ("470.256.02", 12, True),
        ("580.65.06", 14, False),  # not known: at least what the newest known needs
        ("[N/A]", 13, False),
    ],
)
def test_a_driver_is_compared_by_its_major_version(driver: str, cuda: int, old: bool) -> None:
    said = too_old(driver, cuda)
    assert (said is not None) is old
    assert not said or (driver in said and str(LEAST_DRIVER[cuda]) in said and "\n" not in said)


def test_the_torch_that_is_installed_needs_580() -> None:
    assert LEAST_DRIVER[TORCH_CUDA] == 580


@pytest.mark.parametrize(
    ("prints", "code", "found"),
    [("580.65.06\n580.65.06\n", 0, "580.65.06"), ("", 0, None), ("NVIDIA-SMI has failed\n", 9, None)],
)
def test_the_driver_is_what_nvidia_smi_says(
    prints: str, code: int, found: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\nprintf '{prints}'\nexit {code}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert driver_version() == found
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert driver_version() is None
