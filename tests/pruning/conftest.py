from __future__ import annotations

import numpy as np
import pytest

from harness.pipeline import scoring
from pruning.activations import collect
from pruning.checkpoint import open_model
from pruning.families import FAMILIES
from pruning.scores import score
from tasks.registry import find_task
from tests.support.models import TINY_MATH


@pytest.fixture(scope="session")
def embedded_scores() -> dict[str, np.ndarray]:
    calibration = scoring.calibrate(
        open_model(TINY_MATH), "tiny-math", find_task("mini_math"), scoring.CalibrationRequest(12, "all")
    )
    model = scoring.load_model(open_model(TINY_MATH), threads=1)
    return dict(score(collect(model, FAMILIES["qwen2"], calibration)))
