"""The re-fitted columns of a compensated plan, in a file beside it: layers.{i}.down_proj [hidden, kept], or .o_proj
where the plan removes KV groups; plan hash.

Beside plan.safetensors lies compensation.safetensors; beside any other NAME lies NAME.compensation.safetensors.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from harness.core.dtypes import bits_of
from harness.core.errors import MeasurementError, UsageError
from harness.core.files import atomic_path
from harness.core.safetensors_stream import Array, Entry, as_array, iter_blocks, read_entries, write_entries
from harness.core.types.pruning import PruningPlan
from pruning.checkpoint import ModelFolder, down_entry, down_projection, seen_from
from pruning.obs import refit
from pruning.structures import STRUCTURES, kept_columns, kept_layers


def columns_file(plan_file: Path) -> Path:
    name = (
        "compensation.safetensors"
        if plan_file.name == "plan.safetensors"
        else f"{plan_file.name}.compensation.safetensors"
    )
    return plan_file.with_name(name)


def _content_hash(plan_file: Path) -> str:
    """A hash of the content alone, so that a plan may be renamed together with its columns."""
    return hashlib.sha256(plan_file.read_bytes()).hexdigest()[:16]


def compensate(
    model: ModelFolder,
    plan: PruningPlan,
    plan_file: Path,
    second_moment: Callable[[int], Any],
    device: str = "cpu",
    done: Callable[[int, Any, Any], None] = lambda _layer, _keep, _fitted: None,
) -> Path:
    """Re-fits the kept columns of each layer that stays on `second_moment(layer)`, in order, and writes them beside the
    plan.

    The columns have the checkpoint's dtype. `done(layer, keep, fitted)` is called before the next layer begins.
    """
    import torch

    read = re_fitted(model, plan)

    def columns(layer: int) -> Any:
        weight = down_projection(read, layer).to(device)
        keep = torch.from_numpy(kept_columns(plan, layer, model.shape)).to(device)
        fitted = refit(weight, second_moment(layer).to(device), keep).to(weight.dtype).cpu()
        if not fitted.isfinite().all():
            raise MeasurementError(
                f"the re-fitted columns of layer {layer} are not finite in {weight.dtype}; use --no-compensate"
            )
        done(layer, keep, fitted)
        return fitted

    return save(plan, plan_file, model, columns)


def re_fitted(model: ModelFolder, plan: PruningPlan) -> ModelFolder:
    """The model as seen from the block whose output projection a plan re-fits."""
    return seen_from(model, STRUCTURES[plan.structure].blocks[0])


def save(plan: PruningPlan, plan_file: Path, model: ModelFolder, columns: Callable[[int], Any]) -> Path:
    """Writes the columns beside the plan, one layer in memory at a time, and returns the file.

    columns: layer -> a torch tensor [hidden_size, kept] in the dtype of the model's down projection.
    """
    out = columns_file(plan_file)
    _, down = down_entry(re_fitted(model, plan), 0)
    hidden = model.shape.hidden_size
    counts = {layer: len(kept_columns(plan, layer, model.shape)) for layer in kept_layers(plan)}
    entries = [Entry(_name(plan, layer), down.dtype, (hidden, count)) for layer, count in counts.items()]

    def blocks(entry: Entry) -> Iterator[Array]:
        yield from iter_blocks(bits_of(columns(int(entry.name.split(".")[1]))))

    with atomic_path(out) as scratch:
        write_entries(scratch, entries, {"plan_hash": _content_hash(plan_file), "model_hash": plan.model_hash}, blocks)
    return out


def _name(plan: PruningPlan, layer: int) -> str:
    return f"layers.{layer}.{'o_proj' if plan.structure == 'kv_group' else 'down_proj'}"


def load(plan: PruningPlan, plan_file: Path) -> dict[int, Array] | None:
    """Layer -> memory-mapped columns as unsigned integers; None for a plan without. Raises UsageError if they do not
    fit.
    """
    if not plan.compensated:
        return None
    path = columns_file(plan_file)
    if not path.exists():
        raise UsageError(f"{path} is missing: the plan is compensated; make the plan again with --compensate")
    try:
        entries, metadata = read_entries(path)
    except ValueError as error:
        raise UsageError(f"{path} is damaged ({error}); make the plan again with --compensate") from error
    if metadata.get("plan_hash") != _content_hash(plan_file):
        raise UsageError(f"{path} belongs to another plan than {plan_file}; make the plan again with --compensate")
    found = {entry.name: entry for entry in entries}
    if not _fit(plan, found):
        raise UsageError(f"{path} does not hold the columns of {plan_file}; make the plan again with --compensate")
    return {layer: as_array(path, found[_name(plan, layer)]) for layer in kept_layers(plan)}


def _fit(plan: PruningPlan, found: Mapping[str, Entry]) -> bool:
    """Whether every layer that stays has the columns that the plan keeps: one for each neuron, as many for each KV
    group.
    """
    of_groups = plan.structure == "kv_group"
    units = plan.kv_heads if of_groups else plan.widths
    counts = {layer: units[layer] for layer in kept_layers(plan)}
    shapes = {name: entry.shape[1] for name, entry in found.items() if len(entry.shape) == 2}
    if shapes.keys() != {_name(plan, layer) for layer in counts} or len(shapes) != len(found):
        return False
    sizes = {shapes[_name(plan, layer)] / count for layer, count in counts.items()}
    return len(sizes) == 1 if of_groups else sizes == {1}


def load_columns(plan: PruningPlan, plan_file: Path) -> dict[int, Any] | None:
    """Layer -> torch tensor [hidden, kept]; otherwise as `load`."""
    from safetensors.torch import load_file

    if load(plan, plan_file) is None:
        return None
    return {int(name.split(".")[1]): tensor for name, tensor in load_file(columns_file(plan_file)).items()}
