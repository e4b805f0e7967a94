"""An adapter that does not fit is refused by its header, before a server starts."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from harness.core.errors import UsageError
from harness.serving.lora_adapters import check_adapters
from harness.serving.vllm_options import allowed_options
from pruning.checkpoint import ModelFolder, open_model
from pruning.export import export
from tests.support.cli import harness
from tests.support.models import TINY_MATH, build_model
from tests.support.pruned import plan_for

pytestmark = pytest.mark.slow


def shape_of(model: ModelFolder, module: str) -> tuple[int, ...]:
    return next(e.shape for shard in model.shards for e in shard.entries if e.name == f"{module}.weight")


def adapter(folder: Path, model: ModelFolder, *modules: str, rank: int = 4, swap: bool = False, **config: Any) -> Path:
    """As peft saves one for these modules of a model."""
    folder.mkdir()
    tensors = {}
    for module in modules or ("model.layers.0.mlp.up_proj", "model.layers.2.self_attn.q_proj"):
        out, into = shape_of(model, module)[:: -1 if swap else 1]
        tensors[f"base_model.model.{module}.lora_A.weight"] = np.zeros((rank, into), np.float32)
        tensors[f"base_model.model.{module}.lora_B.weight"] = np.zeros((out, rank), np.float32)
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": rank, **config}))
    return folder


def check(model: ModelFolder, *folders: Path, more: tuple[str, ...] = ()) -> None:
    modules = [word for i, folder in enumerate(folders) for word in ("--lora-modules", f"a{i}={folder}")]
    check_adapters(model, allowed_options(["--enable-lora", *modules, *more]))


@pytest.fixture()
def dense(random_model: Path) -> ModelFolder:
    return open_model(random_model)


@pytest.fixture()
def pruned(dense: ModelFolder, tmp_path: Path) -> ModelFolder:
    return export(dense, plan_for(dense.path), tmp_path / "pruned")


def test_an_adapter_fits_the_model_that_it_was_trained_on(
    dense: ModelFolder, pruned: ModelFolder, tmp_path: Path
) -> None:
    of_dense, of_pruned = adapter(tmp_path / "d", dense), adapter(tmp_path / "p", pruned)
    check(dense, of_dense)
    check(pruned, of_pruned)
    check(pruned, adapter(tmp_path / "q", dense, "model.layers.0.self_attn.q_proj"))
    said = (
        r"d does not fit .*pruned: .*up_proj\.lora_B\.weight is \[96, 4\] and .*up_proj is \[60, 64\]; train an adapter"
    )
    with pytest.raises(UsageError, match=said):
        check(pruned, of_pruned, of_dense)
    with pytest.raises(UsageError, match=r"down_proj\.lora_A\.weight is \[4, 96\]"):
        check(pruned, adapter(tmp_path / "down", dense, "model.layers.1.mlp.down_proj"))


def test_gpt2_stores_its_matrices_the_other_way_round(tmp_path: Path) -> None:
    model = open_model(build_model("gpt2", tmp_path / "gpt2"))
    check(model, adapter(tmp_path / "right", model, "transformer.h.0.mlp.c_fc", swap=True))
    with pytest.raises(UsageError, match="does not fit"):
        check(model, adapter(tmp_path / "wrong", model, "transformer.h.0.mlp.c_fc"))


def rewrite(folder: Path, **config: Any) -> None:
    (folder / "adapter_config.json").write_text(json.dumps(config))


def fifo(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


WEIGHTS = "adapter_model.safetensors"
SPOILT: dict[str, tuple[Callable[[Path], object], str]] = {
    "no weights": (lambda folder: (folder / WEIGHTS).unlink(), "is no LoRA adapter"),
    "only a pickle": (lambda folder: (folder / WEIGHTS).rename(folder / "adapter_model.bin"), "is no LoRA adapter"),
    "no settings": (lambda folder: (folder / "adapter_config.json").unlink(), "is no LoRA adapter"),
    "broken settings": (lambda folder: (folder / "adapter_config.json").write_text("{"), "not valid JSON"),
    "another kind": (lambda folder: rewrite(folder, peft_type="IA3"), "is an adapter of kind IA3"),
    "cut": (lambda folder: os.truncate(folder / WEIGHTS, 300), "is no LoRA adapter"),
    "a FIFO": (lambda folder: fifo(folder / WEIGHTS), "it is a FIFO"),
    "other tensors": (
        lambda folder: save_file({"lm_head.weight": np.zeros((2, 2))}, folder / WEIGHTS),
        "no part of a LoRA",
    ),
    "another layer": (
        lambda folder: save_file({"model.layers.9.mlp.up_proj.lora_A.weight": np.zeros((2, 64))}, folder / WEIGHTS),
        r"has no model\.layers\.9\.mlp\.up_proj",
    ),
    "one axis": (
        lambda folder: save_file({"model.layers.0.mlp.up_proj.lora_A.weight": np.zeros(64)}, folder / WEIGHTS),
        "does not fit",
    ),
    "empty": (lambda folder: save_file({}, folder / WEIGHTS), "is empty"),
}


@pytest.mark.parametrize("how", SPOILT)
def test_what_is_no_adapter_is_one_clear_line(how: str, dense: ModelFolder, tmp_path: Path) -> None:
    folder = adapter(tmp_path / "a", dense)
    spoil, message = SPOILT[how]
    spoil(folder)
    with pytest.raises(UsageError, match=message) as error:
        check(dense, folder)
    assert "\n" not in str(error.value)


def test_a_rank_that_the_server_would_refuse_names_the_option(dense: ModelFolder, tmp_path: Path) -> None:
    folder = adapter(tmp_path / "a", dense, "model.layers.0.mlp.up_proj", rank=20)
    with pytest.raises(UsageError, match="has rank 20 and the server takes 16; add --max-lora-rank 32"):
        check(dense, folder)
    check(dense, folder, more=("--max-lora-rank", "32"))


def test_only_a_folder_of_this_machine_is_taken(dense: ModelFolder) -> None:
    with pytest.raises(UsageError, match="is not a folder; give --lora-modules NAME=FOLDER"):
        check(dense, Path("org/adapter"))
    with pytest.raises(UsageError, match="needs --enable-lora"):
        check_adapters(dense, allowed_options(["--lora-modules", "a=b"]))


def test_names_and_folders_reach_vllm_as_one_value_each(tmp_path: Path) -> None:
    """A path may hold what vLLM's own form NAME=PATH takes for something else; relative ones would be sought on the
    Hub.
    """
    words = allowed_options(["--lora-modules=a=x,y", "b=c=d", "--seed", "1", "--lora_modules", "c=/e"])
    assert [word for word in words if word.startswith("--")] == ["--lora-modules", "--seed", "--lora-modules"]
    found = [json.loads(word) for word in words if word.startswith("{")]
    assert found == [
        {"name": "a", "path": f"{tmp_path}/x,y"},
        {"name": "b", "path": f"{tmp_path}/c=d"},
        {"name": "c", "path": "/e"},
    ]
    for wrong in ("x", "=x", "a=", "../a=x", '{"name": "a", "path": "x"}'):
        with pytest.raises(UsageError, match="--lora-modules behind -- needs a value of this form: NAME=FOLDER"):
            allowed_options(["--lora-modules", wrong])


def test_serve_refuses_before_it_starts_anything(tmp_path: Path) -> None:
    folder = adapter(tmp_path / "a", open_model(TINY_MATH), "model.layers.0.mlp.up_proj", rank=20)
    words = (
        "serve",
        "tiny-math",
        "--port",
        "0",
        "--out",
        "run",
        "--",
        "--enable-lora",
        "--lora-modules",
        f"a={folder}",
    )
    found = harness(*words)
    assert found.returncode == 2 and "add --max-lora-rank 32" in found.stderr
    assert not Path("run").exists()
