from __future__ import annotations

from harness.config import load_config
from harness.forecast import forecast
from harness.pipeline import resolve
from harness.types import Checkpoint
from pruning.checkpoint import describe
from tests.conftest import TINY_MATH


def test_the_forecast_of_the_embedded_model_is_what_its_files_hold() -> None:
    """Forecast from config.json against tensors on disk; the file's header is the only difference in bytes."""
    found, real = forecast(resolve(load_config(None, {}))), describe(TINY_MATH)
    assert isinstance(real, Checkpoint)
    assert found["parameters"]["dense"] == real.parameters
    assert 0 < real.weight_bytes - found["weight_bytes"]["dense"] < 10_000
    assert found["intermediate_size"] == {"dense": 640, "pruned": 512}
    assert len(found["cells"]) == 2 * 3
    assert found["seconds"] > 0


def test_a_limit_shortens_the_forecast() -> None:
    short, whole = (forecast(resolve(load_config(None, {"limit": limit})))["seconds"] for limit in (2, None))
    assert short < whole
