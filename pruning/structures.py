"""What can be removed of a model: one row per kind of structure.

A structure is scored by the inputs of the output projection of its block (down_proj of the FFN, o_proj of attention):
those of one neuron, of the query heads of one KV group, or all of them. Its statistics are the means of its channels'.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from harness.core.errors import UsageError
from harness.core.labels import STRUCTURE_NOUNS
from harness.core.types.arrays import IndexArray
from harness.core.types.pruning import ModelShape, PruningPlan, StructureName
from pruning.families import FAMILIES, Family, shape_of

Block = Literal["ffn", "attention"]
LAYER_LISTS = ("layer_types", "no_rope_layers")  # of config.json, an item for each layer
_BY_NUMBER = ("use_sliding_window", "scale_attn_by_inverse_layer_idx")  # what a layer does then goes by its number
_ROPE_LISTS = ("short_factor", "long_factor")  # of rope_parameters
_OF_MANY = ("smd", "dprime", "contrast", "auroc", "ratio-abs", "ratio-rms", "contrib", "rms", "weight")


@dataclass(frozen=True)
class Structure:
    """A kind of structure.

    Attributes:
        blocks: The blocks that it is of.
        units: How many a layer has.
        metrics: What can score it; None for every metric. A structure of many channels has no gate, and the sign of its
            mean and its variance over tokens say nothing.
        refits: Whether the output projection of its block can be re-fitted to what remains of its inputs.
    """

    name: StructureName
    blocks: tuple[Block, ...]
    units: Callable[[ModelShape], int]
    metrics: tuple[str, ...] | None = _OF_MANY
    refits: bool = False

    @property
    def noun(self) -> str:
        """One of them, as in text."""
        return STRUCTURE_NOUNS[self.name]

    @property
    def in_layers(self) -> bool:
        """Whether a ratio is of each layer's units, rather than of the layers."""
        return self.name in ("neuron", "kv_group", "joint")


def _one(_shape: ModelShape) -> int:
    return 1


STRUCTURES: Mapping[str, Structure] = {
    row.name: row
    for row in (
        Structure("neuron", ("ffn",), lambda shape: shape.intermediate_size, None, refits=True),
        Structure(
            "kv_group",
            ("attention",),
            lambda shape: shape.num_key_value_heads,
            (*_OF_MANY, "obs"),
            refits=True,
        ),
        Structure("attention", ("attention",), _one),
        Structure("ffn", ("ffn",), _one),
        Structure("layer", ("attention", "ffn"), _one),
        Structure("joint", ("ffn",), lambda shape: shape.intermediate_size, None, refits=True),
    )
}


def count_of(name: str, shape: ModelShape) -> int:
    """Of what a ratio is a share: the units of a layer, or the layers."""
    row = STRUCTURES[name]
    return row.units(shape) if row.in_layers else shape.num_hidden_layers


def check_structure(name: str, shape: ModelShape) -> None:
    """Raises UsageError, by name, for a model that cannot do without some of its structures."""
    refusal = None if name == "neuron" else _refusal(name, shape)
    if refusal:
        noun = STRUCTURES[name].noun
        raise UsageError(f"{noun}s of {shape.model_type} cannot be removed: {refusal}; use --structure neuron")


def _refusal(name: str, shape: ModelShape) -> str | None:
    family = FAMILIES[shape.model_type]
    if family.tower:
        return "it is a vision-language model"
    if not shape.uniform:
        return "its layers differ"
    if name != "kv_group":
        return "the model has one layer" if shape.num_hidden_layers < 2 else None
    if family.attention.refusal:
        return family.attention.refusal
    if shape.num_key_value_heads < 2:
        return "a layer has a single one, which every query head reads"
    return "query heads do not divide" if shape.num_attention_heads % shape.num_key_value_heads else None


_BY_EXPORT = "`harness score`, `harness plan` and `harness export --to decilm`"


def check_plain(name: str, allocation: str, family: Family) -> None:
    """Raises UsageError for what neither a plain folder nor the plugin's can hold, before there is a plan."""
    row = STRUCTURES[name]
    held = name == "attention" and family.can_lack_attention
    if len(row.blocks) == 1 and not row.in_layers and not held:
        raise UsageError(
            f"no config.json of {family.model_type} can leave out {row.noun}s; use --structure layer, or {_BY_EXPORT}"
        )
    if name != "neuron" and allocation != "uniform":
        raise UsageError(f"--allocation {allocation} is of neurons; {row.noun}s need uniform, or {_BY_EXPORT}")


