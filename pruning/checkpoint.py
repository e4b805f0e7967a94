"""A model on disk, opened once: its configuration, its shards' headers, its sizes, and what pruning wrote beside it."""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from harness.core.bounded_read import (
    check_files_in,
    check_permission,
    check_regular,
    not_readable,
    parse_json,
    read_bytes,
    read_json_object,
)
from harness.core.checkpoint_files import OWN_FILES, is_part
from harness.core.dtypes import tensor_of
from harness.core.errors import UnsupportedModelError, UsageError, first_line
from harness.core.hashing import sampled_hash
from harness.core.safetensors_stream import Entry, as_array
from harness.core.types.pruning import ModelShape
from pruning import quantised
from pruning.cuts import Cut
from pruning.families import Family, family_of, shape_of, widths_of
from pruning.record import is_recovered, read_record
from pruning.shards import INDEX, SINGLE, Shard, open_shards
from pruning.tensor_check import check_tensors
from pruning.vision_language import is_beside

ADAPTER = "adapter_config.json"  # of peft
_CONFIG_BYTES, _SIDE_FILE_BYTES = 4 << 20, 256 << 20
_SUBFOLDERS = ("additional_chat_templates", "pruning")
_SENTENCES = "modules.json"  # of sentence-transformers
_SETTINGS = ("generation_config.json", "tokenizer_config.json", "special_tokens_map.json")


@dataclass(frozen=True)
class ModelFolder:
    """A Hugging Face model in a local folder, as it was when `open_model` read it; passed on instead of its path.

    shape: with the parameters counted in the shards' headers. widths: intermediate_size of every layer.
    """

    path: Path
    config: Mapping[str, Any]  # config.json
    family: Family
    shape: ModelShape
    widths: tuple[int, ...]
    shards: tuple[Shard, ...]
    config_bytes: bytes = field(repr=False)  # config.json byte for byte, for the fingerprint

    @property
    def parameters(self) -> int:
        return self.shape.parameters

    @property
    def weight_bytes(self) -> int:
        """Size of the shards on disk."""
        return sum(shard.size_bytes for shard in self.shards)

    @functools.cached_property
    def fingerprint(self) -> str:
        """First 16 hex digits of a SHA-256 over config.json and samples of every shard (`sampled_hash`)."""
        total = hashlib.sha256(self.config_bytes)
        for shard in self.shards:
            total.update(shard.path.name.encode() + sampled_hash(shard.path).digest())
        return total.hexdigest()[:16]

    @functools.cached_property
    def record(self) -> dict[str, Any] | None:
        """What pruning wrote beside the weights; None for a model that was not pruned by this project."""
        return read_record(self.path)

    @functools.cached_property
    def recovered(self) -> bool:
        """Whether the last thing that this project did to this checkpoint was fine-tuning."""
        return is_recovered(self.path, self.record)

    def ffn_entries(self) -> Iterator[tuple[Shard, Entry, Cut, int]]:
        """Every FFN tensor: its shard, its entry there, how it is cut, and its layer."""
        for shard in self.shards:
            for entry in shard.entries:
                if found := self.family.tensor(entry.name):
                    yield shard, entry, *found


def open_model(path: Path) -> ModelFolder:
    """Opens a model folder: reads config.json and each shard's header once.

    Raises UsageError where config.json is missing or invalid, and UnsupportedModelError for an architecture that is
    not known and for shards that are missing, damaged or cut short.
    """
    text = _config_bytes(path)
    config = _parse_config(path, text)
    shape = shape_of(config)  # an unknown architecture is reported before damaged weights
    _check_side_files(path)
    widths, shards = widths_of(config), open_shards(path)
    entries = [entry for shard in shards for entry in shard.entries]
    check_tensors(path, config, widths, entries)
    family = family_of(config)
    beside = sum(math.prod(entry.shape) for entry in entries if family.tower and is_beside(family.tower, entry.name))
    return ModelFolder(
        path=path,
        config=config,
        family=family,
        shape=replace(shape, parameters=shape.parameters + beside),
        widths=widths,
        shards=shards,
        config_bytes=text,
    )


def read_config(folder: Path) -> dict[str, Any]:
    """config.json alone, for a folder without weights.

    Raises UsageError where there is none or it is not a JSON object, and UnsupportedModelError for quantised weights.
    """
    return _parse_config(folder, _config_bytes(folder))


