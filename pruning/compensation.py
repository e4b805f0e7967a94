"""The re-fitted columns of a compensated plan, in a file beside it: layers.{i}.down_proj [hidden, kept], or .o_proj
where the plan removes KV groups; plan hash.

A reconstructed plan has the FFN's other tensors there as well, as they are stored, by their names below the layer:
layers.{i}.mlp.gate_proj.weight [kept, hidden].

Beside plan.safetensors lies compensation.safetensors; beside any other NAME lies NAME.compensation.safetensors.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.core.dtypes import bits_of, tensor_of
from harness.core.errors import MeasurementError, UsageError
from harness.core.files import atomic_path
from harness.core.safetensors_stream import Array, Entry, as_array, iter_blocks, read_entries, write_entries
from harness.core.types.pruning import PruningPlan
from pruning.checkpoint import ModelFolder, down_projection, seen_from
from pruning.cuts import Cut
from pruning.obs import refit
from pruning.structures import STRUCTURES, kept_columns, kept_layers

Place = tuple[int, str]  # a layer, and the name of a tensor below it
_AGAIN = "make the plan again with --compensate"


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
    down = read.family.down_cut

    def columns(layer: int) -> Mapping[str, Any]:
        weight = down_projection(read, layer).to(device)
        keep = torch.from_numpy(kept_columns(plan, layer, model.shape)).to(device)
        fitted = refit(weight, second_moment(layer).to(device), keep).to(weight.dtype).cpu()
        if not fitted.isfinite().all():
            raise MeasurementError(
                f"the re-fitted columns of layer {layer} are not finite in {weight.dtype}; use --no-compensate"
            )
        done(layer, keep, fitted)
        return {down.name: _turned(fitted, down)}

    return save(replace(plan, reconstructed=False), plan_file, model, columns)


def re_fitted(model: ModelFolder, plan: PruningPlan) -> ModelFolder:
    """The model as seen from the block whose output projection a plan re-fits."""
    return seen_from(model, STRUCTURES[plan.structure].blocks[0])


def save(plan: PruningPlan, plan_file: Path, model: ModelFolder, tensors: Callable[[int], Mapping[str, Any]]) -> Path:
    """Writes the tensors beside the plan, one layer in memory at a time, and returns the file.

    tensors: layer -> torch tensors by their names below the layer, as the checkpoint stores them: of the projection
        that is re-fitted, and for a reconstructed plan of the whole FFN. It is asked once a layer, in order.
    """
    out, places, down = columns_file(plan_file), _places(model, plan), re_fitted(model, plan).family.down_cut
    entries = {entry.name: entry for entry in places.values()}
    of_entry = {entry.name: place for place, entry in places.items()}
    of_layer = functools.lru_cache(maxsize=1)(tensors)

    def blocks(entry: Entry) -> Iterator[Array]:
        layer, below = of_entry[entry.name]
        tensor = of_layer(layer)[below]
        yield from iter_blocks(bits_of(_turned(tensor, down).contiguous() if below == down.name else tensor))

    with atomic_path(out) as scratch:
        metadata = {"plan_hash": _content_hash(plan_file), "model_hash": plan.model_hash}
        write_entries(scratch, list(entries.values()), metadata, blocks)
    return out


def _places(model: ModelFolder, plan: PruningPlan) -> dict[Place, Entry]:
    """What the file of a plan holds, layer after layer: where it belongs, and the tensor there."""
    read, found, left = re_fitted(model, plan), {}, set(kept_layers(plan))
    for _, entry, cut, layer in read.ffn_entries():
        if layer not in left:
            continue
        if cut == read.family.down_cut:
            name = "o_proj" if plan.structure == "kv_group" else "down_proj"
            columns = len(kept_columns(plan, layer, model.shape))
            found[layer, cut.name] = Entry(f"layers.{layer}.{name}", entry.dtype, (model.shape.hidden_size, columns))
        elif plan.reconstructed:
            kept = len(cut.kept(plan.keep[layer], plan.intermediate_size))
            name = f"layers.{layer}.{cut.name}"
            found[layer, cut.name] = replace(entry.resized(cut.axis, kept), name=name, start=0)
    return dict(sorted(found.items(), key=lambda each: each[0][0]))


def load(model: ModelFolder, plan: PruningPlan, plan_file: Path) -> dict[Place, Array]:
    """Memory-mapped tensors as unsigned integers, as the checkpoint stores them; none for a plan without.

    Raises UsageError where they are missing or do not fit the plan and the model.
    """
    if not plan.compensated:
        return {}
    path, down = columns_file(plan_file), re_fitted(model, plan).family.down_cut
    places, found = _places(model, plan), _read(plan_file)
    held = {name: (entry.dtype, entry.shape) for name, entry in found.items()}
    if held != {entry.name: (entry.dtype, entry.shape) for entry in places.values()}:
        raise UsageError(f"{path} does not hold the columns of {plan_file} for {model.path}; {_AGAIN}")
    arrays = {place: as_array(path, found[entry.name]) for place, entry in places.items()}
    return {place: _turned(array, down) if place[1] == down.name else array for place, array in arrays.items()}


def _turned(matrix: Any, down: Cut) -> Any:
    """[hidden, kept] as the checkpoint stores it, or back."""
    return matrix if down.axis == 1 else matrix.T


def _read(plan_file: Path) -> dict[str, Entry]:
    """The tensors beside a plan by their names; raises UsageError where they are missing or another plan's."""
    path = columns_file(plan_file)
    if not path.exists():
        raise UsageError(f"{path} is missing: the plan is compensated; {_AGAIN}")
    try:
        entries, metadata = read_entries(path)
    except ValueError as error:
        raise UsageError(f"{path} is damaged ({error}); {_AGAIN}") from error
    if metadata.get("plan_hash") != _content_hash(plan_file):
        raise UsageError(f"{path} belongs to another plan than {plan_file}; {_AGAIN}")
    return {entry.name: entry for entry in entries}


def load_layers(model: ModelFolder, plan: PruningPlan, plan_file: Path) -> Callable[[int], dict[str, Any]]:
    """layer -> its torch tensors by their names below the layer; otherwise as `load`."""
    found = load(model, plan, plan_file)
    dtypes = {place: entry.dtype for place, entry in _places(model, plan).items()} if found else {}

    def tensors(layer: int) -> dict[str, Any]:
        return {below: tensor_of(found[at, below], dtypes[at, below]) for at, below in found if at == layer}

    return tensors
