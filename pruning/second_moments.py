"""H = E[h h^T] of every layer over the calibration tokens, in groups of layers that fit the memory, kept on disk.

One pass over the prompts per group: [F, F] floats a layer, 1.4 GB at width 18944.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from harness.errors import UsageError
from harness.store import atomic_path, need_disk
from harness.types import CalibrationItem, CalibrationSet
from pruning.activations import down_weight, observe, pad
from pruning.calibration import batches
from pruning.families import Family, submodule


def layer_file(folder: Path, layer: int) -> Path:
    return folder / f"layer-{layer:03d}.safetensors"


def layers_per_pass(layers: int, width: int, memory_bytes: float) -> int:
    """How many layers' H fit in `memory_bytes`, at least one."""
    return max(1, min(layers, int(memory_bytes // (8 * width**2))))  # the sum and one batch's product


def measure(
    model: Any, family: Family, calibration: CalibrationSet, retain: float, folder: Path, memory_bytes: float,
    progress: Callable[[int], None] = lambda _: None,
) -> None:  # fmt: skip
    """Writes one file per layer to `folder`; a layer that is there already, from the same inputs, is not measured again."""
    stack = submodule(model, family.layers)
    width = down_weight(stack[0], family).shape[1]
    wanted = missing(folder, calibration, retain, len(stack))
    need_disk(folder, len(wanted) * 4 * width**2)
    size = layers_per_pass(len(stack), width, memory_bytes)
    for start in range(0, len(wanted), size):
        group = wanted[start : start + size]
        for layer, second_moment in zip(group, accumulate(model, family, calibration, retain, group, progress), strict=True):
            _save(layer_file(folder, layer), second_moment, _wanted_key(calibration, retain))


def missing(folder: Path, calibration: CalibrationSet, retain: float, layers: int) -> list[int]:
    """The layers whose H is not there, or was measured on something else."""
    return [layer for layer in range(layers) if _key(layer_file(folder, layer)) != _wanted_key(calibration, retain)]


def _wanted_key(calibration: CalibrationSet, retain: float) -> str:
    return f"{calibration.hash}-{retain!r}"


def passes(layers: int, width: int, memory_bytes: float) -> int:
    return math.ceil(layers / layers_per_pass(layers, width, memory_bytes))


def accumulate(
    model: Any, family: Family, calibration: CalibrationSet, retain: float, layers: list[int],
    progress: Callable[[int], None] = lambda _: None,
) -> Iterator[Any]:  # fmt: skip
    """Yields H [F, F] float32 of each of `layers`: (1 - retain) E_T[h h^T] + retain E_D[h h^T] over the scored tokens."""
    import torch

    sums: dict[int, Any] = {}
    weights = _token_weights(calibration, retain)
    with torch.inference_mode():
        for batch in batches([item for item in calibration.items if weights[item.target] > 0]):
            ids, attention, mask = pad(batch, model.device)
            scored, weight = mask.bool(), weights[batch[0].target]

            def add(layer: int, h: Any, scored: Any = scored, weight: float = weight) -> None:
                rows = h.reshape(*scored.shape, -1)[scored.to(h.device)].float() * weight**0.5
                sums[layer] = sums[layer].addmm_(rows.T, rows) if layer in sums else rows.T @ rows

            with observe(model, family, add, layers):
                getattr(model, family.body)(input_ids=ids, attention_mask=attention, use_cache=False)
            progress(len(batch))
    for layer in layers:
        yield sums.pop(layer)


def _token_weights(calibration: CalibrationSet, retain: float) -> dict[bool, float]:
    """What one token of each group counts in H."""
    if not 0 <= retain <= 1:
        raise UsageError(f"retain {retain} is outside [0, 1]; it is the share of general tokens in what pruning must keep")

    def tokens(items: list[CalibrationItem]) -> int:
        return sum(item.stop - item.start for item in items)

    target, general = (tokens([item for item in calibration.items if item.target is side]) for side in (True, False))
    return {True: (1 - retain) / max(target, 1), False: retain / max(general, 1)}


def load(folder: Path, layer: int, device: str = "cpu") -> Any:
    """H [F, F] float32 of one layer."""
    from safetensors.torch import load_file

    return load_file(layer_file(folder, layer), device=device)["second_moment"]


def _save(path: Path, second_moment: Any, key: str) -> None:
    from safetensors.torch import save_file

    with atomic_path(path) as scratch:
        save_file({"second_moment": second_moment.contiguous().cpu()}, scratch, metadata={"key": key})


def _key(path: Path) -> str | None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {}).get("key")
    except (OSError, SafetensorError):
        return None