def check_metric_of(name: str, metric: str | None) -> None:
    """Raises UsageError for a metric that cannot score a structure."""
    row = STRUCTURES[name]
    if metric and row.metrics is not None and metric not in row.metrics:
        raise UsageError(f"{metric} cannot score a {row.noun}; use one of {', '.join(row.metrics)}")


def kept_part(plan: PruningPlan, shape: ModelShape, name: str) -> tuple[int, IndexArray] | None:
    """What stays of a checkpoint's tensor of a layer that is not removed: the axis and the indices along it; None where
    all of it does.
    """
    family = FAMILIES[shape.model_type]
    if found := family.tensor(name):
        cut, layer = found
        return cut.axis, cut.kept(plan.keep[layer], plan.intermediate_size)
    layer, below = family.place(name) or (0, "")
    heads = next((cut for cut in family.attention.cuts if cut.name == below), None)
    return (heads.axis, heads.kept(plan.kv_keep[layer], shape)) if heads and plan.kv_keep else None


def kept_columns(plan: PruningPlan, layer: int, shape: ModelShape) -> IndexArray:
    """The inputs that stay of the output projection that a plan re-fits, int64."""
    return kept_heads(plan, layer, shape) if plan.structure == "kv_group" else plan.keep[layer].astype(np.int64)


def kept_heads(plan: PruningPlan, layer: int, shape: ModelShape) -> IndexArray:
    """The inputs of the output projection of attention that belong to the KV groups that stay, int64."""
    output = next(cut for cut in FAMILIES[shape.model_type].attention.cuts if cut.axis == 1)
    return output.kept(plan.kv_keep[layer], shape)


def pruned_parameters(name: str, shape: ModelShape, left: int) -> int:
    """All parameters where `left` of the units of every layer, or of the layers, stay."""
    gone = count_of(name, shape) - left
    if name == "neuron":
        return shape.pruned_parameters((left,) * shape.num_hidden_layers)
    if name == "kv_group":
        return shape.parameters - gone * shape.group_parameters + (shape.group_bias_parameters if gone else 0)
    each = shape.attention_parameters if name == "attention" else shape.layer_parameters
    return shape.parameters - gone * each


def pruned_kv_bytes(name: str, shape: ModelShape, left: int) -> int:
    """Bytes of keys and values per token where `left` stay."""
    return shape.kv_bytes_per_token if name == "neuron" else shape.kv_bytes_per_token * left // count_of(name, shape)


def removed_layers(plan: PruningPlan) -> tuple[int, ...]:
    """Layers of which neither block stays."""
    return tuple(sorted(set(plan.skip_attention) & set(plan.skip_ffn)))


def kept_layers(plan: PruningPlan) -> list[int]:
    """The others, in order."""
    return sorted(set(range(len(plan.keep))) - set(removed_layers(plan)))


def kept_widths(plan: PruningPlan) -> tuple[int, ...]:
    """intermediate_size of the layers that stay."""
    return tuple(plan.widths[layer] for layer in kept_layers(plan))


def without_attention(plan: PruningPlan) -> tuple[int, ...]:
    """Of the layers that stay, those without attention, by the numbers that they have then."""
    return tuple(number for number, layer in enumerate(kept_layers(plan)) if layer in plan.skip_attention)


def needs_plugin(plan: PruningPlan) -> bool:
    """Whether no config.json that stock vLLM reads can say what a plan leaves, but our plugin's can."""
    return len(set(kept_widths(plan))) > 1 or bool(without_attention(plan))


def check_home(plan: PruningPlan, family: Family, config: Mapping[str, Any]) -> None:
    """Raises UsageError where `home_refusal` has a reason."""
    if refusal := home_refusal(plan, family, config):
        raise UsageError(f"{refusal}; `harness export PLAN` says whether another form can")


def home_refusal(plan: PruningPlan, family: Family, config: Mapping[str, Any]) -> str | None:
    """Why no config.json of a family that vLLM, with our plugin, and transformers know can say what a plan leaves, None
    where one can.

    config: of the model, for the families whose layers differ.
    """
    layers, missing = set(removed_layers(plan)), without_attention(plan)
    heads = {count for layer, count in enumerate(plan.kv_heads) if layer not in layers}
    if set(plan.skip_ffn) != layers:
        refusal = "can leave out whole layers, not an FFN block alone"
    elif missing and not family.can_lack_attention:
        refusal = "can leave out whole layers, not an attention block alone"
    elif missing and missing[0] == 0:
        refusal = "needs the attention of the first layer, where cached tokens are counted"
    elif found := _refusal_of_config(family, config, len(plan.keep) if layers else 0, bool(heads)):
        return found
    elif len(heads) > 1:
        refusal = "has one number of KV heads for all layers"
    else:
        return groups_left_refusal(shape_of(config), min(heads)) if heads else None
    return f"a config.json of {family.model_type} {refusal}"


