"""Score, plan and export, each asking for its model by name, read a model's files once."""

from __future__ import annotations

import os
import shutil
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import safetensors

import harness
from tests.support.models import TINY_MATH

OURS = ("harness.", "pruning.", "recovery.")
pytestmark = pytest.mark.slow  # loads the embedded model


@pytest.fixture()
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[Path]:
    """How often this project opened a file for reading.

    transformers opens config.json by `open`, and weights by safe_open, which is counted for our own code alone.
    """
    counts: Counter[Path] = Counter()
    path_open, os_open, safe_open = Path.open, os.open, safetensors.safe_open

    def opened(self: Path, mode: str = "r", *rest: Any, **more: Any) -> Any:
        counts[self.resolve()] += "r" in mode
        return path_open(self, mode, *rest, **more)

    def low_level_opened(path: Any, *rest: Any, **more: Any) -> int:
        counts[Path(path).resolve()] += sys._getframe(1).f_globals["__name__"].startswith(OURS)
        return os_open(path, *rest, **more)

    def safely_opened(file: Any, *rest: Any, **more: Any) -> Any:
        counts[Path(file).resolve()] += sys._getframe(1).f_globals["__name__"].startswith(OURS)
        return safe_open(file, *rest, **more)

    monkeypatch.setattr(Path, "open", opened)
    monkeypatch.setattr(os, "open", low_level_opened)
    monkeypatch.setattr(safetensors, "safe_open", safely_opened)
    return counts


def test_config_and_headers_are_read_once(reads: Counter[Path], tmp_path: Path) -> None:
    """A shard is opened twice: for its header, and for the samples of the fingerprint."""
    model, out = tmp_path / "model", tmp_path / "checkpoint"
    shutil.copytree(TINY_MATH, model)
    scores = harness.score(model, task="mini_math", metrics=("rms",), calibration_samples=4, threads=1)
    plan = harness.plan(scores, ratio=0.2, metric="rms", compensate=True, threads=1)
    harness.prune(model, plan, out)
    assert (reads[model / "config.json"], reads[model / "model.safetensors"]) == (1, 2)
    assert (reads[out / "config.json"], reads[out / "model.safetensors"]) == (1, 1)
