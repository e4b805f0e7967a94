"""Layers without attention in a checkpoint of the plugin: against the dense model with that attention silent."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from harness.core.errors import UnsupportedModelError, UsageError
from pruning.checkpoint import ModelFolder, open_model
from pruning.decilm import write_decilm
from pruning.export import export, predict_size
from pruning.families import FAMILIES
from pruning.gguf_file import gguf_refusal
from pruning.loader import load_pruned
from pruning.missing_attention import without_attention
from pruning.structures import needs_plugin, pruned_kv_bytes, pruned_parameters
from tests.support.pruned import plan_for
from tests.support.structures import grouped_model, hooked_logits, ids, logits, without

pytestmark = pytest.mark.slow
ABLE = sorted(name for name, family in FAMILIES.items() if family.can_lack_attention)


def made_without(model_type: str, root: Path, skip: tuple[int, ...] = (2,)) -> tuple[ModelFolder, ModelFolder]:
    """The dense model and its export without the attention of these layers."""
    model = open_model(grouped_model(model_type, root / "dense", shard_size="100KB"))
    return model, export(model, without(model.path, "attention", skip_attention=skip), root / "pruned")


@pytest.mark.parametrize("skip", [(1,), (1, 2)])
@pytest.mark.parametrize("model_type", ABLE)
def test_an_export_is_the_model_whose_attention_adds_nothing(
    model_type: str, skip: tuple[int, ...], tmp_path: Path
) -> None:
    model, made = made_without(model_type, tmp_path, skip)
    plan = without(model.path, "attention", skip_attention=skip)
    expected = hooked_logits(model.path, plan)
    with torch.no_grad():
        torch.testing.assert_close(load_pruned(made, torch.float32)(ids()).logits, expected, rtol=1e-5, atol=1e-4)
    assert not torch.allclose(expected, logits(model.path), atol=0.1), "what was removed mattered"
    assert made.config["skip_attention"] == list(skip) and made.config["intermediate_sizes"] == [96] * 3
    assert made.config["architectures"] == [f"FFNPruned{model.family.architecture}"]
    sizes = predict_size(model, plan)
    assert (sizes.parameters, sizes.weight_bytes) == (made.parameters, made.weight_bytes)
    left = 3 - len(skip)
    assert made.parameters == pruned_parameters("attention", model.shape, left)
    assert made.shape.kv_bytes_per_token == pruned_kv_bytes("attention", model.shape, left)
    assert "where harness-prune is installed" in (made.path / "README.md").read_text()


def test_layers_keep_their_numbers_among_those_that_stay(tmp_path: Path) -> None:
    model = open_model(grouped_model("llama", tmp_path / "dense"))
    plan = without(model.path, "joint", skip_attention=(1, 2), skip_ffn=(1,))
    made = export(model, plan, tmp_path / "pruned")
    assert needs_plugin(plan) and made.config["skip_attention"] == [1] and made.shape.num_hidden_layers == 2
    with torch.no_grad():
        found = load_pruned(made, torch.float32)(ids()).logits
    torch.testing.assert_close(found, hooked_logits(model.path, plan), rtol=1e-5, atol=1e-4)


def test_answers_of_a_cache_are_those_of_whole_texts(tmp_path: Path) -> None:
    """transformers counts the cached tokens in the first layer, which has its attention."""
    _, made = made_without("qwen2", tmp_path, (1, 2))
    model, prompt = load_pruned(made, torch.float32), ids()[:1]
    answer = model.generate(prompt, max_new_tokens=12, do_sample=False, eos_token_id=None)
    with torch.no_grad():
        chosen = model(answer).logits.argmax(dim=-1)
    assert answer[0, prompt.shape[1] :].tolist() == chosen[0, prompt.shape[1] - 1 : -1].tolist()


def test_a_family_that_cannot_lack_attention_is_refused_where_its_config_says_so(tmp_path: Path) -> None:
    folder = grouped_model("gemma2", tmp_path / "gemma2")
    said = {"intermediate_sizes": [96] * 3, "skip_attention": [1]}
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **said}))
    with pytest.raises(UnsupportedModelError, match="gemma2 with skip_attention is not known"):
        open_model(folder)


def test_other_missing_tensors_are_refused(tmp_path: Path) -> None:
    _, made = made_without("llama", tmp_path)
    config = json.loads((made.path / "config.json").read_text())

    def opened(**changes: Any) -> None:
        (made.path / "config.json").write_text(json.dumps({**config, **changes}))
        open_model(made.path)

    with pytest.raises(UnsupportedModelError, match=r"has no .*layers\.2\.self_attn"):
        opened(skip_attention=[1])
    with pytest.raises(UnsupportedModelError, match=r"layers\.2\..*(self_attn|input_layernorm).*no part of the llama"):
        (tmp_path / "both").mkdir()
        dense = grouped_model("llama", tmp_path / "both" / "dense")
        (dense / "config.json").write_text(json.dumps(config))
        open_model(dense)
    for wrong in ([0], [3], [2, 1], [1, 1], ["1"], "1", [True]):
        with pytest.raises(UnsupportedModelError, match="no usable skip_attention"):
            opened(skip_attention=wrong)


def test_it_is_pruned_no_further_and_is_no_gguf_file(tmp_path: Path) -> None:
    _, made = made_without("llama", tmp_path)
    with pytest.raises(UsageError, match="has layers without attention; prune the model that it was made from"):
        export(made, replace(plan_for(made.path), model_hash=made.fingerprint), tmp_path / "again")
    assert gguf_refusal(made, made.widths) == "layers without attention are not written as GGUF"


def test_it_becomes_a_decilm_folder_with_the_same_tensors(tmp_path: Path) -> None:
    _, made = made_without("llama", tmp_path)
    out = write_decilm(made, tmp_path / "decilm")
    config = json.loads((out / "config.json").read_text())
    assert [block["attention"]["no_op"] for block in config["block_configs"]] == [False, False, True]
    assert "skip_attention" not in config
    for file in made.path.glob("*.safetensors"):
        assert load_file(out / file.name).keys() == load_file(file).keys()
        assert not any("layers.2.self_attn" in name or "layers.2.input_layernorm" in name for name in load_file(file))


def test_attention_is_back_after_a_failure(tmp_path: Path) -> None:
    model = load_pruned(open_model(grouped_model("llama", tmp_path / "dense")), torch.float32)
    before = model(ids()).logits
    with pytest.raises(RuntimeError, match="inside"), without_attention(model.model.layers[1]):
        assert not torch.allclose(model(ids()).logits, before, atol=0.1)
        raise RuntimeError("inside")
    torch.testing.assert_close(model(ids()).logits, before)
