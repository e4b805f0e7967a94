"""README.md of a checkpoint that was fine-tuned: the card it had, and what was done since."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_SECTION = """# Fine-tuned

{tuning} on {source}: {steps} steps of {batch} examples, learning rate {learning_rate:g}{distilled}; merged into plain weights, which
load like those before. Every setting: `recovery.json`. This card makes no claim about quality: measure it on your task.

"""


def recovered_card(card: str, record: Mapping[str, Any]) -> str:
    """The section goes between the front matter and the rest; an unfinished record (a state on the way) gives the card
    as it was.
    """
    if "source" not in record:
        return card
    front, rest = "", card
    if card.startswith("---\n") and "\n---\n" in card[4:]:
        end = card.index("\n---\n", 4) + 5
        front, rest = card[:end], card[end:]
    tuning = "LoRA" if record["tuning"] == "lora" else "All weights"
    distilled = (
        f", {record['distill']:.0%} of the loss towards the dense model's distribution" if record["distill"] else ""
    )
    return front + _SECTION.format(**{**record, "tuning": tuning, "distilled": distilled}) + rest
