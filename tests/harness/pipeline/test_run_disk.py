"""Free disk space is checked before the first stage of a run: checkpoints and temporary second moments."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from harness.config.settings import load_config
from harness.core.errors import StorageError
from harness.pipeline import run
from harness.pipeline.resolve import resolve
from harness.sweeps.goal.resolve import resolve_goal
from harness.sweeps.grid import resolve_sweep
from pruning.checkpoint import open_model
from tests.support.models import TINY_MATH

MOMENTS = 4 * 4 * 640**2  # of 4 layers of width 640 in FP32


def checkpoint_bytes() -> int:
    """In 16 bits, as large as the dense model."""
    return 2 * open_model(TINY_MATH).parameters


def test_second_moments_count_until_they_are_written(tmp_path: Path) -> None:
    one, spec = checkpoint_bytes(), resolve(load_config(None, {}))
    assert run._disk_bytes(spec, tmp_path, False) == one + MOMENTS
    assert run._disk_bytes(resolve(load_config(None, {"metric": "rms"})), tmp_path, False) == one
    layer = tmp_path / "scores.safetensors.moments" / "layer-000.safetensors"
    layer.parent.mkdir()
    layer.write_bytes(bytes(MOMENTS // 4))
    assert run._disk_bytes(spec, tmp_path, False) == one + 3 * MOMENTS // 4
    (tmp_path / "scores.safetensors").touch()
    assert run._disk_bytes(spec, tmp_path, False) == one
    shutil.rmtree(layer.parent)
    assert [run._disk_bytes(spec, tmp_path, fresh) for fresh in (False, True)] == [one, one + MOMENTS]


def test_second_moments_go_before_the_fine_tuning(tmp_path: Path) -> None:
    """Of the pruned model and of the dense one, two checkpoints beside the first."""
    one, spec = checkpoint_bytes(), resolve(load_config(None, {"recover": True}))
    assert run._disk_bytes(spec, tmp_path, False) == one + max(2 * one, MOMENTS)
    (tmp_path / "scores.safetensors").touch()
    assert run._disk_bytes(spec, tmp_path, False) == 3 * one


def test_in_sweeps_and_searches_of_widths_second_moments_go_before_the_checkpoints(tmp_path: Path) -> None:
    one = checkpoint_bytes()
    assert one < MOMENTS < 3 * one
    for recovered, needed in (("", MOMENTS), ("best,dense", 3 * one)):
        options = {
            "methods": "best",
            "ratios": "0.3",
            "recovered": recovered,
            "task": "mini_math",
            "off_target": "mini_facts",
        }
        assert run._disk_bytes(resolve_sweep(load_config(None, options)), tmp_path, False) == needed
    assert run._disk_bytes(resolve_goal(load_config(None, {"max_loss": 3})), tmp_path, False) == MOMENTS


@pytest.mark.slow  # loads a tokenizer
def test_a_disk_without_room_for_both_is_refused_before_any_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage, needed = shutil.disk_usage(tmp_path), 1.1 * (checkpoint_bytes() + MOMENTS)
    for check in ("check_libraries", "check_options", "check_buildable"):
        monkeypatch.setattr(run, check, lambda *_: None)

    def started(free: int) -> bool:
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=free))
        return run.start(load_config(None, {}), tmp_path / "run", False, None, resolve, lambda _: True)[0]

    with pytest.raises(StorageError, match="free some disk space or give another folder with --out"):
        started(int(needed) - 1)
    assert not (tmp_path / "run").exists() and started(int(needed) + 1)
