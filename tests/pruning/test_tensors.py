"""The tables of tensors against transformers' own models, and checkpoints whose files hold something else."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoConfig

from harness.core.errors import UnsupportedModelError
from pruning.checkpoint import open_model
from pruning.families import FAMILIES, count_of, shape_of, tensors_of, widths_of
from pruning.loader import from_folder
from tests.support.models import auto_class, build_model, sizes_of

pytestmark = pytest.mark.slow

VARIANTS: list[dict[str, Any]] = [
    {},
    {"tie_word_embeddings": True},
    {"tie_word_embeddings": False, "attention_bias": True},
    {"attention_bias": False, "mlp_bias": True, "head_dim": 16},
    {"num_key_value_heads": None},
    {"enable_bias": False, "layer_norm_elementwise_affine": False},
    {"word_embed_proj_dim": 32, "do_layer_norm_before": False},
]


def on_meta(model_type: str, **changes: Any) -> Any:
    return built(AutoConfig.for_model(model_type, **with_sizes(model_type, **changes)))


def built(config: Any) -> Any:
    with torch.device("meta"):
        return getattr(transformers, auto_class(config.model_type)).from_config(config)


def with_sizes(model_type: str, **changes: Any) -> dict[str, Any]:
    """Sizes of a vision-language model are those of its text model."""
    sizes = sizes_of(model_type)
    if "text_config" not in sizes:
        return {**sizes, **changes}
    tied = {key: value for key, value in changes.items() if key == "tie_word_embeddings"}
    return {**sizes, **tied, "text_config": {**sizes["text_config"], **changes}}


def in_files(model: Any) -> dict[str, tuple[int, ...]]:
    """name -> shape of a text model's parameters, as `save_pretrained` names them."""
    head = "embed_out" if model.config.model_type == "gpt_neox" else "lm_head"
    parameters = {name.replace("lm_head", head): tuple(value.shape) for name, value in model.named_parameters()}
    beside = ("model.vision_tower.", "model.visual.", "model.multi_modal_projector.")
    return {name: shape for name, shape in parameters.items() if not name.startswith(beside)}


@pytest.mark.parametrize("changes", VARIANTS, ids=lambda changes: "-".join(changes) or "default")
@pytest.mark.parametrize("model_type", FAMILIES)
def test_the_tables_are_what_transformers_builds(model_type: str, changes: dict[str, Any]) -> None:
    if model_type in ("mistral", "gemma2", "gemma3_text", "gemma3") and "num_key_value_heads" in changes:
        changes = {}  # transformers refuses null in these
    if model_type == "qwen2_5_vl":
        changes = {key: value for key, value in changes.items() if key != "head_dim"}  # transformers does not read it
    model = on_meta(model_type, **changes)
    config = json.loads(model.config.to_json_string(use_diff=False))
    widths = widths_of(config)
    assert tensors_of(config, widths) == in_files(model)
    assert count_of(config, widths) == sum(map(math.prod, in_files(model).values()))


@pytest.mark.parametrize("model_type", FAMILIES)
def test_a_size_that_config_json_lacks_is_the_one_of_transformers(model_type: str) -> None:
    lacking = ("num_key_value_heads", "head_dim")
    sizes = without(with_sizes(model_type, hidden_size=256, num_attention_heads=64), lacking)
    config = AutoConfig.for_model(model_type, **sizes)
    values = without(config.to_dict(), lacking)
    assert tensors_of(values, widths_of(values)) == in_files(built(config))


def test_what_the_hubs_gemma_3_leaves_out_is_the_default_of_transformers() -> None:
    lacking = ("num_attention_heads", "num_key_value_heads", "head_dim", "vocab_size", "max_position_embeddings")
    sizes = without(with_sizes("gemma3", tie_word_embeddings=True), lacking)
    values = {"model_type": "gemma3", **sizes}
    assert tensors_of(values, widths_of(values)) == in_files(built(AutoConfig.for_model("gemma3", **sizes)))
    assert shape_of(values).max_position_embeddings == 131_072


