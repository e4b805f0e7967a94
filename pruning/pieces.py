"""Which tensors a pruned checkpoint has: where each comes from, under which name, and what stays of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from harness.core.safetensors_stream import Array, Entry, as_array, gather_blocks, iter_blocks
from harness.core.types.arrays import IndexArray
from harness.core.types.pruning import ModelShape, PruningPlan
from pruning import missing_attention
from pruning.families import Family
from pruning.head_slots import places
from pruning.shards import Shard
from pruning.structures import LAYER_LISTS, kept_layers, kept_part, removed_layers
from pruning.vocabulary_files import has_vocabulary_rows

_OF_FFN = ("mlp.", "post_attention_layernorm.")
_LLAMA_CLASS = "LlamaForCausalLM"
_LLAMA = {"model_type": "llama", "architectures": [_LLAMA_CLASS], "attention_bias": True}
_LEFT_OUT = {"bos_token_id": None, "eos_token_id": None}  # as Qwen2's class has them; Llama's would say 1 and 2
_NOT_OF_LLAMA = ("sliding_window", "use_sliding_window", "max_window_layers", "layer_types")


@dataclass(frozen=True)
class Job:
    """What every shard's copy needs to know.

    Attributes:
        fitted: Layer and name below it -> the tensor beside the plan that stands in the place of what is stored.
        decilm: Whether it is written for vLLM's DeciLM class, which can lack blocks and has KV heads per layer.
    """

    family: Family
    shape: ModelShape
    plan: PruningPlan
    fitted: Mapping[tuple[int, str], Array]
    decilm: bool = False

    @property
    def fewer_heads(self) -> bool:
        return any(count < self.plan.num_key_value_heads for count in self.plan.kv_heads)

    @property
    def as_llama(self) -> bool:
        """Whether the checkpoint is written as a Llama, which has a bias at o_proj too."""
        return self.family.attention.as_llama and self.fewer_heads and not self.decilm

    @property
    def architecture(self) -> str:
        return _LLAMA_CLASS if self.as_llama else self.family.architecture


@dataclass(frozen=True)
class Piece:
    """A tensor to write.

    Attributes:
        entry: As it is written.
        source: As it is stored; None for one of zeros.
        axis: Along which `keep` stays; `keep` None: all of it.
        fitted: What stands in its place.
        places: Where along the axis what is kept goes, zeros elsewhere; None: one after the other.
    """

    entry: Entry
    source: Entry | None
    axis: int = 0
    keep: IndexArray | None = None
    fitted: Array | None = None
    places: IndexArray | None = None

    def blocks(self, shard: Shard) -> Iterator[Array]:
        if self.source is None:
            return iter_blocks(self._zeros())
        array = as_array(shard.path, self.source)
        if self.places is not None and self.keep is not None:
            return iter_blocks(self._spread(array, self.keep, self.places))
        if self.fitted is not None:
            return iter_blocks(np.ascontiguousarray(self.fitted))
        return iter_blocks(array) if self.keep is None else gather_blocks(array, self.keep, self.axis)

    def _zeros(self) -> Array:
        return np.zeros(self.entry.shape, dtype=f"u{self.entry.item_bytes}")

    def _spread(self, array: Array, keep: IndexArray, places: IndexArray) -> Array:
        """What is kept at its places, in memory at once: of attention, which is the smaller part of a layer."""
        whole = self._zeros()
        kept = np.take(array, keep, axis=self.axis) if self.fitted is None else self.fitted
        whole[(slice(None),) * self.axis + (places,)] = kept
        return whole


def pieces_of(entries: Sequence[Entry], job: Job) -> list[Piece]:
    """What the pruned checkpoint has of a shard's tensors, in their order."""
    return [piece for entry in entries for piece in _pieces(entry, job)]


def _pieces(entry: Entry, job: Job) -> Iterator[Piece]:
    layer, below = job.family.place(entry.name) or (-1, "")
    if layer in removed_layers(job.plan) or _is_skipped(job, layer, below):
        return
    whole = Piece(_renamed(entry, job, layer), entry)
    part = kept_part(job.plan, job.shape, entry.name) or _kept_rows(entry, job)
    if part is None:
        yield whole
        return
    axis, keep = part
    fitted = job.fitted.get((layer, below))
    spread, length = _places(job, layer, below) or (None, len(keep))
    resized = whole.entry.resized(axis, length)
    yield replace(whole, entry=resized, axis=axis, keep=keep, fitted=fitted, places=spread)
    if job.as_llama and below == f"{job.family.attention.output}.weight":
        name = whole.entry.name.removesuffix("weight") + "bias"
        yield Piece(replace(entry, name=name, shape=(job.shape.hidden_size,)), None)


def _is_skipped(job: Job, layer: int, below: str) -> bool:
    """Whether a tensor is of a block that the layer lacks; FFNs alone can be missing in a DeciLM folder only."""
    if layer in job.plan.skip_attention and missing_attention.is_missing(below):
        return True
    return job.decilm and layer in job.plan.skip_ffn and below.startswith(_OF_FFN)


def _places(job: Job, layer: int, below: str) -> tuple[IndexArray, int] | None:
    """Where the heads of a layer go that has room for more; None for what needs no such places."""
    cut = next((cut for cut in job.family.attention.cuts if cut.name == below), None)
    return places(cut, job.plan, layer, job.shape) if cut and job.decilm and job.plan.kv_keep else None


def _kept_rows(entry: Entry, job: Job) -> tuple[int, IndexArray] | None:
    """What `kept_part` says, of a tensor with a row for each entry of the vocabulary."""
    rows = job.plan.vocabulary
    return (0, rows) if rows is not None and has_vocabulary_rows(job.family, entry.name) else None


def _renamed(entry: Entry, job: Job, layer: int) -> Entry:
    """With the number that the layer has among those that stay."""
    if layer < 0 or not removed_layers(job.plan):
        return entry
    number = kept_layers(job.plan).index(layer)
    before, _, below = entry.name.partition(f".{layer}.")
    return replace(entry, name=f"{before}.{number}.{below}")


def removed_parameters(shards: Sequence[Shard], job: Job) -> int:
    """Elements of all tensors before, less those after."""
    before = sum(_elements(entry) for shard in shards for entry in shard.entries)
    return before - sum(_elements(piece.entry) for shard in shards for piece in pieces_of(shard.entries, job))


def _elements(entry: Entry) -> int:
    return entry.data_bytes // entry.item_bytes


def structure_config(config: Mapping[str, Any], job: Job) -> dict[str, Any]:
    """config.json with the KV groups and layers that stay; widths are left as they are. Without `auto_map`."""
    found = {key: value for key, value in config.items() if key != "auto_map"}  # names code, which is not copied
    if removed_layers(job.plan):
        layers = kept_layers(job.plan)
        found[job.family.keys.get("num_hidden_layers", "num_hidden_layers")] = len(layers)
        found |= {key: [found[key][layer] for layer in layers] for key in LAYER_LISTS if found.get(key)}
    if job.fewer_heads:
        heads = job.plan.kv_heads[kept_layers(job.plan)[0]]
        found |= {
            "num_attention_heads": heads * job.shape.query_heads_per_group,
            "num_key_value_heads": heads,
            "head_dim": job.shape.head_dim,
        }
    if job.as_llama:
        defaults = {**_LEFT_OUT, "max_position_embeddings": job.shape.max_position_embeddings}
        found = defaults | {key: value for key, value in found.items() if key not in _NOT_OF_LLAMA} | _LLAMA
    return found
