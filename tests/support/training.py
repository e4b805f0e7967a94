"""A small training: its recipe, its rows, and a state that it could have left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pruning.loader import load_pruned
from recovery.recipe import Recipe, lora_settings

RECIPE = Recipe(
    tuning="full",
    learning_rate=1e-3,
    steps=6,
    batch=4,
    micro_batch=4,
    max_length=64,
    lora_rank=4,
    lora_alpha=8,
    lora_dropout=0.0,
    distill=0.0,
    packing=False,
    gradient_checkpointing=False,
    precision="float32",
    curve=1,
    seed=0,
)


def rows(count: int = 24) -> list[dict[str, list[int]]]:
    """Prompts and answers of different lengths."""
    return [
        {
            "input_ids": [5 + i] * (3 + i % 4) + [40 + i, 50, 51 + i % 3, 1],
            "labels": [-100] * (3 + i % 4) + [40 + i, 50, 51 + i % 3, 1],
        }
        for i in range(count)
    ]


def with_adapter(folder: Path, state: Path) -> Any:
    """The model with a random adapter, which is also saved to `state`."""
    import torch
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(
        load_pruned(folder, torch.float32), LoraConfig(**lora_settings(RECIPE), task_type="CAUSAL_LM")
    ).eval()
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(state)
    return model
