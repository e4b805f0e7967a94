"""H = E[h h^T] of every layer over the calibration tokens, in groups of layers that fit the memory, kept on disk.

One pass over the prompts per group: [F, F] floats a layer, 1.4 GB at width 18944.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from harness.core.bounded_read import check_regular
from harness.core.errors import UsageError
from harness.core.files import atomic_path, check_disk
from harness.core.types.calibration import CalibrationItem, CalibrationSet
from pruning.activations import Observer, down_weight, observe, pad
from pruning.calibration import batches
from pruning.families import Family, submodule


def layer_file(folder: Path, layer: int) -> Path:
    return folder / f"layer-{layer:03d}.safetensors"


def layers_per_pass(layers: int, width: int, memory_bytes: float) -> int:
    """How many layers' H fit in `memory_bytes`, at least one."""
    return max(1, min(layers, int(memory_bytes // layer_bytes(width)) - 1))  # one more while a layer's is saved


def layer_bytes(width: int) -> int:
    return 4 * width**2


def measure(
    model: Any,
    family: Family,
    calibration: CalibrationSet,
    general_weight: float,
    folder: Path,
    memory_bytes: float,
    progress: Callable[[int], None] = lambda _: None,
) -> None:
    """Writes one file per layer to `folder`; a layer that is there already, from the same inputs, is not measured
    again.
    """
    stack = submodule(model, family.layers)
    width = down_weight(stack[0], family).shape[1]
    wanted = missing(folder, calibration, general_weight, len(stack))
    check_disk(folder, len(wanted) * 4 * width**2)
    size = layers_per_pass(len(stack), width, memory_bytes)
    for start in range(0, len(wanted), size):
        sums = Sums(calibration, general_weight, wanted[start : start + size])
        _accumulate(model, family, calibration, sums, progress)
        sums.save(folder)


def missing(folder: Path, calibration: CalibrationSet, general_weight: float, layers: int) -> list[int]:
    """The layers whose H has not been measured, or was measured on something else."""
    return [
        layer for layer in range(layers) if stored_key(layer_file(folder, layer)) != key_of(calibration, general_weight)
    ]


def key_of(calibration: CalibrationSet, general_weight: float) -> str:
    """Identifies what second moments were measured on."""
    return f"{calibration.hash}-{general_weight!r}"


def passes(layers: int, width: int, memory_bytes: float) -> int:
    return math.ceil(layers / layers_per_pass(layers, width, memory_bytes))


class Sums:
    """H [F, F] float32 of `layers`, accumulated over batches: (1 - w) E_T[h h^T] + w E_D[h h^T] over the scored tokens.

    w is `general_weight`, the share of the general (distractor) tokens.
    """

    def __init__(self, calibration: CalibrationSet, general_weight: float, layers: Sequence[int]) -> None:
        self.key, self.layers = key_of(calibration, general_weight), tuple(layers)
        self.weights = _token_weights(calibration, general_weight)
        self.missing = sum(self.weights[item.target] > 0 for item in calibration.items)  # prompts not seen yet
        self.found: dict[int, Any] = {}

    def observer(self, target: bool, mask: Any) -> Observer | None:
        """The observer that adds a batch with this mask of scored tokens; None where its group has weight 0."""
        weight, scored = self.weights[target], mask.bool()
        if weight == 0:
            return None
        self.missing -= len(mask)

        def add(layer: int, h: Any) -> None:
            if layer in self.layers:
                rows = h.reshape(*scored.shape, -1)[scored.to(h.device)].float() * weight**0.5
                self.found[layer] = self.found[layer].addmm_(rows.T, rows) if layer in self.found else rows.T @ rows

        return add

    def save(self, folder: Path) -> None:
        """Writes one file per layer; nothing where prompts are missing, as after a resumed pass."""
        while self.found and not self.missing:
            layer, second_moment = self.found.popitem()
            _save(layer_file(folder, layer), second_moment, self.key)


def one_pass(
    model: Any, family: Family, calibration: CalibrationSet, general_weight: float, folder: Path, memory_bytes: float
) -> Sums | None:
    """Sums for a pass that is made anyway, if all layers fit into `memory_bytes` together; None if they do not."""
    stack = submodule(model, family.layers)
    width = down_weight(stack[0], family).shape[1]
    if layers_per_pass(len(stack), width, memory_bytes) < len(stack):
        return None
    check_disk(folder, len(stack) * 4 * width**2)
    return Sums(calibration, general_weight, range(len(stack)))


def _accumulate(
    model: Any, family: Family, calibration: CalibrationSet, sums: Sums, progress: Callable[[int], None]
) -> None:
    import torch

    with torch.inference_mode():
        for batch in batches([item for item in calibration.items if sums.weights[item.target] > 0]):
            ids, attention, mask = pad(batch, model.device)
            add = sums.observer(batch[0].target, mask)
            assert add is not None
            with observe(model, family, add, sums.layers):
                getattr(model, family.body)(input_ids=ids, attention_mask=attention, use_cache=False)
            progress(len(batch))


def _token_weights(calibration: CalibrationSet, general_weight: float) -> dict[bool, float]:
    """The weight of one token of each group in H."""
    if not 0 <= general_weight <= 1:
        raise UsageError(
            f"general weight {general_weight} is outside [0, 1]; it is the share of "
            "general tokens in what pruning must keep"
        )

    def tokens(items: list[CalibrationItem]) -> int:
        return sum(item.stop - item.start for item in items)

    target, general = (tokens([item for item in calibration.items if item.target is side]) for side in (True, False))
    return {True: (1 - general_weight) / max(target, 1), False: general_weight / max(general, 1)}


def load(folder: Path, layer: int, device: str = "cpu") -> Any:
    """H [F, F] float32 of one layer."""
    from safetensors.torch import load_file

    check_regular(layer_file(folder, layer))
    return load_file(layer_file(folder, layer), device=device)["second_moment"]


def _save(path: Path, second_moment: Any, key: str) -> None:
    from safetensors.torch import save_file

    with atomic_path(path) as scratch:
        save_file({"second_moment": second_moment.contiguous().cpu()}, scratch, metadata={"key": key})


def stored_key(path: Path) -> str | None:
    """The key in a file's metadata; None where the file is missing or damaged."""
    from safetensors import SafetensorError, safe_open

    try:
        check_regular(path)  # the library would wait for a FIFO
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {}).get("key")
    except (OSError, UsageError, SafetensorError):
        return None
