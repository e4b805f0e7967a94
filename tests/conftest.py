"""Tiny random models of every family, built once, on disk as a user's would be."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"
TINY_MATH = Path(__file__).parent.parent / "harness" / "models" / "embedded" / "tiny-math"
SIZES = {
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "intermediate_size": 96,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "vocab_size": 1088,
    "max_position_embeddings": 512,
}
TOKENS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1}


def sizes_of(model_type: str) -> dict[str, Any]:
    """SIZES in the words of the architecture, special tokens within the vocabulary."""
    if model_type == "gpt2":
        return {
            "n_embd": 64,
            "n_layer": 3,
            "n_inner": 96,
            "n_head": 2,
            "vocab_size": 1088,
            "n_positions": 512,
            **TOKENS,
        }
    if model_type == "opt":
        plain = {key: SIZES[key] for key in ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size")}
        return {**plain, "word_embed_proj_dim": 64, "ffn_dim": 96, "max_position_embeddings": 512, **TOKENS}
    if model_type == "gpt_neox":  # every head has its own keys
        return {
            **{key: value for key, value in SIZES.items() if key not in ("num_key_value_heads", "head_dim")},
            **TOKENS,
        }
    return {**SIZES, **TOKENS}


def build_model(
    model_type: str, folder: Path, tie: bool = False, dtype: str = "float32", shard_size: str = "5GB", **changes: Any
) -> Path:
    """A random model with the embedded model's tokenizer; weights are scaled up so that logits differ clearly."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(0)
    config = AutoConfig.for_model(model_type, **{**sizes_of(model_type), **changes}, tie_word_embeddings=tie)
    model = AutoModelForCausalLM.from_config(config).to(getattr(torch, dtype))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(
                torch.randn_like(parameter) * (0.15 if parameter.ndim == 2 else 0.3) + (1.0 if "norm" in name else 0.0)
            )
    model.save_pretrained(folder, max_shard_size=shard_size)
    AutoTokenizer.from_pretrained(TINY_MATH).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def random_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random qwen2 model in several shards."""
    return build_model("qwen2", tmp_path_factory.mktemp("models") / "qwen2", shard_size="200KB")


@pytest.fixture()
def edited_config(random_model: Path, tmp_path: Path) -> Any:
    """A function that copies the model's config with some values changed, for models that must be refused."""

    def edit(**changes: Any) -> Path:
        config = json.loads((random_model / "config.json").read_text())
        (tmp_path / "config.json").write_text(json.dumps({**config, **changes}))
        return tmp_path

    return edit


@pytest.fixture()
def make_job(tmp_path: Path, random_model: Path) -> Callable[..., Any]:
    """A function that makes a job in a folder of its own; keyword arguments change the recipe."""

    def make(name: str = "job", model: Path = random_model, teacher: Path | None = None, **changes: Any) -> Any:
        from recovery.trainer import Job
        from tests.recovery.jobs import RECIPE, rows

        data = tmp_path / "data"
        data.mkdir(exist_ok=True)
        (data / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows()))
        return Job(folder=tmp_path / name, model=model, data=data, recipe=replace(RECIPE, **changes), teacher=teacher)

    return make


@pytest.fixture()
def ragged_model(random_model: Path, tmp_path: Path) -> Path:
    """The random model with a width of its own in every layer."""
    from pruning.export import export
    from tests.pruning.test_loader import ragged_plan

    export(random_model, ragged_plan(random_model), tmp_path / "ragged")
    return tmp_path / "ragged"


def make_variant(name: str, ratio: float) -> Any:
    """A row of run.json with nothing measured."""
    from harness.core.types.run import Variant

    widths, method = (round(1000 * (1 - ratio)),) * 2, "dense" if ratio == 0 else "selective"
    return Variant(
        name=name,
        method=method,
        metric=None,
        tokens=None,
        alignment=None,
        allocation=None,
        compensated=False,
        seed=None,
        recovered=False,
        ratio_requested=ratio,
        ratio_neurons=ratio,
        ratio_parameters=ratio / 2,
        intermediate_sizes=widths,
        parameters=1000,
        weight_bytes=4000,
        checkpoint=None,
    )


def invoke(*arguments: str) -> tuple[dict[str, Any], str]:
    """A harness command in this process, which saves the imports: its JSON document and what it said on standard
    error.
    """
    import io
    from contextlib import redirect_stderr, redirect_stdout

    from harness.cli.main import cli

    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as said:
        cli([*arguments], standalone_mode=False)
    return json.loads(out.getvalue()), said.getvalue()
