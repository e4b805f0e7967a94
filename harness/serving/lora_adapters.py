"""LoRA adapters that a server is asked to load. Each is a foreign folder: it is read within bounds, and its shapes are
compared with the model's before the server starts, which a request would end otherwise.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.core.bounded_read import check_files_in, read_json_object
from harness.core.errors import UsageError, first_line
from harness.core.safetensors_stream import Entry, read_entries
from pruning.checkpoint import ADAPTER, ModelFolder

MODULES, ENABLE, RANK = "--lora-modules", "--enable-lora", "--max-lora-rank"
_WEIGHTS = "adapter_model.safetensors"
_MOST_BYTES = 16 << 20  # of a side file
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # that vLLM takes
_USUAL_RANK = "16"  # vLLM's own limit where none is given
_PART = re.compile(r"(?:base_model\.model\.)?(.+)\.lora_(embedding_)?([AB])(?:\.\w+)?(?:\.weight)?")
_INSTEAD = "train an adapter on this checkpoint, or merge it into the dense model and prune that"

Shape = tuple[int, ...]


def module_words(values: Sequence[str]) -> list[str]:
    """NAME=FOLDER as vLLM takes it whatever is in the path, and absolute: it would look for another on the Hub."""
    pairs = [value.partition("=") for value in values]
    return [json.dumps({"name": name, "path": str(Path(path).expanduser().absolute())}) for name, _, path in pairs]


def check_adapters(model: ModelFolder, words: Sequence[str]) -> None:
    """Compares every adapter in `words`, which `allowed_options` returned, with the model.

    Raises:
        UsageError: An adapter is not a folder with LoRA weights in safetensors, or does not fit.
    """
    adapters = _values(words, MODULES)
    if adapters and ENABLE not in words:
        raise UsageError(f"{MODULES} needs {ENABLE}; give both behind --")
    limit = int((_values(words, RANK) or [_USUAL_RANK])[-1])
    shapes = {entry.name: entry.shape for shard in model.shards for entry in shard.entries}
    for folder in (Path(json.loads(adapter)["path"]) for adapter in adapters):
        entries = _read(folder)
        for entry in entries:
            _check_entry(folder, entry, model, shapes)
        _check_rank(folder, max((rank for entry in entries if (rank := _rank(entry))), default=0), limit)


def _values(words: Sequence[str], option: str) -> list[str]:
    """Of every time that an option is given."""
    found: list[str] = []
    current = ""
    for word in words:
        if word.startswith("--"):
            current = word
        elif current == option:
            found.append(word)
    return found


def _read(folder: Path) -> list[Entry]:
    """The tensors of an adapter, by its header."""
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder; give {MODULES} NAME=FOLDER with an adapter on this machine")
    try:
        check_files_in(folder, _MOST_BYTES)
        settings = read_json_object(folder / ADAPTER, _MOST_BYTES)
        entries, _ = read_entries(folder / _WEIGHTS)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{folder} is no LoRA adapter ({first_line(error)}); it needs {ADAPTER} and {_WEIGHTS}"
        ) from error
    if settings.get("peft_type") != "LORA":
        raise UsageError(f"{folder} is an adapter of kind {str(settings.get('peft_type'))[:40]}; vLLM serves LORA")
    if not entries:
        raise UsageError(f"{folder / _WEIGHTS} is empty; get the adapter again")
    return entries


def _check_entry(folder: Path, entry: Entry, model: ModelFolder, shapes: Mapping[str, Shape]) -> None:
    found = _PART.fullmatch(entry.name)
    if not found:
        raise UsageError(f"{folder} holds {entry.name[:120]}, which is no part of a LoRA; vLLM cannot serve it")
    module, embedding, side = found.groups()
    whole = _shape_of(module, model, shapes)
    if whole is None:
        raise UsageError(f"{folder} does not fit {model.path}, which has no {module[:120]}; {_INSTEAD}")
    rows, columns = whole if not (embedding or _is_transposed(model, module)) else whole[::-1]
    fits = entry.shape[1:] == (columns,) if side == "A" else entry.shape[:1] == (rows,)
    if len(entry.shape) != 2 or not fits:
        raise UsageError(
            f"{folder} does not fit {model.path}: {entry.name[:120]} is {list(entry.shape)} and {module[:120]} is "
            f"{list(whole)}; {_INSTEAD}"
        )


def _shape_of(module: str, model: ModelFolder, shapes: Mapping[str, Shape]) -> Shape | None:
    """Of a module's matrix; a checkpoint of the body alone leaves out its prefix, and a tied head is not stored."""
    if module == "lm_head" and model.shape.tied:
        return model.shape.vocab_size, model.shape.hidden_size
    names = (f"{module}.weight", f"{module.removeprefix(f'{model.family.body}.')}.weight")
    found = next((shapes[name] for name in names if name in shapes), None)
    return found if found and len(found) == 2 else None


def _is_transposed(model: ModelFolder, module: str) -> bool:
    """Whether the matrix is stored [in, out], as in the layers of gpt2."""
    return model.family.down_cut.axis == 0 and module != "lm_head"


def _rank(entry: Entry) -> int:
    return min(entry.shape) if len(entry.shape) == 2 else 0


def _check_rank(folder: Path, rank: int, limit: int) -> None:
    if rank > limit:
        fitting = next((known for known in RANKS if known >= rank), None)
        instead = f"add {RANK} {fitting}" if fitting else "vLLM takes at most 512"
        raise UsageError(f"{folder} has rank {rank} and the server takes {limit}; {instead}")
