"""What is not timed for want of room is said, and does not end a search that has its figures."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.pipeline.run_context import VariantState
from harness.pipeline.run_files import serving_file
from harness.pipeline.run_json import read_serving
from harness.sweeps import speed
from pruning.checkpoint import open_model
from tests.support.models import TINY_MATH


def test_without_room_for_two_engines_nothing_is_timed_and_a_line_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(speed, "device_name", lambda: "cuda")
    monkeypatch.setattr(speed, "fit_together", lambda models, *_: len(models) < 2)
    model = open_model(TINY_MATH)
    base = VariantState("dense", model, "hash", None)
    run: Any = SimpleNamespace(
        base=base, model=model, path=tmp_path, config=SimpleNamespace(tensor_parallel=1, dtype="default")
    )
    speed.measure_speed(run, [base], lambda _: nullcontext())
    assert read_serving(serving_file(tmp_path)) == ({}, [])
    assert "no room for two engines, so nothing is timed" in capsys.readouterr().err
