"""A small training: its recipe and its rows."""

from __future__ import annotations

from recovery.recipe import Recipe

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
