"""README.md of a checkpoint that was fine-tuned: the card it had, and what was done since."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.core.model_card import MADE, NO_CLAIM, ORIGINAL, QUALITY, TUNED, ModelCard, read, render
from harness.core.text import markdown

_TUNED = """{tuning} on {source}: {steps} steps of {batch} examples, learning rate {learning_rate:g}{distilled};
merged into plain weights, which load like those before. Every setting: `recovery.json`."""


def recovered_card(text: str, record: Mapping[str, Any]) -> str:
    """The card of a fine-tuned checkpoint.

    Args:
        text: the card of the checkpoint before, "" where it had none.
        record: recovery.json; one without `source` is of an unfinished training and changes nothing.
    """
    if "source" not in record:
        return text
    before = read(text)
    tuning = "LoRA" if record["tuning"] == "lora" else "All weights"
    distilled = (
        f", {record['distill']:.0%} of the loss towards the dense model's distribution" if record["distill"] else ""
    )
    tuned = _TUNED.format(**{**record, "tuning": tuning, "distilled": distilled, "source": markdown(record["source"])})
    sections = {
        MADE: before.sections.get(MADE, ""),
        TUNED: "\n\n".join(filter(None, (before.sections.get(TUNED), tuned))),
        QUALITY: NO_CLAIM,
        ORIGINAL: before.sections.get(ORIGINAL, ""),
    }
    return render(ModelCard(before.front, before.title or "Fine-tuned model", sections))
