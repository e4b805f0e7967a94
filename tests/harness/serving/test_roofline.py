"""The formulas against counts of a real model: operations by torch's own counter, bytes by the tensors of the
checkpoint.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from harness.core.errors import UsageError
from harness.core.types.pruning import ModelShape
from harness.engine.memory_budget import cached_bytes_per_token
from harness.serving.roofline import (
    _CONTEXT_BYTES,
    DEVICES,
    Device,
    decode_work,
    find_device,
    ideal_speedup,
    kv_capacity_tokens,
    round_work,
)
from pruning.checkpoint import open_model
from pruning.families import FAMILIES, shape_of
from tests.support.models import TINY_MATH, build_model

CONTEXT = 37
TIED = ("gemma2", "gemma3_text", "smollm3")


@pytest.fixture(scope="module", params=["llama", "qwen2", "gemma2", "phi3", "qwen3"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_model(request.param, tmp_path_factory.mktemp("m") / request.param, tie=request.param in TIED)


def shape_at(path: Path) -> ModelShape:
    return open_model(path).shape


def counted_flops(path: Path, prompt: int, output: int) -> int:
    """Greedy steps with a cache, the LM head on the last position only, by torch's counter, attention's two products
    included.
    """
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import AutoModelForCausalLM

    loaded: Any = AutoModelForCausalLM.from_pretrained(path, attn_implementation="eager")
    cache = None
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        for step in range(output):
            ids = torch.zeros((1, prompt if step == 0 else 1), dtype=torch.long)
            cache = loaded(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1).past_key_values
    return int(counter.get_total_flops())


@pytest.mark.slow
def test_operations_are_those_that_torch_counts(model: Path) -> None:
    """Within norms, rotary angles and biases, which are no matrix products; eager attention also multiplies what the
    mask hides.
    """
    shape, prompt = shape_at(model), 9
    formula = round_work(shape, concurrency=1, prompt=prompt, output=6, number=4).flops
    masked = 4 * shape.num_hidden_layers * shape.num_attention_heads * shape.head_dim * prompt * (prompt - 1) // 2
    assert formula + masked == pytest.approx(counted_flops(model, prompt, 6), rel=0.01)
    more, less = (counted_flops(model, prompt, output) for output in (7, 6))
    assert decode_work(shape, 1, prompt + 6, 4).flops == pytest.approx(more - less, rel=0.01)


@pytest.mark.slow
def test_a_round_reads_the_matrices_in_every_step_and_the_cache_of_what_came_before(model: Path) -> None:
    shape, prompt, output = shape_at(model), 9, 6
    steps = [decode_work(shape, 3, prompt + i, 4).read_bytes for i in range(1, output)]
    first = decode_work(shape, 3, 0, 4).read_bytes  # the prompts' own keys are not read back
    assert round_work(shape, 3, prompt, output, 4).read_bytes == first + sum(steps)


@pytest.mark.slow
def test_bytes_read_are_those_of_the_matrices_and_of_the_cache(model: Path) -> None:
    shape, tensors = shape_at(model), load_file(model / "model.safetensors")
    read = sum(t.numel() * 4 for name, t in tensors.items() if shape.tied or "embed_tokens" not in name)
    one = decode_work(shape, concurrency=1, context=0, number=4).read_bytes
    assert one == read
    more = decode_work(shape, concurrency=3, context=CONTEXT, number=4).read_bytes
    assert more - one == 3 * CONTEXT * cached_bytes_per_token(open_model(model), "float32")


def test_the_ideal_grows_with_what_is_removed_and_shrinks_with_the_context() -> None:
    dense = shape_at(TINY_MATH)

    def ideal(width: int, prompt: int) -> tuple[float, float]:
        narrow = replace(dense, parameters=dense.pruned_parameters((width,) * dense.num_hidden_layers))
        return ideal_speedup(*(round_work(shape, 8, prompt, 32, 4) for shape in (dense, narrow)))

    ratios = [ideal(width, 20) for width in (640, 512, 320)]
    assert ratios[0] == (1.0, 1.0)
    assert ratios[0] < ratios[1] < ratios[2]
    assert ideal(320, 400)[1] < ratios[2][1]  # the cache is read, too
    assert ideal(320, 60)[0] > ideal(320, 1)[0]  # prompts do without the LM head


def test_the_roofline_takes_whatever_is_slower() -> None:
    work = decode_work(shape_at(TINY_MATH), 1, 100, 2)
    assert work.seconds(Device("compute", 1, flops=work.flops, bandwidth=work.read_bytes * 10)) == pytest.approx(1.0)
    assert work.seconds(Device("memory", 1, flops=work.flops * 10, bandwidth=work.read_bytes / 2)) == pytest.approx(2.0)
    assert work.seconds(Device("unknown", 1)) is None


def test_freed_weights_become_cache_and_what_does_not_fit_has_none() -> None:
    dense = shape_of(
        {
            "model_type": "qwen2",
            "hidden_size": 3584,
            "num_hidden_layers": 28,
            "intermediate_size": 18944,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
            "vocab_size": 152064,
        }
    )
    narrow = replace(
        dense, parameters=dense.pruned_parameters((9472,) * 28)
    )  # the room for a step's activations left as it is
    device = find_device("H100")
    gained = kv_capacity_tokens(narrow, device) - kv_capacity_tokens(dense, device)
    freed = (dense.parameters - narrow.parameters) * 2
    assert abs(gained - freed // dense.kv_bytes_per_token) <= 1
    assert kv_capacity_tokens(dense, find_device("16GiB")) == 0 < kv_capacity_tokens(narrow, find_device("16GiB"))


QWEN_7B = {
    "model_type": "qwen2",
    "hidden_size": 3584,
    "num_hidden_layers": 28,
    "intermediate_size": 18944,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
}


@pytest.mark.parametrize("vocabulary", [1000, 152_064, 1_000_000])
def test_the_cache_has_what_weights_context_and_the_largest_layer_leave(vocabulary: int) -> None:
    """92 % of 80 GiB. A step of 8192 tokens in BF16 holds the FFN's gate, up and product and four hidden states;
    256 sequences hold their logits twice in FP32: with a large vocabulary these are more.
    """
    shape = replace(shape_of({**QWEN_7B, "vocab_size": vocabulary}), parameters=7_615_616_512)
    ffn, logits = 8192 * (3 * 18944 + 4 * 3584) * 2, 256 * 2 * vocabulary * 4
    assert (logits > ffn) is (vocabulary == 1_000_000)
    left = 0.92 * 80 * 2**30 - 2 * 7_615_616_512 - _CONTEXT_BYTES - (logits if logits > ffn else ffn)
    assert kv_capacity_tokens(shape, find_device("80GiB")) == pytest.approx(left / (2 * 28 * 4 * 128 * 2), abs=1)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("24GiB", 24 * 2**30),
        ("24GB", 24 * 10**9),
        ("1.5g", 1.5 * 2**30),
        ("a100-80", 80 * 2**30),
        ("l4", 23_034 * 2**20),
    ],
)
def test_devices_are_found_by_name_or_size(text: str, size: float) -> None:
    assert find_device(text).memory_bytes == size


@pytest.mark.parametrize(
    ("text", "gpus", "gib"), [("2xH100-80", 2, 81_559 / 1024), ("8X24GiB", 8, 24), ("1xl4", 1, 23_034 / 1024)]
)
def test_several_gpus_of_one_kind_are_a_device(text: str, gpus: int, gib: float) -> None:
    found = find_device(text)
    assert (found.name, found.count, found.memory_bytes) == (text, gpus, int(gib * 2**30))


@pytest.mark.parametrize("gpus", [1, 2, 4, 28])
@pytest.mark.parametrize("gib", [24, 48, 80, 141])
def test_gpus_share_weights_and_cache_and_copy_kv_heads_they_cannot_divide(gpus: int, gib: int) -> None:
    """Each has 92 % less its part of the weights, of the FFN of a step, and a context of its own."""
    shape = replace(shape_of({**QWEN_7B, "vocab_size": 152_064}), parameters=7_615_616_512)
    step = max(8192 * (3 * 18944 / gpus + 4 * 3584) * 2, 256 * 2 * 152_064 * 4)
    left = 0.92 * gib * 2**30 - 2 * 7_615_616_512 / gpus - step - _CONTEXT_BYTES
    each = 2 * 28 * max(1, 4 // gpus) * 128 * 2
    assert kv_capacity_tokens(shape, find_device(f"{gpus}x{gib}GiB")) == pytest.approx(left / each, abs=gpus + 1)


def test_gpus_divide_the_time_of_the_roofline() -> None:
    work = decode_work(shape_at(TINY_MATH), 1, 100, 2)
    one, four = (work.seconds(find_device(text)) for text in ("H100", "4xH100"))
    assert one is not None and four == pytest.approx(one / 4)


@pytest.mark.parametrize(
    "text", ["0xH100", "65xH100", "2x", "2xA100-99", "x24GiB", "A100-99", "", "GiB", "0GiB", "-1GiB", "24MiB", "nan"]
)
def test_other_devices_are_refused_in_a_line_that_names_those_known(text: str) -> None:
    with pytest.raises(UsageError, match=f"one of {', '.join(DEVICES)}"):
        find_device(text)


@pytest.mark.parametrize("model_type", FAMILIES)
def test_embeddings_are_tied_where_transformers_ties_them(model_type: str) -> None:
    """Where config.json does not say."""
    from transformers import AutoConfig

    config = AutoConfig.for_model(model_type).to_dict()
    said = {
        "num_attention_heads": 4,
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "intermediate_size": 32,
        "vocab_size": 99,
    }
    family = FAMILIES[model_type]
    shape = shape_of({"model_type": model_type, **{family.keys.get(key, key): value for key, value in said.items()}})
    assert shape.tied == config["tie_word_embeddings"]
