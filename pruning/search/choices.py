"""What a search decides about one layer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LayerChoice:
    """What one layer becomes.

    Attributes:
        width: FFN neurons that stay; 0 in a layer that is removed.
        removed: Whether hidden states pass over the whole layer unchanged.
    """

    width: int
    removed: bool = False

    def __post_init__(self) -> None:
        if (self.width < 1) is not self.removed:
            raise ValueError(f"a layer of width {self.width} cannot be {'removed' if self.removed else 'kept'}")
