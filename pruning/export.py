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
from pruning.families import Family, family_of

_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"
_RECORD = "pruning.json"  # beside the weights: what was done to this checkpoint
_WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".msgpack", ".h5", ".onnx")


def read_config(model: Path) -> dict[str, Any]:
    """config.json of a model folder; raises UsageError where there is none or it is no JSON object."""
    try:
        config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{model} has no readable config.json; give a folder with a Hugging Face model") from error
    except ValueError as error:
        raise UsageError(f"{model / 'config.json'} is not valid JSON ({error}); get the model again") from error
    if not isinstance(config, dict):
        raise UsageError(f"{model / 'config.json'} is not a JSON object; get the model again")
    return config


def shards(model: Path) -> list[Path]:
    """The checkpoint's safetensors files, each whole; raises UnsupportedModelError for a missing or cut one."""
    index = model / _INDEX
    names = {_SINGLE} if not index.exists() else set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    for name in sorted(names):
        if not (model / name).exists():
            raise UnsupportedModelError(f"{model / name} is missing; get the model again (only safetensors weights are read)")
        _need_whole(model / name)
    return [model / name for name in sorted(names)]


def _need_whole(shard: Path) -> None:
    """Opening checks the header against the file's size, so a cut download is seen before any work is done."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(shard, framework="pt"):
            pass
    except (SafetensorError, OSError) as error:
        raise UnsupportedModelError(f"{shard} is cut or damaged ({error}); get this file again") from error


def weight_bytes(model: Path) -> int:
    return sum(shard.stat().st_size for shard in shards(model))


def describe(model: Path) -> Checkpoint:
    """Widths from the config, parameters counted from the shards' headers."""
    from safetensors import safe_open

    config, files, parameters = read_config(model), shards(model), 0
    for shard in files:
        with safe_open(shard, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118
                size = 1
                for length in file.get_slice(name).get_shape():
                    size *= length
                parameters += size
    widths = config.get("intermediate_sizes") or [config["intermediate_size"]] * config["num_hidden_layers"]
    return Checkpoint(model, tuple(widths), parameters, sum(shard.stat().st_size for shard in files))


def export(model: Path, plan: PruningPlan, out: Path) -> Checkpoint:
    """Writes the pruned checkpoint to `out`, whole or not at all; holds one shard in memory.

    Raises UsageError where the plan does not fit the model, UnsupportedModelError for damaged weights, StorageError for
    a full disk.
    """
    config = read_config(model)
    family = family_of(config)
    _check_fit(config, plan)
    files = shards(model)
    need_disk(out, sum(shard.stat().st_size for shard in files))
    with atomic_path(out) as scratch:
        scratch.mkdir()
        _copy_side_files(model, scratch)
        sizes = {shard.name: _write_shard(shard, scratch / shard.name, family, plan) for shard in files}
        _write_index(scratch, model, sizes)
        _write_record(scratch, plan, describe(model).parameters)
        (scratch / "config.json").write_text(json.dumps({**config, **_widths(plan)}, indent=2) + "\n", encoding="utf-8")
    return describe(out)


def read_record(checkpoint: Path) -> dict[str, Any] | None:
    """What pruning wrote beside the weights, None for a model that was not pruned here."""
    path = checkpoint / _RECORD
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None


def _write_record(out: Path, plan: PruningPlan, dense_parameters: int) -> None:
    record = {
        "method": plan.method, "metric": plan.metric, "tokens": plan.tokens, "alignment": plan.alignment,
        "allocation": "uniform", "seed": plan.seed, "ratio_requested": plan.ratio, "model": plan.model,
        "scores_hash": plan.scores_hash, "dense_intermediate_size": plan.intermediate_size, "dense_parameters": dense_parameters,
    }  # fmt: skip
    (out / _RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _check_fit(config: Mapping[str, Any], plan: PruningPlan) -> None:
    found = (config["num_hidden_layers"], config["intermediate_size"])
    if found != (len(plan.keep), plan.intermediate_size):
        raise UsageError(
            f"the plan is for {len(plan.keep)} layers of width {plan.intermediate_size}, the model has {found[0]} of {found[1]}; "
            "make a plan from this model's scores"
        )


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
    if not (model / _INDEX).exists():
        return
    weight_map = {name: shard for shard, tensors in sizes.items() for name in tensors}
    total = sum(sum(tensors.values()) for tensors in sizes.values())
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    (out / _INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
