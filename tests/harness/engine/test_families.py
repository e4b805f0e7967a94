"""Families on stock vLLM: uniform and per-layer widths give the tokens of transformers in FP32; `make families` for all
of them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from harness.core.errors import UsageError
from harness.training.fine_tuning import write_checkpoint
from pruning.checkpoint import open_model
from pruning.export import export
from pruning.families import FAMILIES
from pruning.loader import load_pruned
from tests.support.models import build_model
from tests.support.pruned import WIDTHS, plan_of
from tests.support.training import with_adapter

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1600)]
NATIVE = [("llama", "ragged")]
MORE = [
    ("llama", "uniform"),
    ("phi3", "ragged"),
    ("olmo2", "ragged"),
    ("opt", "ragged"),
]  # fused, transformers back end, no gate
ALL = [
    (name, kind)
    for name, family in FAMILIES.items()
    for kind in WIDTHS
    if not family.tower and (kind == "uniform" or family.supports_nonuniform_widths)
]  # vision-language models have a test of their own, test_vision_language.py


def cases(tier: str) -> list[tuple[str, str]]:
    """vLLM inspects each architecture in a process of its own, slowly."""
    if os.environ.get("HARNESS_ALL_FAMILIES"):
        return ALL
    return [*NATIVE, *MORE] if tier == "all" else NATIVE


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "kind" in metafunc.fixturenames:
        chosen = cases(metafunc.config.getoption("tier"))
        recovered = [(name, f"{kind} recovered") for name, kind in chosen if name == "llama"]
        metafunc.parametrize(("model_type", "kind"), [*chosen, *recovered])


PROMPTS = [[int(t) for t in np.random.default_rng(i).integers(2, 1000, 20)] for i in range(3)]
# nothing of ours is imported by hand: the installed entry point alone makes ragged widths known
SCRIPT = """
import gc, json, os, sys
os.environ.update(VLLM_ENABLE_V1_MULTIPROCESSING="0", VLLM_NO_USAGE_STATS="1")
os.environ.update(HF_HUB_OFFLINE="1", VLLM_LOGGING_LEVEL="ERROR")
from vllm import LLM, SamplingParams
folders, prompts = json.load(open(sys.argv[1]))
found = {}
for name, folder in folders.items():
    try:
        llm = LLM(folder, dtype="float32", enforce_eager=True, max_model_len=128, kv_cache_memory_bytes=1 << 25,
        skip_tokenizer_init=True)
        params = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True, detokenize=False)
        out = llm.generate([{"prompt_token_ids": p} for p in prompts], params, use_tqdm=False)
        found[name] = [list(o.outputs[0].token_ids) for o in out]
        llm.llm_engine.engine_core.shutdown()
        del llm
        gc.collect()
    except Exception as error:
        found[name] = repr(error)[:2000]
json.dump(found, open(sys.argv[2], "w"))
"""


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("families")
    made = {}
    for model_type, kind in cases(request.config.getoption("tier")):
        dense = root / model_type
        if not dense.exists():
            build_model(model_type, dense, tie=model_type in ("gemma2", "gemma3_text", "gpt_neox"))
        made[f"{model_type} {kind}"] = export(
            open_model(dense), plan_of(dense, WIDTHS[kind]), root / f"{model_type}-{kind}"
        ).path
        if model_type == "llama":
            made[f"llama {kind} recovered"] = recovered(made[f"llama {kind}"], root / f"recovered-{kind}")
    return made


def recovered(pruned: Path, out: Path) -> Path:
    """With a random adapter merged, as after a fine-tuning."""
    with_adapter(pruned, out.with_suffix(".state"))
    write_checkpoint(open_model(pruned), out.with_suffix(".state"), out, {"end_token": 1})
    return out


@pytest.fixture(scope="module")
def tokens(checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("vllm")
    (folder / "script.py").write_text(SCRIPT)
    (folder / "in.json").write_text(json.dumps([{k: str(v) for k, v in checkpoints.items()}, PROMPTS]))
    command = [sys.executable, "script.py", "in.json", "out.json"]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=1500)
    assert result.returncode == 0, result.stderr[-3000:]
    return dict(json.loads((folder / "out.json").read_text()))


def test_vllm_gives_the_tokens_of_transformers(
    model_type: str, kind: str, checkpoints: dict[str, Path], tokens: dict[str, Any]
) -> None:
    found = tokens[f"{model_type} {kind}"]
    model = load_pruned(checkpoints[f"{model_type} {kind}"], torch.float32)
    model.generation_config.eos_token_id = None  # vLLM is told to ignore it too
    expected = [model.generate(torch.tensor([p]), max_new_tokens=12, do_sample=False)[0, 20:].tolist() for p in PROMPTS]
    assert found == expected


def test_per_layer_widths_are_refused_where_vllm_cannot_run_them(tmp_path: Path) -> None:
    dense = build_model("gpt2", tmp_path / "gpt2")
    with pytest.raises(UsageError, match="--allocation uniform"):
        export(open_model(dense), plan_of(dense, WIDTHS["ragged"]), tmp_path / "out")
