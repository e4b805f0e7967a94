from __future__ import annotations

import numpy as np
import pytest

from harness.pipeline import scoring
from pruning.checkpoint import open_model
from pruning.collect import collect
from pruning.scores import score
from tasks.registry import find_task
from tests.support.models import TINY_MATH


@pytest.fixture(scope="session")
def embedded_scores() -> dict[str, np.ndarray]:
    calibration = scoring.calibrate(
        open_model(TINY_MATH), "tiny-math", find_task("mini_math"), scoring.CalibrationRequest(12, "all")
    )
    return dict(score(collect(scoring.open_source(open_model(TINY_MATH), calibration, threads=1), calibration)))
