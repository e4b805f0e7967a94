"""H against a product over all tokens at once; groups, batches and a kill leave no trace."""

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
@pytest.mark.parametrize("memory", [1e12, 1.0])
def test_measured_moments_are_the_definition(model, general_weight: float, memory: float, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    second_moments.measure(model, QWEN2, CALIBRATION, general_weight, tmp_path, memory)
    for layer in range(3):
        np.testing.assert_allclose(
            second_moments.load(tmp_path, layer), naive(model, layer, general_weight), rtol=1e-3, atol=1e-4
        )
    assert second_moments.missing(tmp_path, CALIBRATION, general_weight, 3) == []
    assert second_moments.missing(tmp_path, CALIBRATION, 0.5, 3) == [0, 1, 2]


def test_a_layer_that_is_there_is_not_measured_again(model, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    second_moments.measure(model, QWEN2, CALIBRATION, 0.0, tmp_path, 1e12)
    second_moments.layer_file(tmp_path, 1).unlink()
    times = [second_moments.layer_file(tmp_path, layer).stat().st_mtime_ns for layer in (0, 2)]
    second_moments.measure(model, QWEN2, CALIBRATION, 0.0, tmp_path, 1e12)
    assert [second_moments.layer_file(tmp_path, layer).stat().st_mtime_ns for layer in (0, 2)] == times
    assert second_moments.missing(tmp_path, CALIBRATION, 0.0, 3) == []


def test_layers_per_pass_for_7b() -> None:
    """Width 18944: a layer takes 1.44 GB, so 24 GB hold 15 and a copy of one being saved, and 28 layers take 2
    passes.
    """
    assert second_moments.layers_per_pass(28, 18944, 24e9) == 15
    assert second_moments.passes(28, 18944, 24e9) == 2
    assert second_moments.layers_per_pass(28, 18944, 1e9) == 1


def test_a_share_outside_is_refused(model, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UsageError, match=r"general weight 1\.5"):
        second_moments.measure(model, QWEN2, CALIBRATION, 1.5, tmp_path, 1e12)
