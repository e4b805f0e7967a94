"""Per-layer widths in transformers: the loaded model is the dense one with the removed neurons silent."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from pruning.checkpoint import open_model
from pruning.export import export
from pruning.families import FAMILIES
from pruning.loader import load_pruned
from tests.support.models import build_model
from tests.support.pruned import masked_logits, ragged_plan

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("model_type", [name for name, family in FAMILIES.items() if family.supports_nonuniform_widths])
def test_ragged_equals_masked(model_type: str, tmp_path: Path) -> None:
    dense = build_model(model_type, tmp_path / "dense", shard_size="200KB")
    plan = ragged_plan(dense)
    made = export(open_model(dense), plan, tmp_path / "pruned")
    assert made.widths == (70, 33, 51) == open_model(made.path).widths
    ids = torch.randint(2, 1000, (2, 24), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = load_pruned(made.path, torch.float32)(ids).logits
    torch.testing.assert_close(found, masked_logits(dense, plan, ids), rtol=1e-5, atol=1e-4)


def test_gemma_2_is_loaded_with_the_attention_that_caps_its_logits(tmp_path: Path) -> None:
    """The fast one leaves the cap out, and vLLM does not: on long prompts their tokens differ."""
    folder = build_model("gemma2", tmp_path / "gemma2", tie=True)
    ids = torch.arange(2, 202)[None]
    with torch.no_grad():
        found, capped, fast = (
            model(ids).logits
            for model in (
                load_pruned(folder),
                AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager"),
                AutoModelForCausalLM.from_pretrained(folder, attn_implementation="sdpa"),
            )
        )
    torch.testing.assert_close(found, capped)
    assert (found - fast).abs().max() > 1e-2
