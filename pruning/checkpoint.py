"""Reading a model folder: config, whole shards, sizes, fingerprint, and what pruning wrote beside the weights."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

from harness.core.errors import UnsupportedModelError, UsageError
from harness.core.safetensors_stream import read_entries
from harness.core.types.pruning import Checkpoint
from pruning.families import Family, widths_of

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
RECOVERED = "recovery.json"  # beside the weights: how this checkpoint was fine-tuned
RECORD = "pruning.json"  # beside the weights: what was done to this checkpoint


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
    names = _shard_names(model)
    for name in names:
        if not (model / name).exists():
            raise UnsupportedModelError(
                f"{model / name} is missing; get the model again (only safetensors weights are read)"
            )
        _check_complete(model / name)
    return [model / name for name in names]


def _shard_names(model: Path) -> list[str]:
    index = model / INDEX
    if not index.exists():
        return [SINGLE]
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UnsupportedModelError(f"{index} is damaged ({error!r}); get this file again") from error
    if not names or any(Path(name).name != name for name in names):
        raise UnsupportedModelError(f"{index} names no shards, or shards outside its folder; get this file again")
    return names


def _check_complete(shard: Path) -> None:
    """The header against the file's size, so that a cut download is seen before any work is done."""
    try:
        entries, _ = read_entries(shard)
        end = max((entry.start + entry.data_bytes for entry in entries), default=0)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UnsupportedModelError(
            f"{shard} is no safetensors file or is damaged ({error}); get this file again"
        ) from error
    if shard.stat().st_size < end:
        raise UnsupportedModelError(f"{shard} is cut: {shard.stat().st_size} bytes of {end}; get this file again")


def describe(model: Path) -> Checkpoint:
    """Widths from the config, parameters counted from the shards' headers."""
    config, files = read_config(model), shards(model)
    parameters = sum(math.prod(entry.shape) for shard in files for entry in read_entries(shard)[0])
    return Checkpoint(model, widths_of(config), parameters, sum(shard.stat().st_size for shard in files))


def down_projection(model: Path, family: Family, layer: int) -> Any:
    """[hidden, intermediate_size] of one layer's down projection, in the checkpoint's dtype; nothing else is read."""
    from safetensors import safe_open

    for shard in shards(model):
        with safe_open(shard, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118
                if family.tensor(name) == (family.down_cut, layer):
                    tensor = file.get_tensor(name)
                    return tensor if family.down_cut.axis == 1 else tensor.T.contiguous()
    raise UnsupportedModelError(f"{model} has no {family.down}.weight in layer {layer}; get the model again")


def fingerprint(model: Path) -> str:
    """A hash of config and weights that reads of each shard its first and last MiB and 256 pieces of 64 KiB, evenly
    spaced.
    """
    total = hashlib.sha256((model / "config.json").read_bytes())
    for shard in shards(model):
        total.update(shard.name.encode() + sampled_hash(shard).digest())
    return total.hexdigest()[:16]


def sampled_hash(path: Path) -> Any:
    """A SHA-256 object over size, first and last MiB and 256 evenly spaced pieces of 64 KiB of a large file."""
    size = path.stat().st_size
    total = hashlib.sha256(str(size).encode())
    pieces = [(0, 1 << 20), *((size * i // 256, 1 << 16) for i in range(1, 256)), (max(0, size - (1 << 20)), 1 << 20)]
    with path.open("rb") as file:
        for start, length in pieces:
            file.seek(start)
            total.update(file.read(length))
    return total


def check_uniform_width(model: Path) -> None:
    """Raises UsageError for a checkpoint that has been pruned to a width of its own in every layer."""
    if read_config(model).get("intermediate_sizes"):
        raise UsageError(f"{model} has a width of its own in every layer; prune the model that it was made from")


def read_record(checkpoint: Path) -> dict[str, Any] | None:
    """What pruning wrote beside the weights, None for a model that was not pruned here."""
    path = checkpoint / RECORD
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None
