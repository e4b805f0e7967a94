"""Plans with a width for each layer, some of them none: what they keep, their columns, and what is exported."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.core.errors import UsageError
from harness.core.types.pruning import NeuronScores
from pruning import compensation
from pruning.checkpoint import ModelFolder, open_model
from pruning.export import export, predict_size
from pruning.joint import joint_plan
from pruning.loader import load_pruned
from pruning.masked import load_masked
from pruning.plan import PlanRequest
from pruning.plan_file import load_plan, save_plan
from tests.support.models import build_model
from tests.support.structures import ids, logits

REQUEST = PlanRequest(0.0, metric="obs", compensated=True)


def scores(table: np.ndarray, model_hash: str = "weights") -> NeuronScores:
    return NeuronScores({"obs": table.astype(np.float32)}, "m", model_hash, "all", "calibration", "scored")


@given(st.data())
def test_a_layer_keeps_its_highest_scores_and_one_without_width_goes(data: st.DataObject) -> None:
    layers, size = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 9))
    table = np.array([data.draw(st.permutations(range(size))) for _ in range(layers)])
    widths = data.draw(st.lists(st.integers(0, size), min_size=layers, max_size=layers).filter(any))
    bare = data.draw(st.sets(st.integers(0, layers - 1)))
    plan = joint_plan(scores(table), REQUEST, widths, sorted(bare))
    gone = tuple(layer for layer in range(layers) if not widths[layer])
    assert plan.skip_ffn == gone and plan.skip_attention == tuple(sorted({*gone, *bare}))
    for row, keep, width in zip(table, plan.keep, widths, strict=True):
        expected = [i for i in range(size) if row[i] >= size - width] if width else list(range(size))
        assert keep.tolist() == expected and keep.dtype == np.int32
    assert plan.ratio == pytest.approx((layers * size - sum(widths)) / (layers * size))


@pytest.mark.parametrize("widths", [(4, 4), (4, 4, 9), (0, 0, 0), (4, -1, 4)])
def test_widths_that_are_no_plan_are_refused(widths: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match="are no plan for 3 layers of width 8; give one from 0 to 8 for each"):
        joint_plan(scores(np.arange(24).reshape(3, 8)), REQUEST, widths)


def planned(model: ModelFolder, widths: tuple[int, ...], file: Path, bare: tuple[int, ...] = ()) -> Path:
    """A plan by random scores, re-fitted on random second moments."""
    draw = np.random.default_rng(0)
    rows = torch.from_numpy(draw.normal(size=(3, 200, 96))).float()
    plan = joint_plan(scores(draw.random((3, 96)), model.fingerprint), REQUEST, widths, bare)
    save_plan(plan, file)
    compensation.compensate(model, plan, file, lambda layer: rows[layer].T @ rows[layer] / 200)
    return file


@pytest.mark.slow
@pytest.mark.parametrize(
    ("widths", "bare"),
    [((48, 0, 48), ()), ((96, 16, 0), ()), ((0, 96, 96), ()), ((0, 48, 48), (2,)), ((96, 0, 40), (2,))],
)
@pytest.mark.parametrize("model_type", ["llama", "qwen2"])
def test_the_export_is_the_masked_model(
    model_type: str, widths: tuple[int, ...], bare: tuple[int, ...], tmp_path: Path
) -> None:
    """One width for all layers that stay, with their attention, is a plain folder; others are our plugin's."""
    model = open_model(build_model(model_type, tmp_path / "dense", shard_size="100KB"))
    file = planned(model, widths, tmp_path / "plan.safetensors", bare)
    plan = load_plan(file)
    assert plan.structure == "joint" and plan.compensated
    made = export(model, plan, tmp_path / "pruned", file)
    with torch.no_grad():
        masked = load_masked(model, plan, file, torch.float32)(ids()).logits
        found = load_pruned(made, torch.float32)(ids()).logits
    torch.testing.assert_close(found, masked, rtol=1e-5, atol=1e-4)
    assert not torch.allclose(masked, logits(model.path), atol=0.01), "what was removed mattered"
    kept = tuple(width for width in widths if width)
    plain = len(set(kept)) == 1 and not bare
    assert made.widths == kept and made.config["architectures"][0].startswith("FFNPruned") != plain
    if plain:
        torch.testing.assert_close(logits(made.path), masked, rtol=1e-5, atol=1e-4)
    sizes = predict_size(model, plan)
    assert (sizes.widths, sizes.parameters, sizes.weight_bytes) == (kept, made.parameters, made.weight_bytes)
    step = (made.record or {})["steps"][-1]
    assert step["structure"] == "joint" and step["skip_ffn"] == [widths.index(0)]


@pytest.mark.slow
def test_columns_lie_there_for_the_layers_that_stay_alone(tmp_path: Path) -> None:
    model = open_model(build_model("llama", tmp_path / "dense"))
    file = planned(model, (48, 0, 80), tmp_path / "plan.safetensors")
    found = {place: columns.shape for place, columns in compensation.load(model, load_plan(file), file).items()}
    assert found == {(0, "mlp.down_proj.weight"): (64, 48), (2, "mlp.down_proj.weight"): (64, 80)}
    save_plan(joint_plan(scores(np.random.default_rng(0).random((3, 96)), "other"), REQUEST, (48, 80, 0)), file)
    with pytest.raises(UsageError, match="belongs to another plan"):
        compensation.load(model, load_plan(file), file)
