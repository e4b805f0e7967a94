"""Small models with three KV groups, plans that remove some of their structures, and the same by definition."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from harness.core.types.pruning import PruningPlan
from pruning.structure_plan import all_neurons
from tests.support.models import build_model, plain
from tests.support.pruned import plan_for

GROUPS, HEAD = 3, 16
WITH_LISTS: dict[str, dict[str, Any]] = {
    "gemma2": {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"]},
    "gemma3_text": {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"]},
    "smollm3": {"no_rope_layers": [1, 0, 1]},
}


def grouped_model(model_type: str, folder: Path, **changes: Any) -> Path:
    """Six query heads on three KV heads, whose sizes do not add up to hidden_size."""
    sizes = {"num_attention_heads": 2 * GROUPS, "num_key_value_heads": GROUPS, "head_dim": HEAD, "hidden_size": 96}
    return build_model(model_type, folder, **{**sizes, **WITH_LISTS.get(model_type, {}), **changes})


def without(model: Path, structure: str, **what: Any) -> PruningPlan:
    """A plan that keeps all neurons; `what`: kv_keep, skip_attention, skip_ffn."""
    if "kv_keep" in what:
        groups = tuple(np.array(kept, dtype=np.int32) for kept in what["kv_keep"])
        what |= {"kv_keep": groups, "num_key_value_heads": GROUPS}
    return replace(plan_for(model), keep=all_neurons(3, 96), structure=structure, **what)


def ids() -> torch.Tensor:
    return torch.randint(2, 1000, (2, 24), generator=torch.Generator().manual_seed(0))


def logits(folder: Path) -> torch.Tensor:
    with torch.no_grad():
        return plain(folder, dtype=torch.float32, attn_implementation="eager")(ids()).logits


def hooked_logits(folder: Path, plan: PruningPlan) -> torch.Tensor:
    """The dense model with the query heads of removed groups silenced before o_proj, and blocks that add nothing."""
    model = plain(folder, dtype=torch.float32, attn_implementation="eager")
    for number, layer in enumerate(model.model.layers):
        if plan.kv_keep:
            gone = sorted(set(range(GROUPS)) - set(plan.kv_keep[number].tolist()))
            layer.self_attn.o_proj.register_forward_pre_hook(lambda _, args, gone=gone: (_silenced(args[0], gone),))
        if number in plan.skip_attention:
            layer.self_attn.register_forward_hook(lambda _m, _a, out: (torch.zeros_like(out[0]), *out[1:]))
        if number in plan.skip_ffn:
            layer.mlp.register_forward_hook(lambda _m, _a, out: torch.zeros_like(out))
    with torch.no_grad():
        return model(ids()).logits


def _silenced(heads: torch.Tensor, gone: list[int]) -> torch.Tensor:
    """heads [batch, tokens, query heads * head_dim]: those that read the KV heads `gone` become zero."""
    each = heads.clone().unflatten(-1, (2 * GROUPS, HEAD))
    for group in gone:
        each[:, :, 2 * group : 2 * group + 2] = 0
    return each.flatten(-2)
