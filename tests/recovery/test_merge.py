"""A trained state merged into a checkpoint equals the trained model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.core.errors import MeasurementError, UnsupportedModelError
from pruning.checkpoint import open_model
from pruning.loader import load_pruned
from recovery.merge import merge
from tests.support.models import build_model
from tests.support.training import RECIPE, with_adapter

pytestmark = pytest.mark.slow

PROMPT = [[5, 17, 400, 31, 8, 99]]


def logits(model: Any) -> Any:
    import torch

    with torch.no_grad():
        return model(torch.tensor(PROMPT)).logits


def merged(folder: Path, state: Path, out: Path) -> Path:
    out.mkdir()
    for file in folder.iterdir():
        if file.is_file():
            shutil.copyfile(file, out / file.name)
    merge([shard.path for shard in open_model(folder).shards], state, out)
    return out


@pytest.fixture(params=["qwen2", "phi3", "gpt2", "ragged"])
def checkpoint(request: pytest.FixtureRequest, tmp_path: Path, ragged_model: Path) -> Path:
    """Linear, fused and transposed layers, and a width of its own in every layer."""
    return (
        ragged_model
        if request.param == "ragged"
        else build_model(request.param, tmp_path / "model", shard_size="200KB")
    )


def test_a_merged_adapter_equals_base_plus_adapter(checkpoint: Path, tmp_path: Path) -> None:
    import torch

    trained = with_adapter(checkpoint, tmp_path / "state")
    expected, before = logits(trained), logits(load_pruned(checkpoint, torch.float32))
    out = merged(checkpoint, tmp_path / "state", tmp_path / "out")
    found = logits(load_pruned(out, torch.float32))
    assert (expected - before).abs().max() > 0.1
    assert torch.allclose(found, expected, atol=1e-4, rtol=1e-4)
    assert [s.path.name for s in open_model(out).shards] == [s.path.name for s in open_model(checkpoint).shards]
    assert open_model(out).parameters == open_model(checkpoint).parameters


@pytest.mark.parametrize("tie", [True, False])
def test_whole_weights_come_out_as_they_were_trained(tie: bool, tmp_path: Path) -> None:
    import torch

    folder = build_model("qwen2", tmp_path / "model", tie=tie, shard_size="200KB")
    model = load_pruned(folder, torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    model.save_pretrained(tmp_path / "state")
    found = load_pruned(merged(folder, tmp_path / "state", tmp_path / "out"), torch.float32)
    assert torch.equal(logits(found), logits(model))


def test_a_head_that_is_stored_though_tied_follows_the_embedding(tmp_path: Path) -> None:
    """As converted checkpoints have it: transformers does not save the head of a tied model a second time."""
    import torch
    from safetensors.torch import load_file, save_file

    folder = build_model("qwen2", tmp_path / "model", tie=True)
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    model = load_pruned(folder, torch.float32)
    with torch.no_grad():
        model.model.embed_tokens.weight.mul_(1.5)
    model.save_pretrained(tmp_path / "state")
    out = merged(folder, tmp_path / "state", tmp_path / "out")
    written = load_file(out / "model.safetensors")
    assert torch.equal(written["lm_head.weight"], written["model.embed_tokens.weight"])
    assert torch.equal(written["lm_head.weight"], model.model.embed_tokens.weight)


def test_sums_are_made_in_fp32_and_rounded_once(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    folder = build_model("qwen2", tmp_path / "model", dtype="bfloat16")
    with_adapter(folder, tmp_path / "state")
    adapter = load_file(tmp_path / "state" / "adapter_model.safetensors")
    out = load_file(merged(folder, tmp_path / "state", tmp_path / "out") / "model.safetensors")
    name = "model.layers.1.mlp.down_proj"
    a, b = (adapter[f"base_model.model.{name}.lora_{side}.weight"].double() for side in "AB")
    exact = load_file(folder / "model.safetensors")[f"{name}.weight"].double() + b @ a * (
        RECIPE.lora_alpha / RECIPE.lora_rank
    )
    assert out[f"{name}.weight"].dtype == torch.bfloat16
    assert torch.equal(out[f"{name}.weight"], exact.float().bfloat16())
    assert torch.equal(out["model.norm.weight"], load_file(folder / "model.safetensors")["model.norm.weight"])


def test_a_weight_that_is_no_number_is_refused(
    random_model: Path, tmp_path: Path, edit_adapter: Callable[..., None]
) -> None:
    with_adapter(random_model, tmp_path / "state")
    edit_adapter(
        tmp_path / "state",
        lambda name, tensor: tensor * float("nan") if "layers.2.mlp.up_proj.lora_B" in name else tensor,
    )
    with pytest.raises(MeasurementError, match=r"layers\.2\.mlp\.up_proj\.weight is not finite"):
        merged(random_model, tmp_path / "state", tmp_path / "out")


def test_a_tied_head_that_a_sharded_training_stores_beside_its_embedding_is_not_missed(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = build_model("qwen2", tmp_path / "model", tie=True)
    tensors = load_file(folder / "model.safetensors")
    (tmp_path / "state").mkdir()
    changed = {name: tensor * 1.5 for name, tensor in tensors.items()}
    save_file(
        {**changed, "lm_head.weight": changed["model.embed_tokens.weight"].clone()},
        tmp_path / "state" / "model.safetensors",
    )
    out = load_file(merged(folder, tmp_path / "state", tmp_path / "out") / "model.safetensors")
    assert set(out) == set(tensors) and all((out[name] == changed[name]).all() for name in out)


def test_an_adapter_of_another_model_is_refused(random_model: Path, tmp_path: Path) -> None:
    deeper = build_model("qwen2", tmp_path / "deeper", num_hidden_layers=4)
    with_adapter(deeper, tmp_path / "state")
    with pytest.raises(UnsupportedModelError, match=r"layers\.3\..* which the checkpoint does not have"):
        merged(random_model, tmp_path / "state", tmp_path / "out")


@pytest.fixture()
def edit_adapter() -> Callable[..., None]:
    def edit(state: Path, change: Callable[[str, Any], Any]) -> None:
        from safetensors.torch import load_file, save_file

        file = state / "adapter_model.safetensors"
        save_file({name: change(name, tensor) for name, tensor in load_file(file).items()}, file)

    return edit


def test_a_state_without_weights_is_refused(random_model: Path, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "adapter_config.json").write_text(json.dumps({"r": 4, "lora_alpha": 8}))
    with pytest.raises(UnsupportedModelError, match="neither an adapter nor weights"):
        merged(random_model, tmp_path / "state", tmp_path / "out")
