"""A compensated plan through its files: the exported checkpoint holds the least-squares columns, and nothing else
changes hands.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from harness.core.errors import UsageError
from pruning import compensation, second_moments
from pruning.activations import observe
from pruning.checkpoint import open_model
from pruning.export import export
from pruning.families import FAMILIES, submodule
from pruning.loader import load_pruned
from pruning.obs import refit
from pruning.plan_file import save_plan
from tests.support.calibration import CALIBRATION
from tests.support.pruned import compensated

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("model_type", ["qwen2", "phi3", "gpt2", "opt"])
def test_the_export_holds_the_refitted_columns(model_type: str, tmp_path: Path) -> None:
    dense, plan, plan_file = compensated(model_type, tmp_path)
    family = FAMILIES[model_type]
    pruned = load_pruned(export(open_model(dense), plan, tmp_path / "pruned", plan_file).path, torch.float32)
    original = load_pruned(dense, torch.float32)
    for layer, keep in enumerate(plan.keep):
        weights = [
            submodule(submodule(m, family.layers)[layer], family.down).weight.detach() for m in (original, pruned)
        ]
        before, after = (w if family.down_cut.axis == 1 else w.T for w in weights)
        expected = refit(
            before, second_moments.load(tmp_path / "moments", layer), torch.from_numpy(keep).long()
        ).float()
        torch.testing.assert_close(after, expected)
        assert not torch.allclose(after, before[:, torch.from_numpy(keep).long()], atol=1e-3)


def test_a_refit_writes_closer_to_the_dense_layer_than_none(tmp_path: Path) -> None:
    """On the calibration tokens themselves, first layer: mean squared distance of what the FFN writes."""
    dense, plan, plan_file = compensated("qwen2", tmp_path)
    plain = export(open_model(dense), replace(plan, compensated=False), tmp_path / "plain").path
    fitted = export(open_model(dense), plan, tmp_path / "fitted", plan_file).path
    reference = written(dense)
    assert ((written(fitted) - reference) ** 2).mean() < 0.8 * ((written(plain) - reference) ** 2).mean()


def written(folder: Path) -> torch.Tensor:
    model, found = load_pruned(folder, torch.float32), []
    model.model.layers[0].mlp.register_forward_hook(lambda _m, _a, out: found.append(out[0]))
    with torch.no_grad(), observe(model, FAMILIES["qwen2"], lambda *_: None):
        for item in CALIBRATION.items:
            if item.target:
                model.model(torch.tensor([item.token_ids]))
                found[-1] = found[-1][item.start : item.stop]
    return torch.cat(found)


def test_ratio_zero_reproduces_every_tensor_bit_for_bit(tmp_path: Path) -> None:
    dense, plan, plan_file = compensated("qwen2", tmp_path, width=96)
    made = export(open_model(dense), plan, tmp_path / "same", plan_file)
    before, after = load_file(dense / "model.safetensors"), load_file(made.path / "model.safetensors")
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


def test_columns_of_another_plan_and_missing_columns_are_refused(tmp_path: Path) -> None:
    dense, plan, plan_file = compensated("qwen2", tmp_path)
    other = replace(plan, keep=tuple(np.sort((keep + 1) % 96).astype(np.int32) for keep in plan.keep))
    save_plan(other, plan_file)
    with pytest.raises(UsageError, match="belongs to another plan"):
        export(open_model(dense), other, tmp_path / "out", plan_file)
    compensation.columns_file(plan_file).unlink()
    with pytest.raises(UsageError, match="is missing"):
        export(open_model(dense), other, tmp_path / "out", plan_file)
    with pytest.raises(UsageError, match="its file is needed"):
        export(open_model(dense), other, tmp_path / "out")
    assert not (tmp_path / "out").exists()
