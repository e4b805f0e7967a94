"""The parts of a plan that are about more than FFN neurons: KV groups, blocks and the vocabulary; chosen from scores,
and in the file.

`layers.{i}.kv_keep` holds the kept KV groups of a layer, int32; `layers.{i}.skip_attention` and `.skip_ffn` mark a
block that is left out, by a single 1. `vocabulary.keep` holds the kept rows of the embedding. A plan of neurons alone
has none of them, as before there were any.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from harness.core.errors import UsageError
from harness.core.metadata import Metadata, count_of, name_of
from harness.core.types.arrays import FloatArray, IndexArray
from harness.core.types.pruning import PruningPlan, StructureName
from pruning.config_sizes import MOST_SIZES

SKIPS = ("skip_attention", "skip_ffn")
_VOCABULARY = "vocabulary.keep"
Arrays = Mapping[str, npt.NDArray[Any]]


def removed_blocks(ratio: float, layers: int) -> int:
    """How many of the layers lose their block: the nearest number to ratio * layers, at least one of a ratio above 0.

    Raises UsageError where no layer would be left.
    """
    count = max(1, math.floor(round(ratio * layers, 6) + 0.5)) if ratio else 0
    if count >= layers:
        raise UsageError(f"ratio {ratio} leaves no block of {layers}; lower --ratio")
    return count


def lowest_layers(worth: FloatArray, ratio: float) -> tuple[int, ...]:
    """The layers whose block goes, sorted. worth: [layers, 1], higher stays; of equal ones the later layer goes."""
    count = removed_blocks(ratio, len(worth))
    order = np.argsort(-worth[:, 0], kind="stable")
    return tuple(sorted(int(layer) for layer in order[len(worth) - count :]))


def all_neurons(layers: int, intermediate_size: int) -> tuple[IndexArray, ...]:
    """Every neuron of every layer stays."""
    return (np.arange(intermediate_size, dtype=np.int32),) * layers


def structure_arrays(plan: PruningPlan) -> dict[str, npt.NDArray[Any]]:
    """What a plan's file holds besides kept neurons."""
    found: dict[str, npt.NDArray[Any]] = {f"layers.{i}.kv_keep": groups for i, groups in enumerate(plan.kv_keep)}
    mark = np.ones(1, dtype=np.uint8)
    found |= {f"layers.{layer}.{skip}": mark for skip in SKIPS for layer in getattr(plan, skip)}
    return found if plan.vocabulary is None else {**found, _VOCABULARY: plan.vocabulary}


def structure_metadata(plan: PruningPlan) -> dict[str, str]:
    """Nothing for a plan of neurons, so that it has the bytes that it always had."""
    named: dict[str, str] = {} if plan.structure == "neuron" else {"structure": plan.structure}
    named |= {} if plan.vocabulary is None else {"vocab_size": str(plan.vocab_size)}
    return named | ({"num_key_value_heads": str(plan.num_key_value_heads)} if plan.kv_keep else {})


def read_structures(
    arrays: Arrays, meta: Metadata, layers: int, checked: Callable[[npt.NDArray[Any], str, int], IndexArray]
) -> dict[str, Any]:
    """The fields of a plan that `structure_arrays` wrote.

    checked: the array of a name as sorted, unique indices below a size. Raises KeyError or ValueError for what is
    missing or wrong.
    """
    found: dict[str, Any] = {"structure": structure_of(meta)}
    found |= {skip: _marked(arrays, skip, layers) for skip in SKIPS}
    if "num_key_value_heads" in meta:
        heads = count_of(meta, "num_key_value_heads", MOST_SIZES["num_key_value_heads"], 1)
        names = [f"layers.{layer}.kv_keep" for layer in range(layers)]
        found |= {"num_key_value_heads": heads, "kv_keep": tuple(checked(arrays[name], name, heads) for name in names)}
    if _VOCABULARY in arrays:
        rows = count_of(meta, "vocab_size", MOST_SIZES["vocab_size"], 1)
        found |= {"vocab_size": rows, "vocabulary": checked(arrays[_VOCABULARY], _VOCABULARY, rows)}
    if len(set(found["skip_attention"]) & set(found["skip_ffn"])) == layers:
        raise ValueError("it leaves no layer")
    return found


def structure_of(meta: Metadata) -> StructureName:
    """What a file of scores or a plan is about; one that does not say is of neurons."""
    found: StructureName = name_of(meta, "structure", get_args(StructureName)) if "structure" in meta else "neuron"
    return found


def known_names(meta: Metadata, layers: int) -> set[str]:
    """The arrays that a plan's file may hold besides kept neurons."""
    names = {f"layers.{layer}.{skip}" for layer in range(layers) for skip in SKIPS} | {_VOCABULARY}
    return names | ({f"layers.{layer}.kv_keep" for layer in range(layers)} if "num_key_value_heads" in meta else set())


def _marked(arrays: Arrays, skip: str, layers: int) -> tuple[int, ...]:
    names = {layer: f"layers.{layer}.{skip}" for layer in range(layers) if f"layers.{layer}.{skip}" in arrays}
    for name in names.values():
        if arrays[name].shape != (1,) or arrays[name].dtype != np.uint8 or arrays[name][0] != 1:
            raise ValueError(f"{name} is not the mark of a block that is left out, a single 1")
    return tuple(names)


def structure_text(plan: PruningPlan) -> str:
    """What a plan leaves of the blocks, in words; empty for a plan of neurons alone."""
    parts = []
    if plan.kv_keep:
        parts.append(f"KV groups {plan.num_key_value_heads} -> {_range(plan.kv_heads)}")
    for skip, block in zip(SKIPS, ("attention", "FFN"), strict=True):
        if layers := getattr(plan, skip):
            parts.append(f"no {block} in layers {', '.join(map(str, layers))}")
    return "; ".join(parts)


def _range(counts: Sequence[int]) -> str:
    return str(counts[0]) if len(set(counts)) == 1 else f"{min(counts)} to {max(counts)}"
