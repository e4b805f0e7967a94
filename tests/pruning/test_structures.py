"""KV groups, blocks and layers that go: the export against the dense model with them silent, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from harness.core.errors import UsageError
from pruning.checkpoint import open_model
from pruning.export import export, predict_size
from pruning.families import FAMILIES
from pruning.masked import load_masked
from pruning.structures import STRUCTURES, check_structure, count_of, pruned_kv_bytes, pruned_parameters
from tests.support.models import build_model
from tests.support.structures import grouped_model, hooked_logits, ids, logits, without

pytestmark = pytest.mark.slow
WITH_GROUPS = sorted(name for name, family in FAMILIES.items() if family.attention.cuts and not family.tower)
OTHER_GROUPS = ((0, 2), (1, 2), (0, 1))  # of each layer others
CHANGES = {"llama": {"attention_bias": True}}


@pytest.mark.parametrize("model_type", WITH_GROUPS)
def test_an_export_without_kv_groups_is_the_model_with_their_heads_silent(model_type: str, tmp_path: Path) -> None:
    model = open_model(grouped_model(model_type, tmp_path / "dense", **CHANGES.get(model_type, {})))
    plan = without(model.path, "kv_group", kv_keep=OTHER_GROUPS)
    made = export(model, plan, tmp_path / "pruned")
    expected = hooked_logits(model.path, plan)
    torch.testing.assert_close(logits(made.path), expected, rtol=1e-5, atol=1e-4)
    assert not torch.allclose(expected, logits(model.path), atol=0.1), "the removed groups mattered"
    sizes = made.shape.num_key_value_heads, made.shape.num_attention_heads, made.shape.head_dim
    assert sizes == (2, 4, 16) and made.widths == model.widths
    predicted = predict_size(model, plan)
    found = (predicted.widths, predicted.parameters, predicted.weight_bytes, predicted.record)
    assert found == (made.widths, made.parameters, made.weight_bytes, made.record)
    assert predicted.parameters == pruned_parameters("kv_group", model.shape, 2)
    assert made.shape.kv_bytes_per_token == pruned_kv_bytes("kv_group", model.shape, 2) == 2 * 3 * 2 * 16 * 4


@pytest.mark.parametrize("model_type", ["llama", "qwen2", "gemma2", "smollm3", "gpt_neox"])
def test_an_export_without_layers_is_the_model_in_which_they_add_nothing(model_type: str, tmp_path: Path) -> None:
    build = build_model if model_type == "gpt_neox" else grouped_model
    model = open_model(build(model_type, tmp_path / "dense", shard_size="100KB"))
    plan = without(model.path, "layer", skip_attention=(1,), skip_ffn=(1,))
    made = export(model, plan, tmp_path / "pruned")
    with torch.no_grad():
        masked = load_masked(model, plan, None, torch.float32)(ids()).logits
    torch.testing.assert_close(logits(made.path), masked, rtol=1e-5, atol=1e-4)
    assert made.shape.num_hidden_layers == 2 and predict_size(model, plan).weight_bytes == made.weight_bytes
    assert made.parameters == pruned_parameters("layer", model.shape, 2)
    config = json.loads((made.path / "config.json").read_text())
    lists = {key: config[key] for key in ("layer_types", "no_rope_layers") if config.get(key)}
    assert all(len(values) == 2 and values[0] == values[1] for values in lists.values())


@pytest.mark.parametrize("skip", [{"skip_attention": (0, 2)}, {"skip_ffn": (1,)}, {"kv_keep": OTHER_GROUPS}])
def test_the_masked_model_is_the_model_without_what_a_plan_removes(skip: dict[str, object], tmp_path: Path) -> None:
    """Also of plans that no plain folder can hold."""
    model = open_model(grouped_model("llama", tmp_path / "dense", mlp_bias=True, attention_bias=True))
    plan = without(model.path, "kv_group" if "kv_keep" in skip else "attention", **skip)
    with torch.no_grad():
        masked = load_masked(model, plan, None, torch.float32)(ids()).logits
    torch.testing.assert_close(masked, hooked_logits(model.path, plan), rtol=1e-5, atol=1e-4)
    assert not torch.allclose(masked, logits(model.path), atol=0.1)


def test_what_no_config_can_say_is_refused(tmp_path: Path) -> None:
    model = open_model(grouped_model("llama", tmp_path / "llama"))
    gemma = open_model(grouped_model("gemma2", tmp_path / "gemma2"))
    for plan, told in (
        (without(model.path, "ffn", skip_ffn=(1,)), "whole layers, not an FFN block alone"),
        (without(model.path, "attention", skip_attention=(0,)), "needs the attention of the first layer"),
        (without(model.path, "kv_group", kv_keep=((0,), (0, 1), (2,))), "one number of KV heads for all layers"),
    ):
        with pytest.raises(UsageError, match=f"{told}.*; `harness export PLAN` says whether another form can"):
            export(model, plan, tmp_path / "pruned")
    with pytest.raises(UsageError, match="gemma2 can leave out whole layers, not an attention block alone"):
        export(gemma, without(gemma.path, "attention", skip_attention=(1,)), tmp_path / "pruned")
    listed = {key: value for key, value in gemma.config.items() if key != "layer_types"}
    (gemma.path / "config.json").write_text(json.dumps(listed))
    bare = open_model(gemma.path)
    with pytest.raises(UsageError, match="without layer_types"):
        export(bare, without(gemma.path, "layer", skip_attention=(1,), skip_ffn=(1,)), tmp_path / "pruned")
    assert not (tmp_path / "pruned").exists()


@pytest.mark.parametrize("model_type", sorted(FAMILIES))
def test_every_family_either_has_kv_groups_or_refuses_them_by_name(model_type: str, tmp_path: Path) -> None:
    if model_type in WITH_GROUPS:
        shape = open_model(grouped_model(model_type, tmp_path / "model")).shape
        check_structure("kv_group", shape)
        assert count_of("kv_group", shape) == 3
        return
    shape = open_model(build_model(model_type, tmp_path / "model")).shape
    with pytest.raises(UsageError, match=f"KV groups of {model_type} cannot be removed: .+; use --structure neuron"):
        check_structure("kv_group", shape)


def test_a_single_kv_head_and_a_single_layer_stay(tmp_path: Path) -> None:
    shape = open_model(build_model("llama", tmp_path / "one", num_hidden_layers=1)).shape
    for name in STRUCTURES.keys() - {"neuron"}:
        with pytest.raises(UsageError, match=r"single one|one layer"):
            check_structure(name, shape)


def test_a_model_without_kv_groups_is_pruned_again(tmp_path: Path) -> None:
    """A Qwen2 that has become a Llama loses neurons as any Llama does, and its record tells both steps."""
    from tests.support.pruned import plan_for

    first = export(
        model := open_model(grouped_model("qwen2", tmp_path / "dense")),
        without(model.path, "kv_group", kv_keep=OTHER_GROUPS),
        tmp_path / "first",
    )
    second = export(first, plan_for(first.path), tmp_path / "second")
    steps = (second.record or {})["steps"]
    assert [step.get("structure") for step in steps] == ["kv_group", None]
    assert (steps[0]["num_key_value_heads"], steps[0]["kv_heads"]) == (3, [2, 2, 2])
    assert (second.family.model_type, second.shape.num_key_value_heads, set(second.widths)) == ("llama", 2, {60})
    card = (second.path / "README.md").read_text()
    assert "KV groups and FFN neurons" in card and "KV heads 3 -> 2" in card


@pytest.mark.parametrize(("model_type", "what"), [("olmo2", "groups"), ("gpt2", "groups"), ("gemma3", "layer")])
def test_a_plan_that_was_not_made_here_is_held_to_what_the_family_can_do_without(
    model_type: str, what: str, tmp_path: Path
) -> None:
    """Else config.json would have fewer heads than the tensors, or text layers that are still there."""
    model = open_model(build_model(model_type, tmp_path / "dense"))
    groups: dict[str, Any] = {
        "kv_keep": (np.zeros(1, np.int32),) * 3,
        "num_key_value_heads": model.shape.num_key_value_heads,
    }
    layer: dict[str, Any] = {"skip_attention": (1,), "skip_ffn": (1,)}
    plan = replace(without(model.path, "layer"), **(groups if what == "groups" else layer))
    with pytest.raises(UsageError, match=f"of {model_type} cannot be removed"):
        export(model, plan, tmp_path / "pruned")
    assert not (tmp_path / "pruned").exists()


@pytest.mark.parametrize("kinds", [["full_attention"], "full_attention"])
def test_a_list_without_an_item_for_each_layer_is_refused_where_layers_go(kinds: object, tmp_path: Path) -> None:
    model = open_model(grouped_model("gemma2", tmp_path / "dense"))
    odd = replace(model, config={**model.config, "layer_types": kinds})
    with pytest.raises(UsageError, match="layer_types has not one item for each layer"):
        export(odd, without(model.path, "layer", skip_attention=(1,), skip_ffn=(1,)), tmp_path / "pruned")
