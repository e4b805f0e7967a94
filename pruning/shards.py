"""Which files of a folder are the model's weights, and what their headers say.

transformers and vLLM choose files by different rules. A folder for which they disagree is refused, as one set of
weights would be scored and another one served:

- transformers reads model.safetensors where there is one, else what the index names;
- vLLM reads what the index names where there is one, else every *.safetensors file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from harness.core.bounded_read import not_readable, read_json
from harness.core.errors import UnsupportedModelError
from harness.core.safetensors_stream import Entry, PackedTypeError, as_array, iter_blocks, read_entries

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
_SHARD_NAME = r"\w[\w.-]{0,200}"
_NUMBERED = re.compile(r".+-\d{5}-of-\d{5}\.safetensors")
_OTHER_FORMATS = ("*.safetensors", "*.pt", "*.pth", "*.ckpt", "*.bin", "*.h5", "*.msgpack", "*.onnx")


@dataclass(frozen=True)
class Shard:
    """One safetensors file of a checkpoint, as its header describes it."""

    path: Path
    entries: tuple[Entry, ...]  # in the order of their data
    metadata: Mapping[str, str]
    size_bytes: int  # of the file


def open_shards(folder: Path) -> tuple[Shard, ...]:
    """The files that transformers and vLLM both read, every tensor once.

    Raises UsageError for files that may not be read, and UnsupportedModelError for files that are missing or damaged,
    for a folder in which the two would read other files, and for a tensor of which there are different copies.
    """
    index = _weight_map(folder / INDEX) if (folder / INDEX).exists() else None
    names = _shard_names(folder, index)
    shards = tuple(_open_shard(folder / name) for name in names)
    return _without_copies(shards, index or {})


def _weight_map(index: Path) -> Mapping[str, str]:
    """Tensor name -> file name."""
    try:
        found = read_json(index)["weight_map"]
        names = set(found.values())
    except OSError as error:
        raise not_readable(index, error) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UnsupportedModelError(f"{index} is damaged ({error!r}); get this file again") from error
    if not names or not all(isinstance(name, str) and re.fullmatch(_SHARD_NAME, name) for name in names):
        raise UnsupportedModelError(f"{index} names no shards, or shards outside its folder; get this file again")
    return dict(found)


def _shard_names(folder: Path, index: Mapping[str, str] | None) -> list[str]:
    if index is None:
        _check_single(folder)
        return [SINGLE]
    names = sorted(set(index.values()))
    if (folder / SINGLE).exists() and names != [SINGLE]:
        raise UnsupportedModelError(
            f"{folder / INDEX} names other files than {SINGLE}, which is there as well: transformers would read the "
            "single file and vLLM the others; remove the index or the single file, whichever is stale"
        )
    return names


def _check_single(folder: Path) -> None:
    """Raises UnsupportedModelError where there is no single file, or vLLM would read others beside it."""
    others = sorted(file.name for file in folder.glob("*.safetensors") if file.name != SINGLE)
    others = [name for name in others if not name.startswith("consolidated")]  # of Mistral, which vLLM leaves out
    if (folder / SINGLE).exists():
        if others:
            raise UnsupportedModelError(
                f"{folder} holds {others[0]} beside {SINGLE}, and vLLM would load both; move it to another folder"
            )
        return
    if any(map(_NUMBERED.fullmatch, others)):
        raise UnsupportedModelError(f"{folder / INDEX} is missing, and {others[0]} is there; get the index again")
    raise UnsupportedModelError(f"{folder} has no {SINGLE}; {_instead(folder)}")


def _instead(folder: Path) -> str:
    """What to do with a folder whose weights are in other files."""
    if bins := sorted(file.name for file in folder.glob("pytorch_model*.bin")):
        return (
            f"it holds {bins[0]}: only safetensors weights are read, convert them with "
            "AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(NEW_FOLDER) of transformers"
        )
    if ggufs := sorted(folder.glob("*.gguf")):
        return f"give the GGUF file itself: {ggufs[0]}"
    others = sorted(file.name for pattern in _OTHER_FORMATS for file in folder.glob(pattern))
    there = f"it holds {others[0]}, which is not read; " if others else ""
    return f"{there}get the model in the Hugging Face layout (only safetensors weights are read)"


def _open_shard(path: Path) -> Shard:
    """Compares the header with the file's size, so that an incomplete download is seen before any work is done."""
    if not path.exists():
        raise UnsupportedModelError(f"{path} is missing, and {INDEX} names it; get the model again")
    try:
        entries, metadata = read_entries(path)
    except PackedTypeError as error:
        raise UnsupportedModelError(f"{path.parent} is quantised ({error}); give the model it was made from") from error
    except OSError as error:
        raise not_readable(path, error) from error
    except ValueError as error:
        raise UnsupportedModelError(
            f"{path} is not a safetensors file or is damaged ({error}); get this file again"
        ) from error
    return Shard(path, tuple(entries), metadata, path.stat().st_size)


def _without_copies(shards: Sequence[Shard], index: Mapping[str, str]) -> tuple[Shard, ...]:
    """Each tensor in one shard only: in the one that the index names, else in the last, which transformers takes."""
    home: dict[str, tuple[Shard, Entry]] = {}
    for shard in shards:
        for entry in shard.entries:
            if entry.name not in home:
                home[entry.name] = shard, entry
                continue
            _check_same(home[entry.name], (shard, entry))
            if index.get(entry.name) in (shard.path.name, None):
                home[entry.name] = shard, entry
    return tuple(
        replace(shard, entries=tuple(entry for entry in shard.entries if home[entry.name][0] is shard))
        for shard in shards
    )


def _check_same(first: tuple[Shard, Entry], second: tuple[Shard, Entry]) -> None:
    """Raises UnsupportedModelError where two copies of a tensor differ in type, shape or any bit."""
    (shard, entry), (other, copy) = first, second
    same = (entry.dtype, entry.shape) == (copy.dtype, copy.shape)
    blocks = [iter_blocks(as_array(place.path, where)) for place, where in (first, second)]
    if not same or not all(np.array_equal(*pair) for pair in zip(*blocks, strict=True)):
        raise UnsupportedModelError(
            f"{entry.name} is twice in {shard.path.parent}, in the two files {shard.path.name} and {other.path.name}, "
            "with different values; get the model again"
        )
