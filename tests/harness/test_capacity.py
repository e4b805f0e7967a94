"""The formulas against counts of a real model: operations by torch's own counter, bytes by the tensors of the checkpoint."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from harness.capacity import DEVICES, Device, decode_work, find_device, ideal_speedup, kv_capacity_tokens
from harness.engine import cached_bytes_per_token
from harness.errors import UsageError
from harness.types import ModelShape
from pruning.checkpoint import describe, read_config
from pruning.families import FAMILIES, shape_of
from tests.conftest import TINY_MATH, build_model

CONTEXT = 37
TIED = ("gemma2", "gemma3_text", "smollm3")


@pytest.fixture(scope="module", params=["llama", "qwen2", "gemma2", "phi3", "qwen3"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_model(request.param, tmp_path_factory.mktemp("m") / request.param, tie=request.param in TIED)


def shape_at(path: Path) -> ModelShape:
    return shape_of(read_config(path), describe(path).parameters)


def counted_flops(path: Path) -> int:
    """Of one token with CONTEXT - 1 before it, by torch's counter, attention's two products included."""
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import AutoModelForCausalLM

    loaded: Any = AutoModelForCausalLM.from_pretrained(path, attn_implementation="eager")
    with torch.inference_mode():
        cache = loaded(input_ids=torch.zeros((1, CONTEXT - 1), dtype=torch.long), use_cache=True).past_key_values
        with FlopCounterMode(display=False) as counter:
            loaded(input_ids=torch.zeros((1, 1), dtype=torch.long), past_key_values=cache, use_cache=True)
    return int(counter.get_total_flops())


def test_operations_are_those_that_torch_counts(model: Path) -> None:
    """Within norms, rotary angles and biases, which are no matrix products."""
    formula = decode_work(shape_at(model), concurrency=1, context=CONTEXT, number=4).flops
    assert formula == pytest.approx(counted_flops(model), rel=0.01)


def test_bytes_read_are_those_of_the_matrices_and_of_the_cache(model: Path) -> None:
    shape, tensors = shape_at(model), load_file(model / "model.safetensors")
    read = sum(t.numel() * 4 for name, t in tensors.items() if shape.tied or "embed_tokens" not in name)
    one = decode_work(shape, concurrency=1, context=0, number=4).read_bytes
    assert one == read
    more = decode_work(shape, concurrency=3, context=CONTEXT, number=4).read_bytes
    assert more - one == 3 * CONTEXT * cached_bytes_per_token(model, "float32")


def test_the_ideal_grows_with_what_is_removed_and_shrinks_with_the_context() -> None:
    dense = shape_at(TINY_MATH)

    def narrowed(width: int) -> ModelShape:
        return replace(dense, parameters=dense.pruned_parameters((width,) * dense.num_hidden_layers))

    ratios = [ideal_speedup(dense, narrowed(width), 8, 100, 4) for width in (640, 512, 320)]
    assert ratios[0] == (1.0, 1.0)
    assert ratios[0] < ratios[1] < ratios[2]
    assert ideal_speedup(dense, narrowed(320), 8, 400, 4) < ratios[2]


def test_the_roofline_takes_whatever_is_slower() -> None:
    work = decode_work(shape_at(TINY_MATH), 1, 100, 2)
    assert work.seconds(Device("compute", 1, flops=work.flops, bandwidth=work.read_bytes * 10)) == pytest.approx(1.0)
    assert work.seconds(Device("memory", 1, flops=work.flops * 10, bandwidth=work.read_bytes / 2)) == pytest.approx(2.0)
    assert work.seconds(Device("unknown", 1)) is None


def test_freed_weights_become_cache_and_what_does_not_fit_has_none() -> None:
    dense = shape_of(
        {"model_type": "qwen2", "hidden_size": 3584, "num_hidden_layers": 28, "intermediate_size": 18944, "num_attention_heads": 28,
         "num_key_value_heads": 4, "vocab_size": 152064}, 7_615_616_512,
    )  # fmt: skip
    narrow = replace(dense, parameters=dense.pruned_parameters((9472,) * 28))  # the room for a step's activations left as it is
    device = find_device("H100")
    gained = kv_capacity_tokens(narrow, device) - kv_capacity_tokens(dense, device)
    freed = (dense.parameters - narrow.parameters) * 2
    assert abs(gained - freed // dense.kv_bytes_per_token) <= 1
    assert kv_capacity_tokens(dense, find_device("16GiB")) == 0 < kv_capacity_tokens(narrow, find_device("16GiB"))


@pytest.mark.parametrize(("text", "size"), [("24GiB", 24 * 2**30), ("24GB", 24 * 10**9), ("1.5g", 1.5 * 2**30), ("a100-80", 80 * 2**30)])
def test_devices_are_found_by_name_or_size(text: str, size: float) -> None:
    assert find_device(text).memory_bytes == size


@pytest.mark.parametrize("text", ["A100-99", "", "GiB", "0GiB", "-1GiB", "24MiB", "nan"])
def test_other_devices_are_refused_in_a_line_that_names_those_known(text: str) -> None:
    with pytest.raises(UsageError, match=f"one of {', '.join(DEVICES)}"):
        find_device(text)


@pytest.mark.parametrize("model_type", FAMILIES)
def test_embeddings_are_tied_where_transformers_ties_them(model_type: str) -> None:
    """Where config.json does not say."""
    from transformers import AutoConfig

    config = AutoConfig.for_model(model_type).to_dict()
    said = {"num_attention_heads": 4, "hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 32, "vocab_size": 99}
    family = FAMILIES[model_type]
    shape = shape_of({"model_type": model_type, **{family.keys.get(key, key): value for key, value in said.items()}})
    assert shape.tied == config["tie_word_embeddings"]
