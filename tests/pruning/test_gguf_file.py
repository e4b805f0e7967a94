"""GGUF files hold the checkpoint: what transformers reads of them computes the same, RoPE in llama.cpp's layout gives
the same attention, and what llama.cpp could not compute is refused before anything is written.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.core.errors import UnsupportedModelError, UsageError
from harness.core.safetensors_stream import as_array
from harness.models.gguf import convert, read_config
from pruning.checkpoint import ModelFolder, open_model
from pruning.export import export
from pruning.gguf_file import gguf_refusal, llama3_factors, neighbours, write_gguf
from tests.support.models import TINY_MATH, build_model
from tests.support.pruned import plan_of

PARTS = ("weight", "bias")
HEADS: dict[str, Any] = {"num_attention_heads": 4, "num_key_value_heads": 2}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 256,
}


def written(folder: Path, out: Path) -> Any:
    """A checkpoint's GGUF file as the gguf package reads it."""
    from gguf import GGUFReader

    return GGUFReader(write_gguf(open_model(folder), out))


def tensors_of_file(reader: Any) -> dict[str, np.ndarray]:
    """FP32, in the shapes of the checkpoint."""
    from gguf import dequantize

    return {tensor.name: dequantize(tensor.data, tensor.tensor_type) for tensor in reader.tensors}


