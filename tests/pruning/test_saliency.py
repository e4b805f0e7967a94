"""Taylor saliency against the gradient of down_proj's own weights, prompt by prompt in FP64."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from harness.core.types.calibration import CalibrationSet
from pruning.activations import down_weight
from pruning.families import FAMILIES, submodule
from pruning.saliency import taylor
from tests.support.calibration import items
from tests.support.models import build_model, plain

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("model_type", ["qwen2", "phi3", "gemma2", "opt", "gpt2", "gemma3", "qwen2_5_vl"])
def test_taylor_is_gradient_times_weight_summed_over_a_column(model_type: str, tmp_path: Path) -> None:
    """Of prompts of unequal length whose scored tokens start late, so that a shifted mask or padding would show."""
    family = FAMILIES[model_type]
    model = plain(build_model(model_type, tmp_path), dtype=torch.float64)
    chosen = items([5, 9, 12], 2)
    expected = np.zeros((3, 96))
    for item in (item for item in chosen if item.target):
        model.requires_grad_(True)
        model.zero_grad()
        ids = torch.tensor([item.token_ids])
        loss = torch.nn.functional.cross_entropy(model(ids).logits[0, :-1], ids[0, 1:], reduction="none")
        loss[[t - 1 for t in range(max(item.start, 1), item.stop)]].sum().backward()
        for i, layer in enumerate(submodule(model, family.layers)):
            weight = submodule(layer, family.down).weight
            product = weight.detach() * weight.grad
            expected[i] += product.sum(dim=0 if family.down_cut.axis == 1 else 1).abs().numpy()
    found = taylor(
        model,
        family,
        CalibrationSet(model="m", model_hash="w", target_source="t", distractor_sources=(), tokens="all", items=chosen),
    )
    assert down_weight(submodule(model, family.layers)[0], family).shape[1] == 96
    np.testing.assert_allclose(found, expected / sum(item.target for item in chosen), rtol=1e-4, atol=1e-7)
