"""DeciLM folders of plans that no plain folder can hold: tensors and config.json against the dense checkpoint, and the
attention of a layer computed from either. That vLLM runs them is in tests/harness/engine/test_decilm.py.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from harness.core.errors import UsageError
from harness.core.types.pruning import PruningPlan
from pruning import compensation
from pruning.checkpoint import ModelFolder, open_model
from pruning.decilm import export_decilm
from pruning.plan_file import load_plan, save_plan
from tests.support.pruned import plan_keeping

HIDDEN, HEAD, WIDTH, LAYERS = 24, 8, 20, 4
RAGGED = ((0, 1, 2), (1, 3), (3,), (0, 2, 3))  # KV groups that stay, of four
UNEVEN = ((0, 1, 2, 3), (0, 2, 3), (1,), (1, 2))  # eight query heads cannot be shared out among three
Tensors = dict[str, np.ndarray]


def dense(folder: Path, model_type: str = "qwen2", groups: int = 4, per_group: int = 2) -> ModelFolder:
    """A random checkpoint, written without a model library; a Qwen2 has biases on q, k and v."""
    rng, query, key = np.random.default_rng(0), groups * per_group * HEAD, groups * HEAD
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (40, HIDDEN), "model.norm.weight": (HIDDEN,)}
    for layer in range(LAYERS):
        rows = {"self_attn.q_proj": query, "self_attn.k_proj": key, "self_attn.v_proj": key}
        matrices = {**rows, "mlp.gate_proj": WIDTH, "mlp.up_proj": WIDTH}
        below = {f"{name}.weight": (size, HIDDEN) for name, size in matrices.items()}
        below |= {f"{name}.bias": (size,) for name, size in rows.items() if model_type == "qwen2"}
        below |= {"self_attn.o_proj.weight": (HIDDEN, query), "mlp.down_proj.weight": (HIDDEN, WIDTH)}
        below |= {f"{name}_layernorm.weight": (HIDDEN,) for name in ("input", "post_attention")}
        shapes |= {f"model.layers.{layer}.{name}": shape for name, shape in below.items()}
    folder.mkdir()
    save_file(
        {name: rng.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()},
        folder / "model.safetensors",
    )
    config = {
        "model_type": model_type,
        "architectures": [{"qwen2": "Qwen2ForCausalLM", "llama": "LlamaForCausalLM"}[model_type]],
        "hidden_size": HIDDEN,
        "head_dim": HEAD,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": groups * per_group,
        "num_key_value_heads": groups,
        "intermediate_size": WIDTH,
        "vocab_size": 40,
        "max_position_embeddings": 64,
        "tie_word_embeddings": True,
        "dtype": "float32",
    }
    (folder / "config.json").write_text(json.dumps(config))
    return open_model(folder)


def plan_of(model: ModelFolder, widths: Sequence[int] = (WIDTH,) * LAYERS, **what: Any) -> PruningPlan:
    """The last neurons of each layer stay; `what`: kv_keep, skip_attention, skip_ffn."""
    if kept := what.get("kv_keep"):
        groups = tuple(np.array(each, dtype=np.int32) for each in kept)
        what |= {"kv_keep": groups, "num_key_value_heads": model.shape.num_key_value_heads}
    return plan_keeping(model.path, [np.arange(WIDTH - width, WIDTH) for width in widths], WIDTH, **what)


def attention(x: np.ndarray, layer: Tensors, heads: int, kv_heads: int) -> np.ndarray:
    """Grouped-query attention without positions: x [tokens, hidden] -> [tokens, hidden], by its definition."""
    zero = np.zeros(1, np.float32)
    q, k, v = (x @ layer[f"{n}_proj.weight"].T + layer.get(f"{n}_proj.bias", zero) for n in "qkv")
    out = np.zeros((len(x), heads, HEAD))
    for head in range(heads):
        group = head // (heads // kv_heads)
        query, key, value = (each.reshape(len(x), -1, HEAD)[:, i] for each, i in ((q, head), (k, group), (v, group)))
        scores = np.where(np.tri(len(x), dtype=bool), query @ key.T / np.sqrt(HEAD), -np.inf)
        weights = np.exp(scores - scores.max(axis=1, keepdims=True))
        out[:, head] = weights / weights.sum(axis=1, keepdims=True) @ value
    return out.reshape(len(x), -1) @ layer["o_proj.weight"].T


def attention_of(tensors: Tensors, layer: int) -> Tensors:
    prefix = f"model.layers.{layer}.self_attn."
    return {name.removeprefix(prefix): values for name, values in tensors.items() if name.startswith(prefix)}


def written(model: ModelFolder, plan: PruningPlan, out: Path) -> tuple[dict[str, Any], Tensors]:
    export_decilm(model, plan, out)
    return json.loads((out / "config.json").read_text()), load_file(out / "model.safetensors")


@pytest.mark.parametrize("model_type", ["qwen2", "llama"])
@pytest.mark.parametrize(("kept", "heads", "slots"), [(RAGGED, 6, [3, 2, 1, 3]), (UNEVEN, 8, [4, 4, 1, 2])])
def test_attention_with_other_kv_groups_per_layer_is_the_dense_one_with_their_heads_silent(
    model_type: str, kept: tuple[tuple[int, ...], ...], heads: int, slots: list[int], tmp_path: Path
) -> None:
    model = dense(tmp_path / "dense", model_type)
    config, found = written(model, plan_of(model, kv_keep=kept), tmp_path / "decilm")
    blocks = [block["attention"]["n_heads_in_group"] for block in config["block_configs"]]
    assert (config["num_attention_heads"], config["num_key_value_heads"]) == (heads, max(slots))
    assert [heads // each for each in blocks] == slots and config["head_dim"] == HEAD
    whole, x = load_file(model.path / "model.safetensors"), np.random.default_rng(1).standard_normal((7, HIDDEN))
    for layer, groups in enumerate(kept):
        silent = attention_of(whole, layer)
        gone = np.isin(np.arange(4 * 2 * HEAD) // (2 * HEAD), groups, invert=True)
        silent["o_proj.weight"] = np.where(gone, 0, silent["o_proj.weight"])
        made = attention_of(found, layer)
        assert made["k_proj.weight"].shape == (slots[layer] * HEAD, HIDDEN)
        np.testing.assert_allclose(attention(x, made, heads, slots[layer]), attention(x, silent, 8, 4), atol=1e-4)
    others = {name for name in whole if "self_attn" not in name}
    assert all(np.array_equal(found[name], whole[name]) for name in others)


def test_a_layer_without_a_block_lacks_its_tensors_and_its_norm(tmp_path: Path) -> None:
    model = dense(tmp_path / "dense")
    plan = plan_of(model, (20, 12, 7, 20), skip_attention=(2,), skip_ffn=(0, 3))
    config, found = written(model, plan, tmp_path / "decilm")
    whole = load_file(model.path / "model.safetensors")
    parts = {2: ("self_attn.", "input_layernorm."), 0: ("mlp.", "post_attention_layernorm.")}
    parts[3] = parts[0]
    gone = {
        n for n in whole for i, below in parts.items() if n.startswith(tuple(f"model.layers.{i}.{b}" for b in below))
    }
    assert found.keys() == whole.keys() - gone and len(gone) == 8 + 4 + 4
    down, up = "model.layers.1.mlp.down_proj.weight", "model.layers.2.mlp.up_proj.weight"
    np.testing.assert_array_equal(found[down], whole[down][:, -12:])
    np.testing.assert_array_equal(found[up], whole[up][-7:])
    assert [(b["attention"]["no_op"], b["ffn"]) for b in config["block_configs"]] == [
        (False, {"no_op": True}),
        (False, {"no_op": False, "intermediate_size": 12}),
        (True, {"no_op": False, "intermediate_size": 7}),
        (False, {"no_op": True}),
    ]
    assert (config["num_attention_heads"], config["num_key_value_heads"]) == (8, 4)
    record = json.loads((tmp_path / "decilm" / "pruning.json").read_text())
    assert (record["steps"][0]["skip_attention"], record["steps"][0]["skip_ffn"]) == ([2], [0, 3])
    assert "--trust-remote-code" in (tmp_path / "decilm" / "README.md").read_text()


def test_a_layer_without_both_blocks_is_gone_and_the_others_are_numbered_again(tmp_path: Path) -> None:
    model = dense(tmp_path / "dense")
    plan = plan_of(model, kv_keep=RAGGED, skip_attention=(0, 2), skip_ffn=(0,))
    config, found = written(model, plan, tmp_path / "decilm")
    whole = load_file(model.path / "model.safetensors")
    assert config["num_hidden_layers"] == 3 == len(config["block_configs"])
    assert [block["attention"]["no_op"] for block in config["block_configs"]] == [False, True, False]
    np.testing.assert_array_equal(
        found["model.layers.2.mlp.up_proj.weight"], whole["model.layers.3.mlp.up_proj.weight"]
    )
    key = whole["model.layers.3.self_attn.k_proj.weight"].reshape(4, HEAD, HIDDEN)
    np.testing.assert_array_equal(
        found["model.layers.2.self_attn.k_proj.weight"].reshape(3, HEAD, HIDDEN), key[list(RAGGED[3])]
    )
    first = plan_of(model, skip_attention=(0,))
    with pytest.raises(UsageError, match="needs the attention of the first layer"):
        export_decilm(model, first, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_re_fitted_columns_stand_where_the_heads_are(tmp_path: Path) -> None:
    """Two groups of a layer with room for three query heads each: the third has no column."""
    import torch

    model = dense(tmp_path / "dense")
    plan = replace(plan_of(model, kv_keep=RAGGED), structure="kv_group", compensated=True)
    save_plan(plan, tmp_path / "plan.safetensors")
    fitted = {i: torch.randn(HIDDEN, 2 * HEAD * len(kept)) for i, kept in enumerate(RAGGED)}
    held = {layer: {"self_attn.o_proj.weight": columns} for layer, columns in fitted.items()}
    compensation.save(plan, tmp_path / "plan.safetensors", model, held.__getitem__)
    _, found = written(model, load_plan(tmp_path / "plan.safetensors"), tmp_path / "decilm")
    made = found["model.layers.1.self_attn.o_proj.weight"].reshape(HIDDEN, 2, 3, HEAD)
    np.testing.assert_array_equal(made[:, :, :2].reshape(HIDDEN, -1), fitted[1].numpy())
    assert not made[:, :, 2].any()
    np.testing.assert_array_equal(found["model.layers.0.self_attn.o_proj.weight"], fitted[0].numpy())
