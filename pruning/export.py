"""Plan + checkpoint -> smaller checkpoint, one shard at a time; stock vLLM and transformers load the result."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from harness.errors import UnsupportedModelError, UsageError
from harness.store import atomic_path, need_disk
from harness.types import Checkpoint, PruningPlan
from pruning.checkpoint import INDEX, RECORD, describe, fingerprint, read_config, shards
from pruning.families import Family, family_of

_WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".msgpack", ".h5", ".onnx")


def export(model: Path, plan: PruningPlan, out: Path) -> Checkpoint:
    """Writes the pruned checkpoint to `out`, whole or not at all; holds one shard in memory.

    Raises UsageError where the plan does not fit the model, UnsupportedModelError for damaged weights, StorageError for
    a full disk.
    """
    config = read_config(model)
    family = family_of(config)
    _check_fit(model, config, plan)
    files = shards(model)
    need_disk(out, sum(shard.stat().st_size for shard in files))
    if out.resolve() == model.resolve():
        raise UsageError(f"{out} is the model itself; give another --out")
    with atomic_path(out, replaces=RECORD) as scratch:
        scratch.mkdir()
        _copy_side_files(model, scratch)
        sizes = {shard.name: _write_shard(shard, scratch / shard.name, family, plan) for shard in files}
        _need_all_cut(family, plan, sizes)
        _write_index(scratch, model, sizes)
        _write_record(scratch, plan, describe(model).parameters)
        (scratch / "config.json").write_text(json.dumps({**config, **_widths(plan)}, indent=2) + "\n", encoding="utf-8")
    return describe(out)


def _write_record(out: Path, plan: PruningPlan, dense_parameters: int) -> None:
    record = {
        "method": plan.method, "metric": plan.metric, "tokens": plan.tokens, "alignment": plan.alignment,
        "allocation": "uniform", "seed": plan.seed, "ratio_requested": plan.ratio, "model": plan.model,
        "scores_hash": plan.scores_hash, "dense_intermediate_size": plan.intermediate_size, "dense_parameters": dense_parameters,
    }  # fmt: skip
    (out / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _check_fit(model: Path, config: Mapping[str, Any], plan: PruningPlan) -> None:
    found = (config["num_hidden_layers"], config["intermediate_size"])
    if found != (len(plan.keep), plan.intermediate_size):
        raise UsageError(
            f"the plan is for {len(plan.keep)} layers of width {plan.intermediate_size}, the model has {found[0]} of {found[1]}; "
            "make a plan from this model's scores"
        )
    if plan.model_hash != fingerprint(model):
        raise UsageError(f"the plan was made for {plan.model} and {model} has other weights; make a plan from this model's scores")


def _widths(plan: PruningPlan) -> dict[str, Any]:
    if len(set(plan.widths)) != 1:
        raise UsageError(f"widths differ between layers ({sorted(set(plan.widths))}); only uniform widths can be exported")
    return {"intermediate_size": plan.widths[0]}


def _copy_side_files(model: Path, out: Path) -> None:
    """Tokenizer, chat template, licence, generation settings: everything in the folder that is not weights."""
    for file in model.iterdir():
        if file.is_file() and not file.name.endswith((*_WEIGHT_SUFFIXES, ".index.json")) and file.name != "config.json":
            shutil.copyfile(file, out / file.name)


def _write_shard(source: Path, destination: Path, family: Family, plan: PruningPlan) -> dict[str, int]:
    """Returns the bytes of every tensor written, by name."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    with safe_open(source, framework="pt") as file:
        tensors = dict(_pruned_tensors(file, source, family, plan))
        save_file(tensors, destination, metadata=file.metadata() or {"format": "pt"})
    return {name: tensor.numel() * tensor.element_size() for name, tensor in tensors.items()}


def _need_all_cut(family: Family, plan: PruningPlan, sizes: Mapping[str, Mapping[str, int]]) -> None:
    """A checkpoint with other tensor names would be copied whole under a config that says it is smaller."""
    written = {name for tensors in sizes.values() for name in tensors}
    templates = (family.gate_proj, family.up_proj, family.down_proj)
    missing = {template.format(i=layer) for template in templates for layer in range(len(plan.keep))} - written
    if missing:
        raise UnsupportedModelError(f"the checkpoint has no {min(missing)} ({len(missing)} FFN tensors missing); get the model again")


def _pruned_tensors(file: Any, source: Path, family: Family, plan: PruningPlan) -> Iterator[tuple[str, Any]]:
    import torch

    axes = {_pattern(family.gate_proj): 0, _pattern(family.up_proj): 0, _pattern(family.down_proj): 1}
    for name in file.keys():  # noqa: SIM118
        tensor = file.get_tensor(name)
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise UnsupportedModelError(f"{name} in {source} holds NaN or infinity; get this file again")
        for pattern, axis in axes.items():
            if match := pattern.fullmatch(name):
                tensor = tensor.index_select(axis, torch.from_numpy(plan.keep[int(match[1])]).long()).contiguous()
        yield name, tensor


def _pattern(template: str) -> re.Pattern[str]:
    return re.compile(re.escape(template).replace(re.escape("{i}"), r"(\d+)"))


def _write_index(out: Path, model: Path, sizes: Mapping[str, Mapping[str, int]]) -> None:
    if not (model / INDEX).exists():
        return
    weight_map = {name: shard for shard, tensors in sizes.items() for name in tensors}
    total = sum(sum(tensors.values()) for tensors in sizes.values())
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    (out / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
