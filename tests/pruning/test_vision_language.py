"""Vision-language models: the text model alone is pruned, and those that are not supported are refused with advice."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from harness.core.errors import UnsupportedModelError, UsageError
from pruning.checkpoint import open_model
from pruning.export import export, predict_size
from pruning.families import FAMILIES, family_of, shape_of, stored_dtype
from tests.support.models import SIZES, build_model, plain
from tests.support.pruned import masked_logits, plan_for, ragged_plan

Change = Callable[[dict[str, Any]], dict[str, Any]]
TOWERS = [name for name, family in FAMILIES.items() if family.tower]
# how versions of transformers, and the checkpoints on the Hub, begin the names of tensors
AS_SAVED: dict[str, str] = {}
IN_MODEL = {
    "language_model.model.": "model.language_model.",
    "language_model.lm_head.": "lm_head.",
    "vision_tower.": "model.vision_tower.",
    "multi_modal_projector.": "model.multi_modal_projector.",
    "visual.": "model.visual.",
    "model.": "model.language_model.",
}


def renamed(folder: Path, starts: dict[str, str]) -> Path:
    values = load_file(folder / "model.safetensors")
    found = {}
    for name, value in values.items():
        start = next((start for start in starts if name.startswith(start)), "")
        found[starts.get(start, "") + name.removeprefix(start)] = value
    save_file(found, folder / "model.safetensors", {"format": "pt"})
    return folder


def config_of(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "config.json").read_text()))


def with_config(folder: Path, change: Change) -> Path:
    (folder / "config.json").write_text(json.dumps(change(config_of(folder))))
    return folder


def flat(config: dict[str, Any]) -> dict[str, Any]:
    """As Qwen2.5-VL lies on the Hub: no text_config."""
    text = config.pop("text_config")
    return {**text, **config}


def at_both_levels(config: dict[str, Any]) -> dict[str, Any]:
    return {**config["text_config"], **config}


CHECKPOINTS = [
    ("gemma3", AS_SAVED, dict),
    ("gemma3", IN_MODEL, dict),
    ("qwen2_5_vl", AS_SAVED, dict),
    ("qwen2_5_vl", IN_MODEL, dict),
    ("qwen2_5_vl", AS_SAVED, flat),
    ("qwen2_5_vl", AS_SAVED, at_both_levels),
]


@pytest.mark.slow
@pytest.mark.parametrize("tie", [False, True])
@pytest.mark.parametrize(("model_type", "names", "change"), CHECKPOINTS)
def test_the_text_model_is_pruned_and_the_rest_is_the_same_bytes(
    model_type: str,
    names: dict[str, str],
    change: Change,
    tie: bool,
    tmp_path: Path,
) -> None:
    dense = with_config(renamed(build_model(model_type, tmp_path / "dense", tie=tie), names), change)
    plan = plan_for(dense)
    predicted = predict_size(open_model(dense), plan)
    made = export(open_model(dense), plan, tmp_path / "pruned")
    assert (made.parameters, made.weight_bytes) == (predicted.parameters, predicted.weight_bytes)
    assert made.parameters == open_model(dense).parameters - 3 * 36 * 3 * 64

    ids = torch.randint(2, 1000, (2, 24), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = plain(made.path, dtype=torch.float32, attn_implementation="eager")(ids).logits
    torch.testing.assert_close(found, masked_logits(dense, plan, ids), rtol=1e-5, atol=1e-4)

    before, after = (load_file(folder / "model.safetensors") for folder in (dense, made.path))
    cut = {name for name in before if re.search(r"(?<!visual\.)layers\.\d+\.mlp\.(gate|up|down)_proj\.weight", name)}
    assert len(cut) == 9 and before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before.keys() - cut)
    assert all(60 in after[name].shape for name in cut)

    new = config_of(made.path)
    levels = [level for level in (new, new.get("text_config", {})) if "intermediate_size" in level]
    assert levels and all(level.pop("intermediate_size") == 60 for level in levels)
    old = config_of(dense)
    for level in (old, old.get("text_config", {})):
        level.pop("intermediate_size", None)
    assert new == old


@pytest.mark.slow
@pytest.mark.parametrize("model_type", TOWERS)
def test_parameters_count_both_towers(model_type: str, tmp_path: Path) -> None:
    folder = build_model(model_type, tmp_path / "m", tie=True)
    assert open_model(folder).parameters == sum(value.numel() for value in plain(folder).parameters())


@pytest.mark.parametrize(
    "name",
    [
        "vision_tower.encoder.layers.0.mlp.down_proj.weight",
        "vision_tower.vision_model.encoder.layers.0.mlp.up_proj.weight",
        "model.vision_tower.encoder.layers.0.mlp.gate_proj.weight",
        "visual.blocks.0.mlp.gate_proj.weight",
        "visual.layers.0.mlp.gate_proj.weight",
        "model.visual.layers.0.mlp.down_proj.weight",
        "multi_modal_projector.layers.0.mlp.down_proj.weight",
    ],
)
@pytest.mark.parametrize("model_type", TOWERS)
def test_the_vision_towers_ffn_is_none_of_the_text_models(model_type: str, name: str) -> None:
    assert FAMILIES[model_type].tensor(name) is None


@pytest.mark.parametrize("model_type", TOWERS)
def test_widths_of_their_own_are_refused(model_type: str, tmp_path: Path) -> None:
    dense = build_model(model_type, tmp_path / "dense")
    with pytest.raises(UsageError, match=f"{model_type} with non-uniform FFN widths; use --allocation uniform"):
        export(open_model(dense), ragged_plan(dense), tmp_path / "out")


@pytest.mark.parametrize("model_type", TOWERS)
def test_a_folder_without_one_of_the_towers_is_refused(model_type: str, tmp_path: Path) -> None:
    whole = load_file(build_model(model_type, tmp_path / "m") / "model.safetensors")
    text = {name: value for name, value in whole.items() if not name.startswith(("vision_tower.", "visual."))}
    for kept, missing in ((text, "vision tower"), ({k: v for k, v in whole.items() if k not in text}, "text model")):
        save_file(kept, tmp_path / "m" / "model.safetensors", {"format": "pt"})
        with pytest.raises(UnsupportedModelError, match=f"a vision-language model, and has no tensor of its {missing}"):
            open_model(tmp_path / "m")


def test_a_missing_tensor_of_the_text_model_is_named(tmp_path: Path) -> None:
    folder = build_model("gemma3", tmp_path / "m")
    values = load_file(folder / "model.safetensors")
    values.pop("language_model.model.layers.1.mlp.up_proj.weight")
    save_file(values, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(UnsupportedModelError, match=r"has no model.language_model.layers.1.mlp.up_proj.weight"):
        open_model(folder)


def test_dtype_and_heads_are_read_at_either_level() -> None:
    text = {key: value for key, value in SIZES.items() if key != "head_dim"}
    config = {"model_type": "gemma3", "vision_config": {}, "text_config": {**text, "torch_dtype": "float16"}}
    assert (stored_dtype(config).name, shape_of(config).head_dim, shape_of(config).tied) == ("float16", 256, True)
    inside = {"model_type": "qwen2_5_vl", "text_config": {**text, "tie_word_embeddings": True}}
    assert shape_of(inside).tied and not shape_of({"model_type": "qwen2_5_vl", "text_config": text}).tied


VISION = {"vision_config": {"model_type": "some_vision_model"}}
OTHERS = {
    "qwen2_vl": ({"model_type": "qwen2_vl", **SIZES, **VISION}, "Qwen2ForCausalLM"),
    "qwen2_vl today": (
        {"model_type": "qwen2_vl", "text_config": {"model_type": "qwen2_vl_text"}},
        "Qwen2ForCausalLM",
    ),
    "qwen3_vl": ({"model_type": "qwen3_vl", "text_config": {"model_type": "qwen3_vl_text"}}, "Qwen3ForCausalLM"),
    "qwen3_vl_moe": ({"model_type": "qwen3_vl_moe", "text_config": {"num_experts": 8}}, "not of a known kind"),
    "llava": ({"model_type": "llava", "text_config": {"model_type": "llama"}, **VISION}, "LlamaForCausalLM"),
    "llava's own": ({"model_type": "llava_llama", "mm_vision_tower": "openai/clip"}, "not of a known kind"),
    "mllama": ({"model_type": "mllama", "text_config": {"model_type": "mllama_text_model"}}, "not of a known kind"),
    "mistral3": ({"model_type": "mistral3", "text_config": {"model_type": "mistral"}}, "MistralForCausalLM"),
    "paligemma": ({"model_type": "paligemma", "text_config": {"model_type": "gemma2"}}, "Gemma2ForCausalLM"),
    "idefics": ({"model_type": "idefics", **VISION}, "not of a known kind"),
    "idefics3": ({"model_type": "idefics3", "text_config": {"model_type": "llama"}, **VISION}, "LlamaForCausalLM"),
    "internvl_chat": ({"model_type": "internvl_chat", "llm_config": {"model_type": "qwen2"}}, "Qwen2ForCausalLM"),
    "phi3_v": ({"model_type": "phi3_v", "img_processor": {"name": "clip"}}, "not of a known kind"),
    "qwen": ({"model_type": "qwen", "visual": {"width": 1}}, "not of a known kind"),
    "unheard of": ({"model_type": "x" * 999, "vision_config": {"a": 1}}, "not of a known kind"),
    "text type, with images": ({"model_type": "llama", **SIZES, **VISION}, "LlamaForCausalLM"),
    "no type": (VISION, "not of a known kind"),
    "hostile": ({"model_type": ["gemma3"], "text_config": {"model_type": {"a": 1}}}, "not of a known kind"),
}


@pytest.mark.parametrize("case", OTHERS)
def test_every_other_one_is_refused_in_a_line_with_advice(case: str) -> None:
    config, advice = OTHERS[case]
    with pytest.raises(UnsupportedModelError) as refused:
        family_of(config)
    text = str(refused.value)
    assert ("llama with vision_config is" in text) == (case == "text type, with images")
    assert "is a vision-language model (it reads images); only text models" in text
    assert advice in text and "families.py" not in text and "\n" not in text and len(text) < 400


def test_sizes_that_are_missing_are_the_text_models() -> None:
    with pytest.raises(UnsupportedModelError, match="text_config, of a vision-language model, has no usable"):
        shape_of({"model_type": "gemma3", "text_config": {"num_hidden_layers": 2, "intermediate_size": 8}})


def test_a_model_that_hears_is_not_said_to_see() -> None:
    with pytest.raises(UnsupportedModelError, match="an audio-language model"):
        family_of({"model_type": "qwen2_audio", "audio_config": {}, "text_config": {"model_type": "qwen2"}})


@pytest.mark.parametrize("extra", [{"vision_config": None}, {"image_token_id": 7}, {"text_config": {}}])
def test_a_text_model_with_a_stray_key_stays_one(extra: dict[str, Any]) -> None:
    assert family_of({"model_type": "llama", **SIZES, **extra}) is FAMILIES["llama"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model_type", "text_type"),
    [("gemma3", "Gemma3"), ("qwen2_5_vl", "Qwen2"), ("qwen2_vl", "Qwen2"), ("qwen3_vl", "Qwen3"), ("llava", "Llama")],
)
def test_the_text_model_saved_alone_as_the_docs_say_gives_the_same_logits(
    model_type: str, text_type: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "your-model.md").read_text()
    code = next(block for block in re.findall(r"```python\n(.*?)```", page, re.S) if "language_model" in block)
    config_class = "Gemma3TextConfig" if text_type == "Gemma3" else f"{text_type}Config"
    code = code.replace("Qwen2Config", config_class).replace("Qwen2ForCausalLM", f"{text_type}ForCausalLM")
    monkeypatch.chdir(tmp_path)
    whole = build_model(model_type, tmp_path / "qwen2-vl")
    exec(code, {})
    alone = open_model(tmp_path / "text-model")
    assert alone.family.architecture == f"{text_type}ForCausalLM"
    ids = torch.randint(2, 1000, (2, 24), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = plain(whole)(ids).logits
        found = transformers.AutoModelForCausalLM.from_pretrained(alone.path)(ids).logits
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)
    assert not any(key.startswith("mrope") for key in alone.config["rope_parameters"])  # vLLM would look for images