def _refusal_of_config(family: Family, config: Mapping[str, Any], layers: int, groups: bool) -> str | None:
    """What `layer_refusal` (layers: how many there are, 0 where none goes) or `group_refusal` says."""
    found = layer_refusal(family, config, layers) if layers else None
    return found or (group_refusal(family, config) if groups else None)


def check_groups_go(family: Family, config: Mapping[str, Any]) -> None:
    """Raises UsageError where `group_refusal` has a reason."""
    if refusal := group_refusal(family, config):
        raise UsageError(f"{refusal}; prune neurons (--structure neuron) or another model")


def group_refusal(family: Family, config: Mapping[str, Any]) -> str | None:
    """Why no plain folder of a model can have fewer KV groups, None where one can.

    Args:
        family: Its family.
        config: config.json.
    """
    rope = config.get("rope_scaling") or config.get("rope_parameters") or {}
    lists = [key for key in _ROPE_LISTS if isinstance(rope, dict) and key in rope]
    if family.attention.rope_by_hidden and lists:
        refusal = f"with {lists[0]} in its rope_parameters cannot have fewer heads: transformers' class takes the"
        refusal += " length of that list from hidden_size / num_attention_heads"
    elif family.attention.as_llama and config.get("use_sliding_window"):
        refusal = "with use_sliding_window cannot have fewer heads: vLLM's own class takes no head_dim"
    else:
        return None
    return f"a config.json of {family.model_type} {refusal}"


def check_groups_left(shape: ModelShape, left: int) -> None:
    """Raises UsageError, with the numbers of KV groups that a plain folder can have, where `left` is none of them."""
    if refusal := groups_left_refusal(shape, left):
        possible = [n for n in range(1, shape.num_key_value_heads) if not groups_left_refusal(shape, n)]
        fits = " or ".join(map(str, possible)) or "all"
        raise UsageError(
            f"{refusal}; choose --ratio so that {fits} of {shape.num_key_value_heads} KV groups stay, or (llama and "
            f"qwen2 alone) use {_BY_EXPORT}"
        )


def groups_left_refusal(shape: ModelShape, left: int) -> str | None:
    """Why no config.json can say that every layer has `left` KV groups, None where one can."""
    heads = left * shape.query_heads_per_group
    divides = left == shape.num_key_value_heads or shape.hidden_size % heads == 0
    if divides or not FAMILIES[shape.model_type].attention.heads_divide:
        return None
    return (
        f"a config.json of {shape.model_type} cannot have {left} KV groups: transformers' class wants hidden_size "
        f"{shape.hidden_size} to be a multiple of the {heads} query heads that read them"
    )


def check_layers_go(family: Family, config: Mapping[str, Any], layers: int) -> None:
    """Raises UsageError where `layer_refusal` has a reason."""
    if refusal := layer_refusal(family, config, layers):
        raise UsageError(f"{refusal}; prune neurons (--structure neuron) or another model")


def layer_refusal(family: Family, config: Mapping[str, Any], layers: int) -> str | None:
    """Why no layer of a model can be left out, None where one can.

    Args:
        config: config.json, for the families whose layers differ.
        layers: How many it has.
    """
    if missing := [key for key in family.by_layer if not config.get(key)]:
        refusal = f"without {missing[0]} tells layers apart by their number, which removing a layer changes"
    elif odd := [key for key in LAYER_LISTS if not _has_item_each(config.get(key), layers)]:
        refusal = f"whose {odd[0]} has not one item for each layer tells no layer apart; get the model again"
    elif by_number := [key for key in _BY_NUMBER if config.get(key)]:
        refusal = f"with {by_number[0]} tells layers apart by their number, which removing a layer changes"
    else:
        return None
    return f"a config.json of {family.model_type} {refusal}"


def _has_item_each(found: Any, layers: int) -> bool:
    """Whether a list of config.json that is there has an item for each layer."""
    return not found or (isinstance(found, list) and len(found) == layers)
