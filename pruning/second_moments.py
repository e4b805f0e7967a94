"""H = E[h h^T] of every layer over the calibration tokens, one layer in memory at a time, kept on disk.

h is the input of the output projection that is re-fitted: down_proj, or o_proj where the family is seen from attention.
[F, F] floats a layer, 1.4 GB at width 18944; one pass over the prompts for all layers.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from harness.core.bounded_read import check_regular
from harness.core.errors import UsageError
from harness.core.files import atomic_path, check_disk
from harness.core.types.calibration import CalibrationItem, CalibrationSet
from pruning.layer_source import LayerSource, widths
from pruning.layer_walk import Batch, LayerWalk


def layer_file(folder: Path, layer: int) -> Path:
    return folder / f"layer-{layer:03d}.safetensors"


def layer_bytes(width: int) -> int:
    return 4 * width**2


@dataclass(frozen=True)
class SecondMoments:
    """What is measured, and the folder with a file for each layer.

    general_weight: The share of general (distractor) tokens in H.
    block: Whose output projection reads h.
    """

    calibration: CalibrationSet
    general_weight: float
    folder: Path
    block: Literal["ffn", "attention"] = "ffn"

    @functools.cached_property
    def key(self) -> str:
        """Identifies what they are measured on."""
        block = "" if self.block == "ffn" else f"-{self.block}"
        return f"{self.calibration.hash}-{self.general_weight!r}{block}"

    def missing(self, layers: Iterable[int]) -> list[int]:
        """Those of `layers` whose H has not been measured, or was measured on something else."""
        return [layer for layer in layers if stored_key(layer_file(self.folder, layer)) != self.key]

    def of_layer(self, layer: int) -> LayerMoment | None:
        """An empty sum for a layer; None where its H is there already."""
        return LayerMoment(self, layer) if self.missing([layer]) else None

    def check_disk(self, widths: Sequence[int]) -> None:
        """Raises StorageError where the disk has no room for what is missing; `widths`: of every layer."""
        check_disk(self.folder, sum(layer_bytes(widths[layer]) for layer in self.missing(range(len(widths)))))


class LayerMoment:
    """H [F, F] float32 of one layer, summed over batches: (1 - w) E_T[h h^T] + w E_D[h h^T] over the scored tokens, on
    the layer's device.

    w is `general_weight`.
    """

    def __init__(self, moments: SecondMoments, layer: int) -> None:
        self.moments, self.layer = moments, layer
        self.weights = token_weights(moments.calibration, moments.general_weight)
        self.found: Any = None

    def add(self, batch: Batch, h: Any) -> None:
        """h: before the layer's down projection; the last of its axes is intermediate_size."""
        weight = self.weights[batch.target]
        if weight == 0:
            return
        positions = batch.scored_on(h.device).positions
        rows = h.reshape(-1, h.shape[-1]).index_select(0, positions).float() * weight**0.5
        self.found = rows.T @ rows if self.found is None else self.found.addmm_(rows.T, rows)

    def save(self) -> None:
        _save(layer_file(self.moments.folder, self.layer), self.found, self.moments.key)


def measure(source: LayerSource, moments: SecondMoments, progress: Callable[[int], None] = lambda _: None) -> None:
    """Writes the file of each layer that has none from the same inputs. `progress` is called with 1 after each layer
    up to the last of them.
    """
    weights = token_weights(moments.calibration, moments.general_weight)
    missing = moments.missing(range(len(widths(source))))
    if not missing:
        return
    moments.check_disk(widths(source))
    walk = LayerWalk(source, [item for item in moments.calibration.items if weights[item.target] > 0], moments.folder)
    for layer in range(missing[-1] + 1):
        moment = moments.of_layer(layer)
        with source.layer(layer) as module, walk.observing(moment.add if moment else _nothing):
            walk.forward(module, advance=layer < missing[-1])
        if moment:
            moment.save()
        progress(1)
    walk.hidden.remove()


def _nothing(_batch: Batch, _h: Any) -> None:
    """Observes a layer whose H is there."""


def token_weights(calibration: CalibrationSet, general_weight: float) -> dict[bool, float]:
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
