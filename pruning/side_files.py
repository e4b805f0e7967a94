"""What of a model folder goes along into a checkpoint that is made from it, beside weights and config.json."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from harness.core import model_card
from harness.core.bounded_read import read_json_object, read_text
from harness.core.checkpoint_files import (
    OWN_FILES,
    PICTURES,
    TEMPLATES,
    WEIGHTS,
    is_licence,
    is_part,
    is_side_file,
)
from harness.core.files import write_json
from harness.core.progress import say
from harness.core.written_folder import LIST
from pruning.checkpoint import ModelFolder
from pruning.record import RECORD, RECOVERED, is_own

_PICTURE = re.compile(r"[\w./-]+\.(?:png|jpe?g|gif|webp|svg)\b", re.IGNORECASE | re.ASCII)
_MOST_PICTURE_BYTES, _MOST_PICTURES = 1 << 20, 32
_OF_TOOLS = (".cache", ".git", ".gitattributes", ".gitignore", LIST)  # nobody misses them
_SHOWN = 8  # names in a line


def copy_side_files(model: ModelFolder, out: Path) -> None:
    """Copies tokenizer, chat templates, settings of generation, licence, and small pictures of the card; says what is
    left out. A tokenizer's `auto_map` is, as the code that it names is not copied.
    """
    folder = model.path
    for name in (*_side_files(folder), *pictures_of(folder, _card(folder))):
        _copy(folder, out, name)
    _leave_out_code(out / "tokenizer_config.json")
    shards = {shard.path.name for shard in model.shards}
    own = out.resolve().parents  # where `out` is below the model
    others = [path for path in folder.iterdir() if not _known(path, shards) and path.resolve() not in own]
    left = [f"{path.name}/" if path.is_dir() else path.name for path in others]
    if left:
        more = f" and {len(left) - _SHOWN} more" if len(left) > _SHOWN else ""
        say(f"left out of {out.name}, as no part of a checkpoint: {', '.join(sorted(left)[:_SHOWN])}{more}")


def is_ours(folder: Path, name: str) -> bool:
    """Whether an older version, which kept no list of its files, may have written this file of a checkpoint.

    Its own files are told by what is in them. A licence is nobody's to remove.
    """
    if name in (RECORD, RECOVERED):
        return is_own(folder, name)
    if name == "README.md":
        return model_card.is_own(_card(folder))
    return is_part(name) and not is_licence(name)


def copy_own_files(model: Path, out: Path) -> None:
    """Copies config.json, the index and what pruning wrote, for weights of the same names and shapes.

    Left out of config.json: `auto_map`, as the code that it names is not copied.
    """
    for file in (*model.iterdir(), *_inside(model, "pruning")):
        name = file.relative_to(model).as_posix()
        own = OWN_FILES.fullmatch(name) or (WEIGHTS.fullmatch(name) and name.endswith(".index.json"))
        if own and name != "README.md":
            _copy(model, out, name)
    _leave_out_code(out / "config.json")


def _leave_out_code(file: Path) -> None:
    """Rewrites a settings file without `auto_map`, where it has one."""
    if file.is_file() and (config := read_json_object(file)).pop("auto_map", None):
        write_json(file, config)


def _copy(model: Path, out: Path, name: str) -> None:
    (out / name).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(model / name, out / name)


def _side_files(model: Path) -> Iterator[str]:
    for file in (*model.iterdir(), *_inside(model, TEMPLATES)):
        name = file.relative_to(model).as_posix()
        if file.is_file() and is_side_file(name):
            yield name


def _inside(model: Path, name: str) -> list[Path]:
    folder = model / name
    return [file for file in folder.iterdir() if file.is_file()] if folder.is_dir() else []


def pictures_of(model: Path, card: str) -> list[str]:
    """Small pictures that the text of a card shows from below a folder, by their path from there."""
    names = {found.removeprefix("./") for found in _PICTURE.findall(card)}
    fits = [name for name in sorted(names) if PICTURES.fullmatch(name) and (model / name).is_file()]
    return [name for name in fits if (model / name).stat().st_size <= _MOST_PICTURE_BYTES][:_MOST_PICTURES]


def _card(model: Path) -> str:
    file = model / "README.md"
    return read_text(file, errors="replace") if file.exists() else ""


def _known(path: Path, shards: set[str]) -> bool:
    """Whether something at the top of a model folder is copied, or written anew."""
    name = path.name
    if path.is_dir():
        return name in (TEMPLATES, "pruning", "assets", *_OF_TOOLS)
    return (
        name in shards
        or name in _OF_TOOLS
        or is_side_file(name)
        or bool(OWN_FILES.fullmatch(name) or PICTURES.fullmatch(name))
        or name.endswith(".safetensors.index.json")
    )
