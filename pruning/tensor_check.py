"""Whether a checkpoint's files hold the model that config.json describes, by their headers alone."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.core.errors import UnsupportedModelError
from harness.core.safetensors_stream import Entry
from pruning import quantised
from pruning.families import Family, family_of, tensors_of
from pruning.vision_language import check_towers

_HEADS = ("lm_head.weight", "embed_out.weight")
_EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "embed_in.weight")
_WRAPPERS = ("_orig_mod.", "module.", "_fsdp_wrapped_module.")  # of torch.compile, DDP and FSDP
_OTHER_HEAD = re.compile(
    r"(.*\.)?(score|classifier|qa_outputs|regression_layer|(?!lm_)\w+_head)\.((summary|out_proj|dense)\.)?(weight|bias)"
)


def check_tensors(path: Path, config: Mapping[str, Any], widths: tuple[int, ...], entries: Sequence[Entry]) -> None:
    """Raises UnsupportedModelError where the files do not hold the model that config.json describes."""
    family, wanted = family_of(config), tensors_of(config, widths)
    if family.tower:
        check_towers(path, family.model_type, family.tower, [entry.name for entry in entries])
    found = _by_own_name(path, entries, wanted, family)
    quantised.check_tensors(path, entries, found, wanted)
    used = {entry.name for entry in found.values()}
    beside = [entry for entry in entries if entry.name not in used]
    others = [entry.name for entry in beside]
    if heads := [name for name in others if _OTHER_HEAD.fullmatch(name)]:
        raise UnsupportedModelError(
            f"{path} has {heads[0]}: it is a reward or classification model; only language models can be pruned here"
        )
    if missing := [name for name in wanted if name not in found]:
        raise UnsupportedModelError(
            f"{path} has no {missing[0]} ({len(missing)} of {len(wanted)} tensors missing); "
            f"{_advice(missing[0], others)}"
        )
    _check_tied_head(path, beside, found)
    for name, shape in wanted.items():
        if found[name].shape != shape:
            raise UnsupportedModelError(
                f"{path}: {name} is {list(found[name].shape)}, and config.json says {list(shape)}; get the model again"
            )
    if foreign := [name for name in others if _is_foreign(family, name)]:
        raise UnsupportedModelError(
            f"{path} has {foreign[0]}, which is no part of the {family.model_type} that config.json describes; "
            "get the model again"
        )


def _check_tied_head(path: Path, others: Iterable[Entry], found: Mapping[str, Entry]) -> None:
    """Raises UnsupportedModelError where an LM head is stored beside a tied embedding and cannot be its copy."""
    embedding = next(entry for name, entry in found.items() if name.endswith(_EMBEDDINGS))
    for head in (entry for entry in others if entry.name.endswith(_HEADS)):
        if (head.shape, head.dtype) != (embedding.shape, embedding.dtype):
            raise UnsupportedModelError(
                f"{path}: {head.name} is {list(head.shape)} in {head.dtype}, and config.json ties it to the embedding "
                f"of {list(embedding.shape)} in {embedding.dtype}; remove it, or set tie_word_embeddings to false"
            )


def _by_own_name(path: Path, entries: Iterable[Entry], wanted: Mapping[str, Any], family: Family) -> dict[str, Entry]:
    """The model's own tensors by transformers' name; a checkpoint of the body alone leaves out the body's prefix."""
    found: dict[str, Entry] = {}
    for entry in entries:
        own = family.own_name(entry.name)
        name = own if own in wanted else f"{family.body}.{own}"
        if name in found:
            raise UnsupportedModelError(
                f"{path} has one tensor twice, as {found[name].name} and as {entry.name}; get the model again"
            )
        if name in wanted:
            found[name] = entry
    return found


def _advice(missing: str, others: Sequence[str]) -> str:
    """What to do about a missing tensor; `others`: tensors that are there instead."""
    if any(".base_layer." in name or name.startswith("base_model.") for name in others):
        return "its weights are those of an unmerged adapter: merge it first (peft: merge_and_unload)"
    if prefix := next((prefix for prefix in _WRAPPERS for name in others if name.startswith(prefix)), None):
        return f"the names begin with {prefix}, of the wrapper it was trained in; save the model without it"
    if missing in _HEADS:
        return "get the model again, or set tie_word_embeddings in config.json if the embedding is its LM head"
    return "get the model again"


def _is_foreign(family: Family, name: str) -> bool:
    """Whether a tensor stands in the model's own layers, where transformers and vLLM would ignore it, and is none."""
    below = family.below_layer(name) or ""
    return below.endswith((".weight", ".bias")) and not below.endswith(family.tensors.buffers)
