from __future__ import annotations

import pytest

from harness.config.settings import load_config
from harness.core import memory
from harness.pipeline.dry_run import Change, SecondMoments, forecast
from harness.pipeline.resolve import resolve
from pruning.checkpoint import open_model
from tests.support.models import TINY_MATH


def test_the_forecast_of_the_embedded_model_is_what_its_files_hold() -> None:
    """Forecast from config.json against tensors on disk; the file's header is the only difference in bytes."""
    found, real = forecast(resolve(load_config(None, {}))), open_model(TINY_MATH)
    assert found.parameters.dense == real.parameters
    assert 0 < real.weight_bytes - found.weight_bytes.dense < 10_000
    assert found.intermediate_size == Change(dense=640, pruned=512)
    assert len(found.cells) == 2 * 3
    assert found.seconds is not None and found.seconds > 0


def test_the_second_moments_of_7b_within_24_gb(monkeypatch: pytest.MonkeyPatch) -> None:
    """18944 wide: 1.44 GB a layer in FP32, 40.2 GB for 28 of them; beside BF16 weights half of 8.8 GB holds two at a
    time.
    """
    monkeypatch.setattr(memory, "available_bytes", lambda: 24 * 10**9)
    found = forecast(resolve(load_config(None, {"model": "qwen-7b"})))
    assert found.second_moments == SecondMoments(disk_bytes=28 * 4 * 18944**2, passes=14, memory_bytes=3 * 4 * 18944**2)
    assert found.scoring_bytes == 2 * 7_615_616_512
    plain = forecast(resolve(load_config(None, {"model": "qwen-7b", "metric": "rms"})))
    assert plain.second_moments is None


def test_a_limit_shortens_the_forecast() -> None:
    short, whole = (forecast(resolve(load_config(None, {"limit": limit}))).seconds for limit in (2, None))
    assert short and whole and short < whole
