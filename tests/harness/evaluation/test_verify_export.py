"""--verify passes what export writes and catches a checkpoint that is not what its plan says."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from harness.core.errors import MeasurementError
from harness.evaluation.verify_export import verify
from pruning.checkpoint import open_model
from pruning.export import export
from tests.support.pruned import compensated

pytestmark = pytest.mark.slow


def test_an_export_is_verified_and_a_tampered_one_is_caught(tmp_path: Path) -> None:
    dense, plan, plan_file = compensated("qwen2", tmp_path)
    checkpoint = export(open_model(dense), plan, tmp_path / "pruned", plan_file).path
    found = verify(open_model(dense), plan, plan_file, open_model(checkpoint), threads=1)
    assert found["logit_error"] < 1e-5 and found["tokens"] > 50 and found["differing"] == 0
    tensors = load_file(checkpoint / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.weight"
    tensors[name] = tensors[name].roll(1, dims=0)
    save_file(tensors, checkpoint / "model.safetensors", {"format": "pt"})
    with pytest.raises(MeasurementError, match="other logits than the masked model"):
        verify(open_model(dense), plan, plan_file, open_model(checkpoint), threads=1)
