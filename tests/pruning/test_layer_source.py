"""Layers read from the shards against the whole model, for every family; and what is read, refused and kept."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from harness.core.errors import UnsupportedModelError
from harness.core.safetensors_stream import Entry
from harness.core.types.pruning import ActivationStats
from pruning import second_moments
from pruning.activations import pad
from pruning.calibration import batches
from pruning.checkpoint import open_model, read_tensor
from pruning.collect import collect
from pruning.families import FAMILIES, submodule
from pruning.layer_source import FromShards, InMemory
from pruning.layer_walk import LayerWalk
from pruning.loader import load_pruned
from pruning.second_moments import SecondMoments
from pruning.shards import Shard
from tests.support.calibration import CALIBRATION
from tests.support.models import build_model

pytestmark = pytest.mark.slow

_KINDS = {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}
OF_TWO_KINDS: dict[str, dict[str, Any]] = {"gemma2": _KINDS, "gemma3_text": _KINDS}  # with masks of their own


def assert_same(found: ActivationStats, expected: ActivationStats) -> None:
    np.testing.assert_allclose(found.down_norm, expected.down_norm, rtol=1e-6)
    for group, other in ((found.target, expected.target), (found.distractor, expected.distractor)):
        assert group.tokens == other.tokens and group.prompts.count == other.prompts.count
        np.testing.assert_allclose(group.prompts.m2, other.prompts.m2, rtol=1e-4, atol=1e-5)
        for name in (field.name for field in fields(group) if field.name not in ("prompts", "tokens")):
            values = getattr(other, name)
            assert (values is None) == (getattr(group, name) is None)
            if values is not None:
                np.testing.assert_allclose(getattr(group, name), values, rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("model_type", sorted(FAMILIES))
def test_layers_from_the_shards_are_those_of_the_whole_model(model_type: str, tmp_path: Path) -> None:
    """The same statistics, the same second moments, and after the last layer the body's own hidden states."""
    family = FAMILIES[model_type]
    kinds = OF_TWO_KINDS.get(model_type, {})
    folder = open_model(build_model(model_type, tmp_path / "m", tie=family.tied, shard_size="200KB", **kinds))
    assert len(folder.shards) > 1
    model = load_pruned(folder, torch.float32)
    streamed, whole = FromShards(folder, torch.float32, "cpu", CALIBRATION), InMemory(model, family)
    seen = []
    for source, place in ((streamed, tmp_path / "a"), (whole, tmp_path / "b")):
        gate = family.gate is not None
        seen.append(collect(source, CALIBRATION, gate, moments=SecondMoments(CALIBRATION, 0.3, place)))
    assert_same(*seen)
    for layer in range(3):
        found, expected = (second_moments.load(tmp_path / name, layer) for name in "ab")
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert {parameter.device.type for parameter in streamed.stack.parameters()} == {"meta"}
    for walk in (LayerWalk(source, CALIBRATION.items) for source in (streamed, whole)):
        _check_hidden_states(walk, model)


def _check_hidden_states(walk: LayerWalk, model: Any) -> None:
    """Against the output of the last layer in the body's own pass over the same batch."""
    for layer in range(3):
        with walk.source.layer(layer) as module:
            walk.forward(module)
    last = submodule(model, walk.family.layers)[-1]
    for number, batch in enumerate(batches(CALIBRATION.items)):
        ids, attention, _ = pad(batch, "cpu")
        found: list[Any] = []
        hook = last.register_forward_hook(lambda _m, _i, out, found=found: found.append(out))
        with torch.inference_mode():
            getattr(model, walk.family.body)(input_ids=ids, attention_mask=attention, use_cache=False)
        hook.remove()
        real = attention.bool()
        torch.testing.assert_close(walk.hidden.read(number, "cpu")[real], found[0][real], rtol=1e-4, atol=1e-4)


def test_of_the_embedding_only_rows_are_read_and_of_the_head_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, read = open_model(build_model("qwen2", tmp_path)), []

    def reading(shard: Shard, entry: Entry) -> Any:
        read.append(entry.name)
        return read_tensor(shard, entry)

    monkeypatch.setattr("pruning.layer_source.read_tensor", reading)
    source = FromShards(folder, torch.float32, "cpu", CALIBRATION)
    assert read == ["model.norm.weight"]
    tokens = {0, *(token for item in CALIBRATION.items for token in item.token_ids)}
    assert len(source.model.get_input_embeddings().weight) == len(tokens) < 1088
    assert source.model.lm_head.weight.device.type == "meta"
    with source.layer(1):
        assert all(name.startswith("model.layers.1.") for name in read[1:]) and len(read) == 1 + 12


def test_what_is_not_finite_is_refused_by_name_when_its_layer_is_read(tmp_path: Path) -> None:
    folder = build_model("qwen2", tmp_path)
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"][0, 0] = float("nan")
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    source = FromShards(open_model(folder), torch.float32, "cpu", CALIBRATION)
    with pytest.raises(UnsupportedModelError, match=r"weight model\.layers\.1\.mlp\.up_proj\.weight holds NaN"):
        collect(source, CALIBRATION)


def test_accelerates_hooks_are_as_they_were_and_change_nothing(random_model: Path) -> None:
    """As on a model that is spread over several GPUs, each layer's forward is accelerate's."""
    from accelerate import dispatch_model

    family = FAMILIES["qwen2"]
    plain, model = (load_pruned(random_model, torch.float32) for _ in range(2))
    blocks = (
        "model.embed_tokens",
        *(f"model.layers.{i}" for i in range(3)),
        "model.norm",
        "model.rotary_emb",
        "lm_head",
    )
    dispatch_model(model, dict.fromkeys(blocks, "cpu"), main_device="cpu", force_hooks=True)
    hooked = [vars(layer)["forward"] for layer in model.model.layers]
    found = collect(InMemory(model, family), CALIBRATION)
    assert_same(found, collect(InMemory(plain, family), CALIBRATION))
    assert [vars(layer)["forward"] for layer in model.model.layers] == hooked
    assert not any("forward" in vars(layer) for layer in plain.model.layers)
