"""The walk's second moments against whole forward passes of a model whose earlier layers were pruned by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pruning.activations import down_weight, observe
from pruning.families import FAMILIES, submodule
from pruning.layer_source import InMemory
from pruning.loader import load_pruned
from pruning.second_moments import SecondMoments
from pruning.sequential import LayerwiseRefit
from tests.support.calibration import CALIBRATION
from tests.support.models import build_model

pytestmark = pytest.mark.slow

KEEP = torch.arange(0, 96, 2)


def naive(model: Any, model_type: str, layer: int) -> torch.Tensor:
    family, rows = FAMILIES[model_type], []
    for item in CALIBRATION.items:
        if item.target:
            seen: dict[int, torch.Tensor] = {}
            with torch.no_grad(), observe(model, family, seen.__setitem__):
                getattr(model, family.body)(torch.tensor([item.token_ids]))
            rows.append(seen[layer].reshape(len(item.token_ids), -1)[item.start : item.stop].double())
    h = torch.cat(rows)
    return h.T @ h / len(h)


@pytest.mark.parametrize(
    "model_type", ["qwen2", "gemma3_text", "phi3", "gpt2", "opt", "gpt_neox", "gemma3", "qwen2_5_vl"]
)
def test_every_layer_is_measured_behind_the_pruned_ones(model_type: str, tmp_path: Path) -> None:
    family, fitted = FAMILIES[model_type], torch.randn(64, len(KEEP), generator=torch.Generator().manual_seed(3)) * 0.1
    dense = build_model(model_type, tmp_path / "dense")
    walked, by_hand = (load_pruned(dense, torch.float32) for _ in range(2))
    walk = LayerwiseRefit(InMemory(walked, family), SecondMoments(CALIBRATION, 0.0, tmp_path / "moments"))
    before = naive(by_hand, model_type, 2)
    for layer, module in enumerate(submodule(by_hand, family.layers)):
        np.testing.assert_allclose(walk.second_moment(layer), naive(by_hand, model_type, layer), rtol=1e-3, atol=1e-4)
        walk.prune(KEEP, fitted)
        with torch.no_grad():
            weight = down_weight(module, family)
            weight.zero_()
            weight[:, KEEP] = fitted
    assert not np.allclose(naive(by_hand, model_type, 2), before, rtol=1e-2)
