"""The re-fitted columns of a compensated plan, in a file beside it: layers.{i}.down_proj [hidden, kept] and the plan's hash."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from harness.errors import UsageError
from harness.store import atomic_path, file_hash
from harness.types import PruningPlan
from pruning import second_moments
from pruning.checkpoint import down_projection, read_config
from pruning.families import Family, family_of
from pruning.obs import refit
from pruning.stream import Array, Entry, as_array, read_entries, whole, write_entries

FILE = "compensation.safetensors"


def compensate(
    model: Path, plan: PruningPlan, plan_file: Path, moments: Path, device: str = "cpu",
    progress: Callable[[int], None] = lambda _: None,
) -> Path:  # fmt: skip
    """Re-fits every layer's kept columns on its second moments and writes them beside the plan, in the checkpoint's own dtype."""
    family = family_of(read_config(model))

    def columns(layer: int) -> Any:
        weight = down_projection(model, family, layer).to(device)
        keep = _indices(plan, layer, device)
        fitted = refit(weight, second_moments.load(moments, layer, device), keep).to(weight.dtype).cpu()
        progress(1)
        return fitted

    return save(plan, plan_file, model, family, columns)


def _indices(plan: PruningPlan, layer: int, device: str) -> Any:
    import torch

    return torch.from_numpy(plan.keep[layer]).long().to(device)


def save(plan: PruningPlan, plan_file: Path, model: Path, family: Family, columns: Callable[[int], Any]) -> Path:
    """One layer in memory at a time; `columns(layer)` gives [hidden, kept] in the dtype of the model's down projection."""
    out = plan_file.with_name(FILE)
    first = down_projection(model, family, 0)
    dtype = {"torch.float32": "F32", "torch.bfloat16": "BF16", "torch.float16": "F16", "torch.float64": "F64"}[str(first.dtype)]
    entries = [Entry(_name(layer), dtype, (len(first), width)) for layer, width in enumerate(plan.widths)]

    def blocks(entry: Entry) -> Iterator[Array]:
        yield from whole(_as_bits(columns(int(entry.name.split(".")[1]))))

    with atomic_path(out) as scratch:
        write_entries(scratch, entries, {"plan_hash": file_hash(plan_file), "model_hash": plan.model_hash}, blocks)
    return out


def _name(layer: int) -> str:
    return f"layers.{layer}.down_proj"


def _as_bits(tensor: Any) -> Array:
    import torch

    bits = {2: torch.uint16, 4: torch.uint32, 8: torch.uint64}[tensor.element_size()]
    found: Array = tensor.contiguous().view(bits).numpy()
    return found


def load(plan: PruningPlan, plan_file: Path) -> dict[int, Array] | None:
    """Layer -> memory-mapped columns as unsigned integers, None for a plan without; raises UsageError where they do not fit."""
    if not plan.compensated:
        return None
    path = plan_file.with_name(FILE)
    if not path.exists():
        raise UsageError(f"{path} is missing: the plan is compensated; make the plan again with --compensate")
    entries, metadata = read_entries(path)
    if metadata.get("plan_hash") != file_hash(plan_file):
        raise UsageError(f"{path} belongs to another plan than {plan_file}; make the plan again with --compensate")
    return {int(entry.name.split(".")[1]): as_array(path, entry) for entry in entries}
