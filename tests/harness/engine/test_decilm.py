"""A DeciLM folder on stock vLLM, without any plugin, gives the tokens of the masked model in FP32; also with a layer
that has no attention, one without FFN, and other key-value heads in every layer.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from pruning.checkpoint import open_model
from pruning.decilm import Layer, decilm_config, export_decilm, write_decilm
from pruning.export import export
from pruning.masked import load_masked
from tests.support.models import TINY_MATH, build_model, plain
from tests.support.pruned import plan_keeping

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(900)]
PROMPTS = [[int(t) for t in np.random.default_rng(i).integers(2, 1000, 5 + 6 * i)] for i in range(32)]
NEW = 12
SCRIPT = """
import gc, json, os, sys
os.environ.update(VLLM_ENABLE_V1_MULTIPROCESSING="0", VLLM_NO_USAGE_STATS="1", VLLM_PLUGINS="")
os.environ.update(HF_HUB_OFFLINE="1", VLLM_LOGGING_LEVEL="ERROR", OMP_NUM_THREADS="1")
from vllm import LLM, SamplingParams
folders, prompts, new = json.load(open(sys.argv[1]))
found = {}
for name, folder in folders.items():
    llm = LLM(folder, dtype="float32", enforce_eager=True, max_model_len=512, kv_cache_memory_bytes=1 << 27,
              trust_remote_code=True)
    assert type(llm.llm_engine.model_executor.driver_worker.model_runner.get_model()).__name__ == "DeciLMForCausalLM"
    params = SamplingParams(temperature=0, max_tokens=new, ignore_eos=True)
    out = llm.generate([{"prompt_token_ids": p} for p in prompts], params, use_tqdm=False)
    found[name] = [list(o.outputs[0].token_ids) for o in out]
    llm.llm_engine.engine_core.shutdown()
    del llm
    gc.collect()
json.dump(found, open(sys.argv[2], "w"))
"""
DENSE: dict[str, dict[str, Any]] = {
    "qwen2": {},
    "llama": {"attention_bias": True, "mlp_bias": True, "num_attention_heads": 4, "num_key_value_heads": 2},
    "mistral": {"sliding_window": None},
    "llama-skips": {"num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 5},
}
PLANNED = {"num_attention_heads": 8, "num_key_value_heads": 4, "num_hidden_layers": 5}
SKIPS = (
    Layer(70, 2, skip_ffn=True),
    Layer(33, 2, skip_attention=True),
    Layer(51, 1),  # both groups of query heads attend to the first key-value head
    Layer(96, 2, skip_attention=True, skip_ffn=True),
    Layer(40, 2),
)


def dense(name: str, root: Path) -> Path:
    if name == "tiny-math":
        return TINY_MATH
    return build_model(name.partition("-")[0], root / name / "dense", tie=name == "mistral", **DENSE[name])


def masked(folder: Path, keep: list[np.ndarray]) -> Any:
    """The dense model in transformers, the other neurons' columns zero."""
    model = plain(folder, dtype=torch.float32, attn_implementation="eager")
    for layer, kept in zip(model.model.layers, keep, strict=True):
        gone = np.setdiff1d(np.arange(layer.mlp.down_proj.in_features), kept)
        layer.mlp.down_proj.weight.data[:, gone] = 0
    return model


def without_parts(model: Any) -> Any:
    """The same with the parts of SKIPS silent, and with the second key-value head equal to the first."""
    for layer, left in zip(model.model.layers, SKIPS, strict=True):
        if left.skip_attention:
            layer.self_attn.o_proj.weight.data.zero_()
        if left.skip_ffn:
            layer.mlp.down_proj.weight.data.zero_()
        if left.kv_heads == 1:
            for projection in (layer.self_attn.k_proj, layer.self_attn.v_proj):
                projection.weight.data[32:] = projection.weight.data[:32]
    return model


def cut_parts(folder: Path, config: dict[str, Any]) -> None:
    """Takes the parts of SKIPS out of a folder's weights, and says so in config.json."""
    tensors = load_file(folder / "model.safetensors")
    for i, left in enumerate(SKIPS):
        gone = ("self_attn.", "input_layernorm.") * left.skip_attention
        gone += ("mlp.", "post_attention_layernorm.") * left.skip_ffn
        for name in [name for name in tensors if name.startswith(tuple(f"model.layers.{i}.{part}" for part in gone))]:
            del tensors[name]
        if left.kv_heads == 1:
            for name in ("k_proj", "v_proj"):
                key = f"model.layers.{i}.self_attn.{name}.weight"
                tensors[key] = tensors[key][:32].contiguous()
    (folder / "model.safetensors").unlink()  # a link to the checkpoint's own
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config))


def planned(name: str, root: Path) -> tuple[Path, Any]:
    """`made` of a plan that no plain folder can hold: other KV groups in every layer, layers without a block."""
    model = open_model(build_model(name, root / name / "dense", **DENSE[name] | PLANNED))
    widths = (96, 70, 33, 96, 51)
    keep = [np.sort(np.random.default_rng(i).permutation(96)[:width]) for i, width in enumerate(widths)]
    groups = tuple(np.array(kept, np.int32) for kept in ((0, 1, 2, 3), (1, 3), (0, 2, 3), (2,), (0, 1, 2)))
    skips = {"skip_attention": (2,), "skip_ffn": (0, 3)}
    plan = plan_keeping(model.path, keep, kv_keep=groups, num_key_value_heads=4, **skips)
    folder = export_decilm(model, plan, root / name / "planned")
    return folder, load_masked(model, plan, None, torch.float32)


def made(name: str, root: Path) -> tuple[Path, Any]:
    """A DeciLM folder, and the model in transformers that it must answer like."""
    source = dense(name, root)
    opened = open_model(source)
    size, count = opened.shape.intermediate_size, opened.shape.num_hidden_layers
    widths = (
        [layer.width for layer in SKIPS] if name == "llama-skips" else np.linspace(size, size // 3, count, dtype=int)
    )
    keep = [np.sort(np.random.default_rng(i).permutation(size)[:width]) for i, width in enumerate(widths)]
    checkpoint = export(opened, plan_keeping(source, keep, size, allocation="global"), root / name / "pruned")
    folder = write_decilm(checkpoint, root / name / "decilm")
    model = masked(source, keep)
    if name == "llama-skips":
        config = decilm_config(checkpoint.config, replace(checkpoint.shape, intermediate_size=96), SKIPS)
        cut_parts(folder, config)
        model = without_parts(model)
    return folder, model


def test_tokens_are_those_of_the_masked_model(tmp_path: Path) -> None:
    cases = {name: made(name, tmp_path) for name in ("tiny-math", *DENSE)}
    cases |= {f"planned {name}": planned(name, tmp_path / "plans") for name in ("llama", "qwen2")}
    (tmp_path / "script.py").write_text(SCRIPT)
    told = [{name: str(folder) for name, (folder, _) in cases.items()}, PROMPTS, NEW]
    (tmp_path / "in.json").write_text(json.dumps(told))
    command = [sys.executable, "script.py", "in.json", "out.json"]
    bare = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}  # nothing of ours
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=800, env=bare)
    assert result.returncode == 0, result.stderr[-3000:]
    found = json.loads((tmp_path / "out.json").read_text())
    for name, (_, model) in cases.items():
        model.generation_config.eos_token_id = None
        expected = [
            model.generate(torch.tensor([ids]), max_new_tokens=NEW, do_sample=False)[0, len(ids) :].tolist()
            for ids in PROMPTS
        ]
        assert found[name] == expected, name
        assert len({tuple(answer) for answer in expected}) > 16, "the answers tell models apart"