def field(reader: Any, key: str) -> Any:
    return reader.fields[key].contents()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model_type", "tie", "dtype", "changes"),
    [
        ("llama", True, "float32", {"head_dim": 32}),
        ("llama", False, "bfloat16", {"head_dim": 16, "rms_norm_eps": 1e-5}),
        ("qwen2", False, "float16", {"head_dim": 16, "rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}),
        ("qwen3", True, "float32", {"head_dim": 32}),
    ],
)
def test_transformers_computes_the_same_logits(
    model_type: str, tie: bool, dtype: str, changes: dict[str, Any], tmp_path: Path
) -> None:
    """transformers undoes llama.cpp's order of rows with code of its own. Of qwen3 it reads no head_dim."""
    import torch
    from transformers import AutoModelForCausalLM, GgufConfig

    folder = build_model(model_type, tmp_path / "model", tie, dtype, **{**HEADS, **changes})
    reader = written(folder, tmp_path / "model.gguf")
    assert ("output.weight" in {tensor.name for tensor in reader.tensors}) is not tie
    prompt = torch.tensor([[5, 700, 31, 8, 999, 12, 5, 77]])
    wanted = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    config = wanted.config if model_type == "qwen3" else None
    found = AutoModelForCausalLM.from_pretrained(
        tmp_path,
        gguf_file="model.gguf",
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.float32,
        **({"config": config} if config else {}),
    )
    with torch.no_grad():
        torch.testing.assert_close(found(prompt).logits, wanted(prompt).logits, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_the_embedded_model_comes_back_bit_for_bit(tmp_path: Path) -> None:
    written(TINY_MATH, tmp_path / "tiny.gguf")
    convert(tmp_path / "tiny.gguf", tmp_path / "back")
    found, wanted = open_model(tmp_path / "back"), open_model(TINY_MATH)
    assert found.widths == wanted.widths and found.shape == wanted.shape
    ours, theirs = (bits(model) for model in (found, wanted))
    assert ours.keys() == theirs.keys() and all(np.array_equal(ours[name], theirs[name]) for name in ours)


def bits(model: ModelFolder) -> dict[str, np.ndarray]:
    return {entry.name: as_array(shard.path, entry) for shard in model.shards for entry in shard.entries}


def rotated(channels: np.ndarray, position: int, pairs: str) -> np.ndarray:
    """RoPE of one head [head_dim] with theta 10000: `halves` as in transformers, `neighbours` as llama.cpp's NORM."""
    half = len(channels) // 2
    angles = position * 10000.0 ** (-np.arange(half) / half)
    first, second = (channels[:half], channels[half:]) if pairs == "halves" else (channels[::2], channels[1::2])
    turned = (first + 1j * second) * np.exp(1j * angles)
    out = np.empty_like(channels)
    if pairs == "halves":
        out[:half], out[half:] = turned.real, turned.imag
    else:
        out[::2], out[1::2] = turned.real, turned.imag
    return out


def attention_score(x: np.ndarray, q: np.ndarray, k: np.ndarray, pairs: str) -> list[float]:
    """q·k of every query head of 16 channels with its key head, two positions apart; q, k: weight and bias in a row."""
    heads = [
        (np.split(matrix[:, :-1] @ x + matrix[:, -1], len(matrix) // 16), position)
        for matrix, position in ((q, 7), (k, 5))
    ]
    queries, keys = ([rotated(head, position, pairs) for head in each] for each, position in heads)
    return [float(query @ keys[number * len(keys) // len(queries)]) for number, query in enumerate(queries)]


@pytest.mark.slow
@pytest.mark.parametrize(("model_type", "widths"), [("llama", (64, 64, 64)), ("qwen2", (64, 48, 33))])
def test_attention_with_neighbouring_channels_is_that_with_halves(
    model_type: str, widths: tuple[int, ...], tmp_path: Path
) -> None:
    """Biases too; a Qwen2 with widths per layer is a `deci`, whose RoPE is Llama's."""
    biases = {"attention_bias": True} if model_type == "llama" else {}
    dense = build_model(model_type, tmp_path / "dense", head_dim=16, **HEADS, **biases)
    made = export(open_model(dense), plan_of(dense, widths), tmp_path / "made")
    from safetensors.numpy import load_file

    source, reader = load_file(made.path / "model.safetensors"), written(made.path, tmp_path / "made.gguf")
    file, x = tensors_of_file(reader), np.random.default_rng(0).standard_normal(64)
    for layer in range(3):
        own = [
            np.column_stack([source[f"model.layers.{layer}.self_attn.{name}_proj.{part}"] for part in PARTS])
            for name in "qk"
        ]
        theirs = [np.column_stack([file[f"blk.{layer}.attn_{name}.{part}"] for part in PARTS]) for name in "qk"]
        scores = attention_score(x, *own, "halves")
        assert len(scores) == 4 and np.allclose(scores, attention_score(x, *theirs, "neighbours"), rtol=1e-5)
        assert not np.allclose(scores, attention_score(x, *theirs, "halves"), rtol=1e-2)
    lengths = field(reader, f"{field(reader, 'general.architecture')}.feed_forward_length")
    assert lengths == (64 if model_type == "llama" else list(widths))
    assert field(reader, "general.architecture") == ("llama" if model_type == "llama" else "deci")
    down = file["blk.2.ffn_down.weight"]
    assert np.array_equal(down, source["model.layers.2.mlp.down_proj.weight"]) and down.shape == (64, widths[2])


def test_rows_of_a_head_alternate_between_its_halves() -> None:
    rows = np.arange(16).reshape(16, 1)
    assert neighbours(rows, 2)[:, 0].tolist() == [0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15]
    assert neighbours(rows[:, 0], 4).tolist() == [0, 2, 1, 3, 4, 6, 5, 7, 8, 10, 9, 11, 12, 14, 13, 15]


@pytest.mark.slow
def test_frequencies_of_llama3_are_those_of_transformers(tmp_path: Path) -> None:
    from transformers import AutoConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    sizes = {"head_dim": 32, "max_position_embeddings": 2048, "rope_parameters": LLAMA3}
    folder = build_model("llama", tmp_path / "model", **HEADS, **sizes)
    wanted = ROPE_INIT_FUNCTIONS["llama3"](AutoConfig.from_pretrained(folder), "cpu")[0].numpy()
    factors = llama3_factors(LLAMA3, 32)
    plain = 500000.0 ** (-np.arange(16) / 16)
    assert np.allclose(plain / factors, wanted, rtol=1e-6)
    assert factors[0] == 1 and factors[-1] == 8 and any(1 < each < 8 for each in factors), "all three ranges"
    reader = written(folder, tmp_path / "model.gguf")
    assert np.array_equal(tensors_of_file(reader)["rope_freqs.weight"], factors)
    assert field(reader, "llama.rope.freq_base") == 500000.0
    linear = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "rope_parameters": linear}))
    reader = written(folder, tmp_path / "linear.gguf")
    found = [field(reader, f"llama.rope.scaling.{key}") for key in ("type", "factor")]
    assert found == ["linear", 4.0] and "rope_freqs.weight" not in tensors_of_file(reader)
    for name in ("model", "linear"):  # transformers would compute with plain RoPE
        with pytest.raises(UnsupportedModelError, match=r"its RoPE is scaled, .*; give the Hugging Face folder"):
            read_config(tmp_path / f"{name}.gguf")


@pytest.mark.slow
def test_a_file_with_tensors_that_transformers_leaves_out_is_refused(tmp_path: Path) -> None:
    folder = build_model("llama", tmp_path / "model", **HEADS, head_dim=32, attention_bias=True)
    write_gguf(open_model(folder), tmp_path / "model.gguf")
    with pytest.raises(UnsupportedModelError, match=r"has blk\.0\.attn_k\.bias \(\d+ such tensors\)"):
        convert(tmp_path / "model.gguf", tmp_path / "back")


def edited(folder: Path, name: str, edit: Callable[[Any], None]) -> Path:
    """A copy of tiny-math with one JSON file changed."""
    shutil.copytree(TINY_MATH, folder)
    content = json.loads((folder / name).read_text())
    edit(content)
    (folder / name).write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_act": "gelu"}, "SiLU in qwen2, not gelu"),
        ({"use_sliding_window": True}, "no sliding window in qwen2"),
        ({"layer_types": ["full_attention", "sliding_attention"] * 2}, "no sliding window"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 4.0}}, "RoPE of the kind yarn is not written"),
        ({"rope_scaling": {"type": "yarn"}, "rope_parameters": None}, "RoPE of the kind yarn"),
        ({"rope_parameters": LLAMA3}, "qwen2 has no RoPE of the kind llama3"),
        ({"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5}}, "partial_rotary_factor is 0.5"),
    ],
)
def test_what_llama_cpp_computes_otherwise_is_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    folder = edited(tmp_path / "model", "config.json", lambda config: config.update(changes))
    with pytest.raises(UsageError, match=message):
        write_gguf(open_model(folder), tmp_path / "out.gguf")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.slow
def test_architectures_that_llama_cpp_has_not_are_refused(tmp_path: Path) -> None:
    built = {name: open_model(build_model(name, tmp_path / name)) for name in ("mistral", "qwen3", "qwen2")}
    refused = {name: str(gguf_refusal(model, (96,) * 3)) for name, model in built.items()}
    assert refused["mistral"] == "a GGUF file is written of llama, qwen2, qwen3, not of mistral"
    assert refused["qwen3"] == refused["qwen2"] == "None"
    assert gguf_refusal(built["qwen3"], (96, 90, 96)) == "llama.cpp has no qwen3 with an FFN width per layer"
    biased = open_model(build_model("qwen3", tmp_path / "biased", attention_bias=True))
    assert gguf_refusal(biased, (96,) * 3) == "llama.cpp's qwen3 has no biases"
    wide = open_model(build_model("qwen2", tmp_path / "wide", head_dim=64))
    assert "head_dim of hidden_size / heads" in str(gguf_refusal(wide, (96,) * 3))
    double = open_model(build_model("llama", tmp_path / "double", dtype="float64"))
    assert "is F64; F32, F16, BF16 are written" in str(gguf_refusal(double, (96,) * 3))


def test_nothing_is_replaced_and_nothing_half_written_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, out = open_model(TINY_MATH), tmp_path / "out.gguf"
    with pytest.raises(UsageError, match=r"would be one file; give --out NAME.gguf"):
        write_gguf(model, tmp_path / "out")
    out.write_text("mine")
    with pytest.raises(UsageError, match=r"out.gguf is there; remove it"):
        write_gguf(model, out)
    assert out.read_text() == "mine"
    out.unlink()
    import gguf

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(gguf.GGUFWriter, "write_tensor_data", full)
    with pytest.raises(Exception, match="no space left while writing"):
        write_gguf(model, out)
    assert list(tmp_path.iterdir()) == []