def without(values: dict[str, Any], lacking: tuple[str, ...]) -> dict[str, Any]:
    """At both levels of a config.json."""
    own = {key: value for key, value in values.items() if key not in lacking}
    return {**own, "text_config": without(own["text_config"], lacking)} if "text_config" in own else own


def changed(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> Path:
    values = load_file(folder / "model.safetensors")
    change(values)
    save_file(values, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.mark.parametrize(
    "name",
    [
        "model.layers.1.self_attn.q_proj.weight",
        "model.layers.0.self_attn.k_proj.bias",
        "model.layers.2.post_attention_layernorm.weight",
        "model.layers.0.mlp.gate_proj.weight",
        "model.embed_tokens.weight",
        "model.norm.weight",
        "lm_head.weight",
    ],
)
def test_a_missing_tensor_is_named(name: str, tmp_path: Path) -> None:
    model = changed(build_model("qwen2", tmp_path / "m"), lambda values: values.pop(name))
    with pytest.raises(
        UnsupportedModelError, match=rf"has no {name} \(1 of \d+ tensors missing\); get the model again"
    ):
        open_model(model)


def test_a_tensor_of_another_name_is_missing(tmp_path: Path) -> None:
    def rename(values: dict[str, torch.Tensor]) -> None:
        values["model.layers.2.mlp.w3.weight"] = values.pop("model.layers.2.mlp.up_proj.weight")

    with pytest.raises(UnsupportedModelError, match=r"has no model.layers.2.mlp.up_proj.weight \(1 of"):
        open_model(changed(build_model("qwen2", tmp_path / "m"), rename))


def test_what_transformers_makes_up_is_refused_even_if_the_headers_are_not_looked_at(tmp_path: Path) -> None:
    model = build_model("qwen2", tmp_path / "m")
    opened = open_model(model)
    changed(model, lambda values: values.pop("model.layers.1.input_layernorm.weight"))
    with pytest.raises(
        UnsupportedModelError, match=r"has no model.layers.1.input_layernorm.weight \(1 tensors missing"
    ):
        from_folder(opened)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("model.embed_tokens.weight", (1100, 64)),  # vLLM would take the first rows
        ("lm_head.weight", (1000, 64)),
        ("model.layers.0.self_attn.q_proj.weight", (128, 64)),
        ("model.layers.1.self_attn.v_proj.bias", (64,)),
        ("model.layers.2.input_layernorm.weight", (65,)),
        ("model.layers.2.mlp.down_proj.weight", (64, 100)),
    ],
)
def test_a_shape_that_config_json_does_not_say_is_refused(name: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    def widen(values: dict[str, torch.Tensor]) -> None:
        values[name] = torch.zeros(shape)

    model = changed(build_model("qwen2", tmp_path / "m"), widen)
    with pytest.raises(
        UnsupportedModelError, match=rf"{name} is \[{', '.join(map(str, shape))}\], and config.json says"
    ):
        open_model(model)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("score.weight", "reward or classification model"),
        ("v_head.summary.weight", "reward or classification model"),
        ("rm_head.weight", "reward or classification model"),
        ("regression_layer.weight", "reward or classification model"),
        ("model.score.weight", "reward or classification model"),
        ("model.layers.0.self_attn.q_norm.weight", "no part of the llama"),
        ("model.layers.0.mlp.up_proj.bias", "no part of the llama"),
        ("model.layers.3.mlp.up_proj.weight", "no part of the llama"),
        ("layers.0.mlp.up_proj.weight", r"one tensor twice, as \S*layers.0.mlp.up_proj.weight and as"),
    ],
)
def test_tensors_of_another_kind_of_model_are_refused(name: str, message: str, tmp_path: Path) -> None:
    model = changed(build_model("llama", tmp_path / "m"), lambda values: values.update({name: torch.zeros(96)}))
    with pytest.raises(UnsupportedModelError, match=message):
        open_model(model)


