"""What transformers' configuration classes refuse or read otherwise is refused before a folder is written."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from huggingface_hub.errors import StrictDataclassClassValidationError
from transformers import AutoConfig

from harness.config.settings import RunConfig
from harness.core.errors import UsageError
from harness.pipeline.arms import make_arm
from harness.pipeline.resolve import resolve
from pruning.checkpoint import ModelFolder, open_model
from pruning.decilm import export_decilm, plan_refusal
from pruning.export import export
from pruning.families import FAMILIES
from pruning.structures import (
    check_groups_go,
    check_groups_left,
    check_layers_go,
    groups_left_refusal,
    home_refusal,
)
from tests.support.models import build_model
from tests.support.structures import grouped_model, without

pytestmark = pytest.mark.slow
WITH_GROUPS = sorted(name for name, family in FAMILIES.items() if family.attention.cuts and not family.tower)
SIZES = {"hidden_size": 128, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 16}
FACTORS = {"short_factor": [1.0] * 8, "long_factor": [2.0] * 8}


def refused(check: Callable[[], object]) -> bool:
    """Whether transformers refuses a configuration."""
    try:
        check()
    except StrictDataclassClassValidationError:
        return True
    return False


def four_groups(model_type: str, folder: Path) -> ModelFolder:
    lists = {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}
    own = {"gemma2": lists, "gemma3_text": lists, "smollm3": {"no_rope_layers": [1, 0, 1]}}
    return open_model(build_model(model_type, folder, **{**SIZES, **own.get(model_type, {})}))


def leaving(model: ModelFolder, groups: int) -> Any:
    plan = without(model.path, "kv_group")
    return replace(plan, kv_keep=(np.arange(groups, dtype=np.int32),) * 3, num_key_value_heads=4)


@pytest.mark.parametrize("left", [1, 2, 3, 4])
@pytest.mark.parametrize("model_type", WITH_GROUPS)
def test_numbers_of_kv_groups_are_refused_where_transformers_does(model_type: str, left: int, tmp_path: Path) -> None:
    model = four_groups(model_type, tmp_path / "dense")
    written = "llama" if model.family.attention.as_llama else model_type
    heads = {"num_attention_heads": 2 * left, "num_key_value_heads": left}
    config = {key: value for key, value in model.config.items() if key not in ("model_type", "architectures")}
    impossible = refused(lambda: AutoConfig.for_model(written, **{**config, **heads}))
    found = home_refusal(leaving(model, left), model.family, model.config)
    assert (found is not None) is (groups_left_refusal(model.shape, left) is not None) is impossible
    assert found is None or f"{2 * left} query heads" in found


def test_a_number_that_no_plain_folder_can_have_is_left_to_decilm(tmp_path: Path) -> None:
    model = four_groups("llama", tmp_path / "dense")
    plan = leaving(model, 3)
    assert plan_refusal(model, plan) is None
    with pytest.raises(UsageError, match=r"cannot have 3 KV groups: .*hidden_size 128 .* 6 query heads .*export PLAN"):
        export(model, plan, tmp_path / "plain")
    assert not (tmp_path / "plain").exists()
    assert (export_decilm(model, plan, tmp_path / "decilm") / "config.json").exists()


def test_a_run_refuses_such_a_number_before_it_starts(tmp_path: Path) -> None:
    model = four_groups("qwen2", tmp_path / "dense")
    asked = RunConfig(model=str(model.path), structure="kv_group", ratio=0.25)
    with pytest.raises(UsageError, match=r"ratio so that 1 or 2 of 4 KV groups stay, .*`harness export --to decilm`"):
        make_arm(asked, "selective", model.shape)
    assert make_arm(asked.model_copy(update={"ratio": 0.5}), "selective", model.shape).request.ratio == 0.5
    odd = replace(model.shape, hidden_size=17)
    with pytest.raises(UsageError, match=r"ratio so that all of 4 KV groups stay"):
        check_groups_left(odd, 2)


@pytest.mark.parametrize("key", ["rope_parameters", "rope_scaling"])
def test_kv_groups_of_a_phi3_with_lists_of_rope_stay(key: str, tmp_path: Path) -> None:
    """Its class takes the length of the lists from hidden_size / num_attention_heads, which all heads alone fit."""
    rope = {"rope_type": "longrope", "rope_theta": 10000.0, **FACTORS}
    sizes = {**SIZES, "max_position_embeddings": 2048, "original_max_position_embeddings": 64, "rope_parameters": rope}
    folder = build_model("phi3", tmp_path / "dense", **sizes)
    file = folder / "config.json"
    config = json.loads(file.read_text())
    config[key] = config.pop("rope_parameters")
    file.write_text(json.dumps(config))
    model = open_model(folder)
    assert refused(lambda: AutoConfig.for_model("phi3", **{**sizes, "num_attention_heads": 4}))
    with pytest.raises(UsageError, match="phi3 with short_factor in its rope_parameters cannot have fewer heads"):
        export(model, leaving(model, 2), tmp_path / "pruned")
    with pytest.raises(UsageError, match=r"short_factor .*; prune neurons \(--structure neuron\)"):
        resolve(RunConfig(model=str(folder), structure="kv_group", ratio=0.5, task=("gsm8k",)))
    check_groups_go(model.family, {**config, key: {"rope_type": "default", "rope_theta": 10000.0}})


def test_layers_of_a_gpt2_that_scales_attention_by_their_number_stay(tmp_path: Path) -> None:
    model = open_model(build_model("gpt2", tmp_path / "dense", tie=True, scale_attn_by_inverse_layer_idx=True))
    plan = without(model.path, "layer", skip_attention=(1,), skip_ffn=(1,))
    with pytest.raises(
        UsageError, match="gpt2 with scale_attn_by_inverse_layer_idx tells layers apart by their number"
    ):
        export(model, plan, tmp_path / "pruned")
    check_layers_go(model.family, {**model.config, "scale_attn_by_inverse_layer_idx": False}, 3)


def test_a_qwen2_that_is_written_as_a_llama_keeps_what_its_own_class_leaves_unsaid(tmp_path: Path) -> None:
    folder = grouped_model("qwen2", tmp_path / "dense")
    file, unsaid = folder / "config.json", ("bos_token_id", "eos_token_id", "pad_token_id", "max_position_embeddings")
    file.write_text(json.dumps({key: v for key, v in json.loads(file.read_text()).items() if key not in unsaid}))
    model = open_model(folder)
    made = export(model, without(folder, "kv_group", kv_keep=((0, 2), (1, 2), (0, 1))), tmp_path / "as_llama")
    dense, llama = (AutoConfig.from_pretrained(path) for path in (folder, made.path))
    assert (dense.model_type, llama.model_type) == ("qwen2", "llama")
    assert {key: getattr(llama, key) for key in unsaid} == {key: getattr(dense, key) for key in unsaid}
    assert made.shape.max_position_embeddings == model.shape.max_position_embeddings == dense.max_position_embeddings
