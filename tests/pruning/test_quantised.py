"""Quantised weights are refused by any mark, with the model they were made from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from harness.core.errors import UnsupportedModelError
from pruning.checkpoint import open_model
from tests.support.models import build_model

pytestmark = pytest.mark.slow

UP = "model.layers.0.mlp.up_proj"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return build_model("llama", tmp_path / "m")


def _with(model: Path, **tensors: torch.Tensor) -> None:
    values = {**load_file(model / "model.safetensors"), **{f"{UP}.{name}": value for name, value in tensors.items()}}
    save_file(values, model / "model.safetensors", {"format": "pt"})


MARKS = (
    *("weight_scale", "weight_scale_inv", "weight_scale_2", "input_scale", "weight_packed", "weight_zero_point"),
    *(
        "scales",
        "qweight",
        "qzeros",
        "g_idx",
        "SCB",
        "W_q",
        "codebooks",
        "weight.absmax",
        "weight.quant_state.bitsandbytes__nf4",
    ),
)


@pytest.mark.parametrize("name", MARKS)
def test_a_tensor_of_a_quantisation_tool_is_a_mark(name: str, model: Path) -> None:
    _with(model, **{name: torch.ones(1)})
    with pytest.raises(
        UnsupportedModelError, match=rf"is quantised \(tensor {UP}\.{name}\); give the model it was made"
    ):
        open_model(model)


@pytest.mark.parametrize(
    ("dtype", "code"),
    [(torch.int8, "I8"), (torch.uint8, "U8"), (torch.float8_e4m3fn, "F8_E4M3"), (torch.float8_e8m0fnu, "F8_E8M0")],
)
def test_weights_that_are_no_floating_point_numbers_are_a_mark(dtype: torch.dtype, code: str, model: Path) -> None:
    _with(model, weight=torch.ones(96, 64).to(dtype))
    with pytest.raises(UnsupportedModelError, match=rf"is quantised \({UP}.weight is {code}\)"):
        open_model(model)


def test_a_type_smaller_than_a_byte_is_a_mark(model: Path) -> None:
    raw = (model / "model.safetensors").read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header = raw[8 : 8 + size].replace(b'"dtype":"F32"', b'"dtype":"F4" ', 1)
    (model / "model.safetensors").write_bytes(raw[:8] + header + raw[8 + size :])
    with pytest.raises(UnsupportedModelError, match=r"is quantised \(\S+ is F4\)"):
        open_model(model)


@pytest.mark.parametrize("key", ["quantization_config", "compression_config"])
def test_a_key_of_config_json_is_a_mark(key: str, model: Path) -> None:
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    (model / "config.json").write_text(json.dumps({**config, key: {"bits": 4}}), encoding="utf-8")
    (model / "README.md").write_text("---\nbase_model: some/original\n---\n", encoding="utf-8")
    with pytest.raises(UnsupportedModelError, match=rf"quantised \({key}\); give some/original"):
        open_model(model)


@pytest.mark.parametrize("file", ["hf_quant_config.json", "quantize_config.json"])
def test_a_file_is_a_mark_only_where_weights_are_missing(file: str, model: Path) -> None:
    (model / file).write_text("{}", encoding="utf-8")
    open_model(model)  # a leftover beside weights that are whole
    values = load_file(model / "model.safetensors")
    del values[f"{UP}.weight"]
    save_file(values, model / "model.safetensors", {"format": "pt"})
    with pytest.raises(UnsupportedModelError, match=rf"is quantised \({file}\)"):
        open_model(model)


def test_scales_of_the_cache_say_nothing_of_the_weights(model: Path) -> None:
    values = load_file(model / "model.safetensors")
    scale = {"model.layers.0.self_attn.k_scale": torch.ones(1), "model.layers.0.self_attn.v_scale": torch.ones(1)}
    save_file({**values, **scale}, model / "model.safetensors", {"format": "pt"})
    assert open_model(model).shape.num_hidden_layers == 3


def test_the_card_names_the_original(model: Path) -> None:
    _with(model, weight_scale=torch.ones(1))
    card = "---\nbase_model:\n- Qwen/Qwen2.5-7B-Instruct\nbase_model_relation: quantized\n---\nA card.\n"
    (model / "README.md").write_text(card, encoding="utf-8")
    with pytest.raises(
        UnsupportedModelError, match=r"give Qwen/Qwen2.5-7B-Instruct, from which it was made by its card"
    ):
        open_model(model)
