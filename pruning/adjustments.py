"""What a live variant does besides removing neurons, in a file beside its plan: neurons that are scaled, and a constant
that is added to the output of a layer's FFN.

A checkpoint could hold the factors and, without a bias in down_proj, not the constant; a running engine can do both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.core.errors import UsageError
from harness.core.files import load_arrays, save_arrays
from harness.core.types.arrays import FloatArray


@dataclass(frozen=True)
class Adjustment:
    """Of one layer.

    Attributes:
        factors: What each kept neuron's activation is multiplied by, [kept]; None: nothing.
        offset: What is added to the output, [hidden_size]; None: nothing.
    """

    factors: FloatArray | None = None
    offset: FloatArray | None = None


def adjustments_file(plan_file: Path) -> Path:
    return plan_file.with_name(f"{plan_file.name}.adjustments.safetensors")


def save_adjustments(plan_file: Path, layers: Sequence[Adjustment]) -> Path:
    """Writes one adjustment for each layer and returns the file."""
    arrays = {
        f"layers.{layer}.{name}": values.astype(np.float32)
        for layer, found in enumerate(layers)
        for name, values in vars(found).items()
        if values is not None
    }
    out = adjustments_file(plan_file)
    save_arrays(out, arrays, {})
    return out


def load_adjustments(plan_file: Path, widths: Sequence[int], hidden_size: int) -> list[Adjustment]:
    """One adjustment for each layer, empty for a plan without.

    Raises:
        UsageError: The file does not fit the plan's widths or the model's hidden_size.
    """
    file = adjustments_file(plan_file)
    arrays = load_arrays(file, "harness dissociate")[0] if file.exists() else {}
    shapes = {f"layers.{layer}.factors": (width,) for layer, width in enumerate(widths)}
    shapes |= {f"layers.{layer}.offset": (hidden_size,) for layer in range(len(widths))}
    if wrong := [name for name, values in arrays.items() if shapes.get(name) != values.shape]:
        raise UsageError(f"{wrong[0][:80]} in {file} does not fit the plan beside it; run `harness dissociate` again")
    return [
        Adjustment(arrays.get(f"layers.{layer}.factors"), arrays.get(f"layers.{layer}.offset"))
        for layer in range(len(widths))
    ]
