"""Plan + checkpoint -> smaller checkpoint, block by block; stock vLLM and transformers load the result.

No tensor library: bytes are copied, rows and columns gathered from memory maps, so a 15 GB checkpoint needs a few MiB.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harness.core.errors import UnsupportedModelError, UsageError
from harness.core.files import atomic_path, check_disk
from harness.core.safetensors_stream import (
    Array,
    Entry,
    as_array,
    file_bytes,
    finite,
    gather_blocks,
    iter_blocks,
    read_entries,
    write_entries,
)
from harness.core.types.pruning import Checkpoint, PruningPlan
from pruning import compensation
from pruning.checkpoint import INDEX, RECORD, RECOVERED, check_uniform_width, describe, fingerprint, read_config, shards
from pruning.families import Cut, Family, family_of, shape_of
from pruning.model_card import model_card

PLAN_COPY = "pruning/plan.safetensors"  # in a folder: vLLM loads every *.safetensors beside the weights
_WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".msgpack", ".h5", ".onnx")
_FORMAT = {"format": "pt"}
_TEMPLATES = "additional_chat_templates"
_OWN_FILES = ("config.json", "README.md", RECORD, RECOVERED)  # written anew, or true of the original only


@dataclass(frozen=True)
class _Job:
    """What every shard's copy needs to know."""

    family: Family
    plan: PruningPlan
    columns: Mapping[int, Array]  # layer -> re-fitted [hidden, kept]


def export(
    model: Path,
    plan: PruningPlan,
    out: Path,
    plan_file: Path | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> Checkpoint:
    """Writes the pruned checkpoint to `out`, whole or not at all. `plan_file`: where the plan lies, for what lies
    beside it; `progress` hears of every shard.

    Raises UsageError where the plan does not fit the model, UnsupportedModelError for damaged weights, StorageError for
    a full disk.
    """
    config = read_config(model)
    job = _job(model, plan, plan_file)
    if out.resolve() == model.resolve():
        raise UsageError(f"{out} is the model itself; give another --out")
    widths = _widths(job.family, plan)
    files = shards(model)
    check_disk(out, sum(shard.stat().st_size for shard in files))
    with atomic_path(out, replaces=RECORD) as scratch:
        scratch.mkdir()
        copy_side_files(model, scratch)
        sizes = {}
        for shard in files:
            sizes[shard.name] = _write_shard(shard, scratch / shard.name, job)
            progress(1)
        _check_all_cut(job, {name for tensors in sizes.values() for name in tensors})
        _write_index(scratch, model, sizes)
        _write_own_files(model, scratch, plan, plan_file, {**config, **widths})
    return describe(out)


def predict_size(model: Path, plan: PruningPlan) -> Checkpoint:
    """Widths, parameters and bytes of what `export` would write, to the byte, without writing it."""
    job = _Job(family_of(read_config(model)), plan, {})
    parameters = total = 0
    for shard in shards(model):
        entries, metadata = read_entries(shard)
        resized = [_resized(entry, job) for entry in entries]
        parameters += sum(math.prod(entry.shape) for entry in resized)
        total += file_bytes(resized, metadata or _FORMAT)
    return Checkpoint(model, plan.widths, parameters, total)


def ffn_tensors(model: Path, plan: PruningPlan, plan_file: Path | None = None) -> Iterator[tuple[int, dict[str, Any]]]:
    """Layer by layer, the FFN's torch tensors by their name below the layer, as the pruned checkpoint would hold
    them.
    """
    job = _job(model, plan, plan_file)
    layers: dict[int, list[tuple[str, Path, Entry]]] = {}
    for shard in shards(model):
        for entry in read_entries(shard)[0]:
            if found := job.family.tensor(entry.name):
                layers.setdefault(found[1], []).append((found[0].name, shard, entry))
    for layer, entries in sorted(layers.items()):
        yield layer, {name: _tensor(shard, entry, job) for name, shard, entry in entries}


def _tensor(shard: Path, entry: Entry, job: _Job) -> Any:
    import torch

    resized = _resized(entry, job)
    bits = np.concatenate([block.reshape(-1) for block in _blocks(shard, entry, job)])
    dtype = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}[entry.dtype]
    return torch.from_numpy(bits).view(dtype).reshape(resized.shape)


def _job(model: Path, plan: PruningPlan, plan_file: Path | None) -> _Job:
    """Raises UsageError where the plan does not fit the model or its columns are not at hand."""
    config = read_config(model)
    _check_fit(model, config, plan)
    if plan.compensated and plan_file is None:
        raise UsageError("the plan is compensated; its file is needed for the columns beside it")
    columns = compensation.load(plan, plan_file) if plan_file else None
    return _Job(family_of(config), plan, columns or {})


def _check_fit(model: Path, config: Mapping[str, Any], plan: PruningPlan) -> None:
    shape = shape_of(config)
    check_uniform_width(model)
    if (shape.num_hidden_layers, shape.intermediate_size) != (len(plan.keep), plan.intermediate_size):
        raise UsageError(
            f"the plan is for {len(plan.keep)} layers of width {plan.intermediate_size}, the model has "
            f"{shape.num_hidden_layers} of {shape.intermediate_size}; make a plan from this model's scores"
        )
    if plan.model_hash != fingerprint(model):
        raise UsageError(
            f"the plan was made for {plan.model} and {model} has other weights; make a plan from this model's scores"
        )