def _config_bytes(folder: Path) -> bytes:
    _refuse_adapter(folder)
    try:
        return read_bytes(folder / "config.json", _CONFIG_BYTES)
    except PermissionError as error:
        raise not_readable(folder / "config.json", error) from error
    except OSError as error:
        raise UsageError(f"{folder} has no readable config.json; give a folder with a Hugging Face model") from error


def _parse_config(folder: Path, text: bytes) -> dict[str, Any]:
    file = folder / "config.json"
    try:
        config = parse_json(text)
    except ValueError as error:
        raise UsageError(f"{file} is not valid JSON ({error}); get the model again") from error
    if not isinstance(config, dict):
        raise UsageError(f"{file} is not a JSON object; get the model again")
    quantised.check_config(folder, config)
    return config


def _refuse_adapter(folder: Path) -> None:
    """Raises UsageError for a folder with an adapter: transformers would load it, vLLM and the export leave it out."""
    if not (folder / ADAPTER).exists():
        return
    if (folder / SINGLE).exists() or (folder / INDEX).exists():
        raise UsageError(
            f"{folder} holds {ADAPTER} beside a model; remove it, or merge it into the model (peft: merge_and_unload)"
        )
    check_permission(folder / ADAPTER)
    base = read_json_object(folder / ADAPTER, _CONFIG_BYTES).get("base_model_name_or_path") or "another model"
    raise UsageError(f"{folder} is a LoRA adapter of {str(base)[:80]}; merge it first (peft: merge_and_unload)")


def _check_side_files(model: Path) -> None:
    """What transformers and vLLM read beside the weights; they would wait for a FIFO and read a device without end."""
    for folder in (model, *(model / name for name in _SUBFOLDERS if (model / name).is_dir())):
        try:
            check_files_in(folder, _SIDE_FILE_BYTES)
            _check_parts(model, folder)
        except OSError as error:
            raise UsageError(f"{folder} cannot be read ({first_line(error)}); get the model again") from error
    if (model / _SENTENCES).exists():
        raise UnsupportedModelError(
            f"{model} holds {_SENTENCES}: it is an embedding model; only language models can be pruned here"
        )
    for name in _SETTINGS:
        if (model / name).exists():
            read_json_object(model / name, _SIDE_FILE_BYTES)
    is_recovered(model, read_record(model))  # so that damaged ones are refused before any work


def _check_parts(model: Path, folder: Path) -> None:
    """Raises UsageError for a part of a checkpoint that is a folder, or that this user may not read; opens nothing."""
    for file in sorted(folder.iterdir()):
        name = file.relative_to(model).as_posix()
        if OWN_FILES.fullmatch(name):
            check_regular(file)
        if is_part(name):
            check_permission(file)


def seen_from(model: ModelFolder, block: Literal["ffn", "attention"]) -> ModelFolder:
    """The model whose `family.down` is the output projection of a block."""
    return model if block == "ffn" else replace(model, family=model.family.of_attention)


def down_entry(model: ModelFolder, layer: int) -> tuple[Shard, Entry]:
    """Where one layer's down projection is stored; raises UnsupportedModelError where the model has none."""
    for shard, entry, cut, found in model.ffn_entries():
        if (cut, found) == (model.family.down_cut, layer):
            return shard, entry
    raise UnsupportedModelError(f"{model.path} has no {model.family.down}.weight in layer {layer}; get the model again")


def down_projection(model: ModelFolder, layer: int) -> Any:
    """A torch tensor [hidden_size, intermediate_size]: one layer's down projection, in the checkpoint's dtype."""
    shard, entry = down_entry(model, layer)
    tensor = read_tensor(shard, entry)
    return tensor if model.family.down_cut.axis == 1 else tensor.T.contiguous()


def read_tensor(shard: Shard, entry: Entry) -> Any:
    """A tensor of a shard as a torch tensor, in the checkpoint's dtype; nothing else is read."""
    return tensor_of(as_array(shard.path, entry), entry.dtype)


def check_uniform_width(shape: ModelShape, name: str | Path) -> None:
    """Raises UsageError for a checkpoint whose layers were made to differ: it cannot be pruned again.

    name: of the model, as the user gave it.
    """
    if not shape.uniform:
        has = "layers without attention" if shape.skipped_attention else "an FFN width of its own in every layer"
        raise UsageError(f"{name} has {has}; prune the model that it was made from")
