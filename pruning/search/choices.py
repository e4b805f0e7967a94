"""What a search decides about one layer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LayerChoice:
    """What one layer becomes.

    Attributes:
        width: FFN neurons that stay; 0 in a layer that is removed.
        attention: Whether its attention stays.
    """

    width: int
    attention: bool = True

    def __post_init__(self) -> None:
        if self.width < 0 or (self.attention and not self.width):
            raise ValueError(f"a layer of width {self.width} cannot be {'kept' if self.attention else 'removed'}")

    @property
    def removed(self) -> bool:
        """Whether hidden states pass over the whole layer unchanged."""
        return not self.width
