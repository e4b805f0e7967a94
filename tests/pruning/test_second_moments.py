"""H against a product over all tokens at once; batches and a kill leave no trace."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from harness.core.errors import UsageError
from pruning import second_moments
from pruning.activations import observe
from pruning.families import FAMILIES
from pruning.layer_source import InMemory
from pruning.second_moments import SecondMoments
from tests.support.calibration import CALIBRATION

pytestmark = pytest.mark.slow

QWEN2 = FAMILIES["qwen2"]


@pytest.fixture(scope="module")
def model(random_model: Path):  # type: ignore[no-untyped-def]
    return AutoModelForCausalLM.from_pretrained(random_model, dtype=torch.float32).eval()


def naive(model, layer: int, general_weight: float) -> np.ndarray:  # type: ignore[no-untyped-def]
    rows: dict[bool, list[torch.Tensor]] = {True: [], False: []}
    for item in CALIBRATION.items:
        seen: dict[int, torch.Tensor] = {}
        with torch.no_grad(), observe(model, QWEN2, seen.__setitem__):
            model.model(torch.tensor([item.token_ids]))
        rows[item.target].append(seen[layer][0, item.start : item.stop].double())
    target, general = (torch.cat(rows[side]) for side in (True, False))
    return (
        (1 - general_weight) * target.T @ target / len(target) + general_weight * general.T @ general / len(general)
    ).numpy()


@pytest.mark.parametrize("general_weight", [0.0, 0.3, 1.0])
def test_measured_moments_are_the_definition(model, general_weight: float, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    moments = SecondMoments(CALIBRATION, general_weight, tmp_path)
    second_moments.measure(InMemory(model, QWEN2), moments)
    for layer in range(3):
        np.testing.assert_allclose(
            second_moments.load(tmp_path, layer), naive(model, layer, general_weight), rtol=1e-3, atol=1e-4
        )
    assert moments.missing(range(3)) == []
    assert SecondMoments(CALIBRATION, 0.5, tmp_path).missing(range(3)) == [0, 1, 2]
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"layer-00{layer}.safetensors" for layer in range(3)]


def test_a_layer_that_is_there_is_not_measured_again(model, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    moments, source = SecondMoments(CALIBRATION, 0.0, tmp_path), InMemory(model, QWEN2)
    second_moments.measure(source, moments)
    whole = second_moments.load(tmp_path, 1)
    second_moments.layer_file(tmp_path, 1).unlink()
    times = [second_moments.layer_file(tmp_path, layer).stat().st_mtime_ns for layer in (0, 2)]
    second_moments.measure(source, moments)
    assert [second_moments.layer_file(tmp_path, layer).stat().st_mtime_ns for layer in (0, 2)] == times
    assert moments.missing(range(3)) == [] and torch.equal(second_moments.load(tmp_path, 1), whole)


def test_a_share_outside_is_refused(model, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UsageError, match=r"general weight 1\.5"):
        second_moments.measure(InMemory(model, QWEN2), SecondMoments(CALIBRATION, 1.5, tmp_path))
