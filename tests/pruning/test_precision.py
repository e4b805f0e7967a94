from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.pipeline import scoring
from pruning import compensation, score_file
from pruning.checkpoint import open_model
from pruning.plan import PlanRequest, make_plan
from pruning.plan_file import save_plan
from pruning.precision import ieee_products
from tasks.registry import find_task
from tests.support.models import TINY_MATH


@contextmanager
def tf32() -> Iterator[None]:
    """As in a container that turns it on for every process."""
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    matmul.fp32_precision = "tf32"
    try:
        yield
    finally:
        matmul.fp32_precision = before


def test_tf32_is_off_within_and_as_it_was_afterwards() -> None:
    matmul = torch.backends.cuda.matmul
    with tf32():
        with pytest.raises(KeyError), ieee_products():
            assert matmul.fp32_precision == "ieee"
            raise KeyError
        assert matmul.fp32_precision == "tf32"


def test_removal_orders_and_re_fits_are_computed_without_tf32(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OBS ranks by small differences, which TF32's ten bits would drown."""
    model, seen = open_model(TINY_MATH), []

    def recording(function: Any) -> Any:
        def recorded(*arguments: Any, **named: Any) -> Any:
            seen.append(torch.backends.cuda.matmul.fp32_precision)
            return function(*arguments, **named)

        return recorded

    monkeypatch.setattr(scoring, "removal_scores", recording(scoring.removal_scores))
    monkeypatch.setattr(compensation, "refit", recording(compensation.refit))
    calibration = scoring.calibrate(model, "tiny-math", find_task("mini_math"), scoring.CalibrationRequest(4))
    request = scoring.ScoreRequest(("obs",), moments=True, threads=1)
    with tf32():
        scoring.score_model(model, calibration, request, tmp_path / "scores")
        plan = make_plan(score_file.load(tmp_path / "scores"), PlanRequest(0.5, metric="obs", compensated=True))
        save_plan(plan, tmp_path / "plan")
        scoring.compensate_plan(model, calibration, request, tmp_path / "scores", tmp_path / "plan")
    assert seen == ["ieee"] * 8, "four layers, ranked and re-fitted"