@pytest.mark.parametrize(
    "name", ["draft.layers.0.mlp.up_proj.weight", "model.layers.0.self_attn.rotary_emb.inv_freq", "medusa.0.weight"]
)
def test_tensors_beside_the_model_are_neither_cut_nor_counted(name: str, tmp_path: Path) -> None:
    plain = open_model(build_model("llama", tmp_path / "plain"))
    model = changed(build_model("llama", tmp_path / "m"), lambda values: values.update({name: torch.ones(96, 64)}))
    opened = open_model(model)
    assert opened.parameters == plain.parameters
    assert name not in {entry.name for _, entry, _, _ in opened.ffn_entries()}


def test_a_tied_head_counts_once_also_where_it_is_stored(tmp_path: Path) -> None:
    model = build_model("qwen2", tmp_path / "m", tie=True)
    before = open_model(model).parameters
    assert before == sum(value.numel() for value in from_folder(open_model(model)).parameters())
    changed(model, lambda values: values.update({"lm_head.weight": values["model.embed_tokens.weight"].clone()}))
    assert open_model(model).parameters == before


def test_a_checkpoint_of_the_body_alone_is_the_same_model(tmp_path: Path) -> None:
    model = build_model("qwen3", tmp_path / "m", tie=True)
    whole = open_model(model)

    def shorten(values: dict[str, torch.Tensor]) -> None:
        for name in list(values):
            values[name.removeprefix("model.")] = values.pop(name)

    bare = open_model(changed(model, shorten))
    assert bare.parameters == whole.parameters
    assert {(cut, layer) for _, _, cut, layer in bare.ffn_entries()} == {
        (cut, layer) for _, _, cut, layer in whole.ffn_entries()
    }


@pytest.mark.parametrize("as_list", [True, False])
@pytest.mark.parametrize("named", ["Qwen2ForSequenceClassification", "Qwen2Model", "LlamaForCausalLM"])
def test_architectures_other_than_the_language_model_are_refused(named: str, as_list: bool, tmp_path: Path) -> None:
    model = build_model("qwen2", tmp_path / "m")
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    value = [named] if as_list else named
    (model / "config.json").write_text(json.dumps({**config, "architectures": value}), encoding="utf-8")
    with pytest.raises(
        UnsupportedModelError, match=rf"names {named}; of qwen2 only language models \(Qwen2ForCausalLM"
    ):
        open_model(model)


def test_an_embedding_model_is_refused(tmp_path: Path) -> None:
    model = build_model("qwen3", tmp_path / "m")
    (model / "modules.json").write_text("[]", encoding="utf-8")
    with pytest.raises(UnsupportedModelError, match=r"holds modules.json: it is an embedding model"):
        open_model(model)


@pytest.mark.parametrize(
    ("prefix", "advice"),
    [
        ("base_model.model.", "merge it first"),
        ("_orig_mod.", "begin with _orig_mod., of the wrapper"),
        ("module.", "begin with module., of the wrapper"),
    ],
)
def test_names_of_a_wrapper_are_known(prefix: str, advice: str, tmp_path: Path) -> None:
    def wrap(values: dict[str, torch.Tensor]) -> None:
        for name in list(values):
            values[prefix + name] = values.pop(name)

    with pytest.raises(UnsupportedModelError, match=advice):
        open_model(changed(build_model("llama", tmp_path / "m"), wrap))


@pytest.mark.parametrize(
    "head", [torch.zeros(1000, 64), torch.zeros(1088, 64, dtype=torch.int8)], ids=lambda head: str(head.dtype)
)
def test_a_stored_head_that_cannot_be_the_embedding_is_refused(head: torch.Tensor, tmp_path: Path) -> None:
    model = build_model("qwen2", tmp_path / "m", tie=True)
    changed(model, lambda values: values.update({"lm_head.weight": head}))
    with pytest.raises(UnsupportedModelError, match=r"lm_head.weight is \[.* config.json ties it to the embedding"):
        open_model(model)