def _widths(family: Family, plan: PruningPlan) -> dict[str, Any]:
    """Uniform widths are an ordinary config; others carry our list and the architecture name that our vLLM plugin
    registers.
    """
    if len(set(plan.widths)) == 1:
        return {family.width_key: plan.widths[0]}
    if not family.supports_nonuniform_widths:
        raise UsageError(
            f"vLLM cannot run {family.model_type} with a width of its own in every layer; use --allocation uniform"
        )
    return {
        family.width_key: max(plan.widths),
        "intermediate_sizes": list(plan.widths),
        "architectures": [f"FFNPruned{family.architecture}"],
    }


def copy_side_files(model: Path, out: Path, everything: bool = False) -> None:
    """Tokenizer, chat templates, licence, generation settings: all in the folder that is not weights.

    everything: also its configuration, what pruning wrote and the shards' index, for weights of the same names and
    shapes."""
    if (model / _TEMPLATES).is_dir():
        shutil.copytree(model / _TEMPLATES, out / _TEMPLATES)
    if everything:
        for name in ("config.json", RECORD, RECOVERED, INDEX, PLAN_COPY):
            if (model / name).exists():
                (out / name).parent.mkdir(exist_ok=True)
                shutil.copyfile(model / name, out / name)
    for file in model.iterdir():
        if (
            file.is_file()
            and not file.name.endswith((*_WEIGHT_SUFFIXES, ".index.json"))
            and file.name not in _OWN_FILES
        ):
            shutil.copyfile(file, out / file.name)


def _write_shard(source: Path, destination: Path, job: _Job) -> dict[str, int]:
    """Returns the bytes of every tensor written, by name."""
    entries, metadata = read_entries(source)
    originals = {entry.name: entry for entry in entries}
    written = [_resized(entry, job) for entry in entries]

    def blocks(entry: Entry) -> Iterator[Array]:
        for block in _blocks(source, originals[entry.name], job):
            if not finite(block, entry.dtype):
                raise UnsupportedModelError(f"{entry.name} in {source} holds NaN or infinity; get this file again")
            yield block

    write_entries(destination, written, metadata or _FORMAT, blocks)
    return {entry.name: entry.data_bytes for entry in written}


def _resized(entry: Entry, job: _Job) -> Entry:
    found = job.family.tensor(entry.name)
    if found is None:
        return entry
    cut, layer = found
    if layer >= len(job.plan.keep) or entry.shape[cut.axis] != cut.parts * job.plan.intermediate_size:
        raise UnsupportedModelError(
            f"{entry.name} has shape {list(entry.shape)}, which does not fit config.json; get the model again"
        )
    return entry.resized(cut.axis, cut.parts * job.plan.widths[layer])


def _blocks(source: Path, entry: Entry, job: _Job) -> Iterator[Array]:
    array, found = as_array(source, entry), job.family.tensor(entry.name)
    if found is None:
        return iter_blocks(array)
    cut, layer = found
    if cut == job.family.down_cut and layer in job.columns:
        columns = job.columns[layer]
        return iter_blocks(columns if cut.axis == 1 else np.ascontiguousarray(columns.T))
    return gather_blocks(array, _kept(job.plan, layer, cut), cut.axis)


def _kept(plan: PruningPlan, layer: int, cut: Cut) -> Any:
    """Indices along the cut axis, repeated for every matrix of a fused tensor."""
    keep = plan.keep[layer].astype(np.int64)
    return np.concatenate([keep + part * plan.intermediate_size for part in range(cut.parts)])


def _check_all_cut(job: _Job, written: set[str]) -> None:
    """A checkpoint with other tensor names would be copied whole under a config that says it is smaller."""
    found = {job.family.tensor(name) for name in written}
    wanted = {
        (cut, layer) for cut in job.family.cuts if cut.name.endswith(".weight") for layer in range(len(job.plan.keep))
    }
    if missing := sorted(f"{layer}.{cut.name}" for cut, layer in wanted - found):
        raise UnsupportedModelError(
            f"the checkpoint has no {missing[0]} ({len(missing)} FFN tensors missing); get the model again"
        )


def _write_index(out: Path, model: Path, sizes: Mapping[str, Mapping[str, int]]) -> None:
    if not (model / INDEX).exists():
        return
    weight_map = {name: shard for shard, tensors in sizes.items() for name in tensors}
    total = sum(sum(tensors.values()) for tensors in sizes.values())
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    (out / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _write_own_files(model: Path, out: Path, plan: PruningPlan, plan_file: Path | None, config: dict[str, Any]) -> None:
    """config.json, the record, the plan and the model card."""
    record = record_of(plan, model)
    (out / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    (out / "README.md").write_text(model_card(record, plan.widths, model), encoding="utf-8")
    if plan_file is not None:
        (out / PLAN_COPY).parent.mkdir()
        shutil.copyfile(plan_file, out / PLAN_COPY)


def record_of(plan: PruningPlan, model: Path) -> dict[str, Any]:
    """What stands beside the weights about how they were pruned."""
    return {
        "method": plan.method,
        "metric": plan.metric,
        "tokens": plan.tokens,
        "alignment": plan.alignment,
        "allocation": plan.allocation,
        "compensated": plan.compensated,
        "protect": plan.protect,
        "seed": plan.seed,
        "sequential": plan.sequential,
        "general_weight": plan.general_weight,
        "ratio_requested": plan.ratio,
        "model": plan.model,
        "model_hash": plan.model_hash,
        "scores_hash": plan.scores_hash,
        "dense_intermediate_size": plan.intermediate_size,
        "dense_parameters": describe(model).parameters,
    }
