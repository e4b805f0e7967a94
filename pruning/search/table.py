"""The damage of every choice in every layer, one layer changed at a time; kept in a file and measured once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.core.errors import UsageError
from harness.core.files import load_arrays, save_arrays
from harness.core.types.arrays import FloatArray
from pruning.search.choices import LayerChoice
from pruning.search.damage import DamageProbe

_MADE_BY = "harness run"


@dataclass(frozen=True)
class DamageTable:
    """Damage of single changes.

    Attributes:
        choices: What a layer may become.
        nats: KL(dense || changed) in nats per scored token, [layers, choices]; NaN where it is not measured.
    """

    choices: tuple[LayerChoice, ...]
    nats: FloatArray


def measure_damage(
    probe: DamageProbe,
    choices: Sequence[LayerChoice],
    progress: Callable[[int], None] = lambda _: None,
    file: Path | None = None,
    key: str = "",
) -> DamageTable:
    """Measures every choice in every layer while all other layers stay as they are.

    Args:
        probe: On the dense model.
        choices: What a layer may become.
        progress: Called with 1 after each layer, also after one that is known already.
        file: Where what is measured is kept after each layer, and found again; None keeps nothing.
        key: Identifies what it is measured on; a file with another one is measured again.
    """
    known = load_table(file, key) if file else None
    fits = known is not None and known.choices == tuple(choices) and len(known.nats) == probe.layers
    nats = known.nats.copy() if known is not None and fits else np.full((probe.layers, len(choices)), np.nan)
    table = DamageTable(tuple(choices), nats)
    for layer in range(probe.layers):
        if np.isnan(nats[layer]).any():
            nats[layer] = [probe.nats(_only(probe, layer, choice)) for choice in choices]
            if file:
                save_table(table, file, key)
        progress(1)
    return table


def _only(probe: DamageProbe, layer: int, choice: LayerChoice) -> list[LayerChoice]:
    """The dense model but for one layer."""
    return [choice if other == layer else probe.whole for other in range(probe.layers)]


def save_table(table: DamageTable, file: Path, key: str) -> None:
    arrays = {
        "nats": table.nats,
        "widths": np.array([choice.width for choice in table.choices], dtype=np.int32),
        "attention": np.array([choice.attention for choice in table.choices], dtype=bool),
    }
    save_arrays(file, arrays, {"key": key})


def load_table(file: Path, key: str) -> DamageTable | None:
    """What `save_table` wrote under this key; None where the file is missing, damaged or of another key."""
    try:
        arrays, metadata = load_arrays(file, _MADE_BY)
        choices = tuple(
            LayerChoice(int(width), bool(attention))
            for width, attention in zip(arrays["widths"], arrays["attention"], strict=True)
        )
        nats = arrays["nats"]
    except (UsageError, KeyError, TypeError, ValueError):
        return None
    whole = metadata.get("key") == key and nats.dtype == np.float64 and nats.shape[1:] == (len(choices),)
    return DamageTable(choices, nats) if whole else None
