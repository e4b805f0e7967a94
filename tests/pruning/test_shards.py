"""Which files are the model: transformers and vLLM have to read the same ones."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from harness.core.errors import UnsupportedModelError
from pruning.checkpoint import open_model
from pruning.export import export, predict_size
from pruning.shards import INDEX, SINGLE
from tests.support.models import build_model
from tests.support.pruned import plan_for

pytestmark = pytest.mark.slow


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    return build_model("llama", tmp_path / "m", shard_size="150KB")


def _whole(model: Path) -> dict[str, torch.Tensor]:
    return {name: value for file in sorted(model.glob("*.safetensors")) for name, value in load_file(file).items()}


def _copy_into_last(model: Path, factor: float) -> str:
    """A tensor of the first shard once more in the last one, times `factor`; its name."""
    first, *_, last = sorted(model.glob("*.safetensors"))
    name, value = next(iter(load_file(first).items()))
    save_file({**load_file(last), name: value * factor}, last, {"format": "pt"})
    return name


def test_a_single_file_beside_an_index_of_others_is_refused(sharded: Path) -> None:
    save_file({name: value / 2 for name, value in _whole(sharded).items()}, sharded / SINGLE, {"format": "pt"})
    with pytest.raises(UnsupportedModelError, match=rf"{INDEX} names other files than {SINGLE}.*remove the index or"):
        open_model(sharded)


def test_an_index_of_shards_that_are_gone_is_named(tmp_path: Path) -> None:
    model = build_model("llama", tmp_path / "m")
    index = {"weight_map": {"lm_head.weight": "model-00001-of-00002.safetensors"}}
    (model / INDEX).write_text(json.dumps(index), encoding="utf-8")
    with pytest.raises(UnsupportedModelError, match=f"{INDEX} names other files than {SINGLE}"):
        open_model(model)


def test_shards_without_an_index_are_refused(sharded: Path) -> None:
    (sharded / INDEX).unlink()
    with pytest.raises(UnsupportedModelError, match=f"{INDEX} is missing, and model-00001-of-"):
        open_model(sharded)


def test_another_safetensors_file_beside_the_single_one_is_refused(tmp_path: Path) -> None:
    """vLLM would load both, the later one last."""
    model = build_model("llama", tmp_path / "m")
    shutil.copy(model / SINGLE, model / "old.safetensors")
    with pytest.raises(UnsupportedModelError, match=r"holds old.safetensors beside model.safetensors"):
        open_model(model)
    (model / "old.safetensors").rename(model / "consolidated.safetensors")
    open_model(model)


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("pytorch_model.bin", "it holds pytorch_model.bin: .*save_pretrained"),
        ("pytorch_model-00001-of-00002.bin", "it holds pytorch_model-00001.*save_pretrained"),
        ("consolidated.00.pth", "it holds consolidated.00.pth, which is not read; get the model in the Hugging Face"),
        ("model.fp16.safetensors", "it holds model.fp16.safetensors, which is not read"),
        ("model.q4.gguf", "give the GGUF file itself: .*model.q4.gguf"),
        ("notes.txt", "get the model in the Hugging Face layout"),
    ],
)
def test_other_formats_are_named_with_what_to_do(name: str, advice: str, tmp_path: Path) -> None:
    model = build_model("llama", tmp_path / "m")
    (model / SINGLE).rename(model / name)
    with pytest.raises(UnsupportedModelError, match=rf"has no {SINGLE}; {advice}"):
        open_model(model)


def test_two_different_copies_of_a_tensor_are_refused(sharded: Path) -> None:
    name = _copy_into_last(sharded, 0)
    with pytest.raises(
        UnsupportedModelError, match=rf"{name} is twice in .*, in the two files model-00001.* different"
    ):
        open_model(sharded)


def test_two_equal_copies_count_and_are_written_once(sharded: Path, tmp_path: Path) -> None:
    before, values = open_model(sharded), _whole(sharded)
    name = _copy_into_last(sharded, 1)
    opened = open_model(sharded)
    assert opened.parameters == before.parameters
    plan = plan_for(sharded)
    made = export(opened, plan, tmp_path / "out")
    assert [entry.name for shard in made.shards for entry in shard.entries].count(name) == 1
    assert torch.equal(_whole(made.path)[name], values[name])
    assert (made.parameters, made.weight_bytes) == (
        predict_size(opened, plan).parameters,
        predict_size(opened, plan).weight_bytes,
    )
    index = json.loads((made.path / INDEX).read_text(encoding="utf-8"))["weight_map"]
    assert index[name] == json.loads((sharded / INDEX).read_text(encoding="utf-8"))["weight_map"][name]
