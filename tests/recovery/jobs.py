"""A small training: its recipe and its rows."""

from __future__ import annotations

from recovery.recipe import Recipe

RECIPE = Recipe("full", 1e-3, 6, 4, 4, 64, 4, 8, 0.0, 0.0, False, False, "float32", 1, 0)


def rows(count: int = 24) -> list[dict[str, list[int]]]:
    """Prompts and answers of different lengths."""
    return [
        {"input_ids": [5 + i] * (3 + i % 4) + [40 + i, 50, 51 + i % 3, 1], "labels": [-100] * (3 + i % 4) + [40 + i, 50, 51 + i % 3, 1]}
        for i in range(count)
    ]  # fmt: skip
