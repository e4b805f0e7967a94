"""How prompts were put into a model's chat template, as run.json records it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class ChatSummary:
    """The chat template of a run.

    Attributes:
        template_args: Variables that were passed to the template.
        system_turn: False where it has no turn for a system message; its text then stands in front of the user's.
        opens_reasoning: The tag by which a prompt begins a block of reasoning; None where it does not.
    """

    template_args: Mapping[str, bool | int | float | str]
    system_turn: bool
    opens_reasoning: str | None
