"""pruning.json: how the weights beside it were pruned, step after step, from the first model on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from harness.core.bounded_read import is_count, read_json_object
from harness.core.errors import UsageError
from harness.core.labels import STRUCTURE_NOUNS
from harness.core.types.model import ModelKind
from harness.core.types.pruning import PruningPlan

if TYPE_CHECKING:
    from pruning.checkpoint import ModelFolder

RECORD = "pruning.json"  # beside the weights: what was done to this checkpoint
RECOVERED = "recovery.json"  # beside the weights: how this checkpoint was fine-tuned
_MOST_BYTES, _MOST, _MOST_STEPS = 4 << 20, 1 << 63, 64
_OF_THE_FIRST = ("model", "model_kind", "model_hash")


def record_of(plan: PruningPlan, model: ModelFolder) -> dict[str, Any]:
    """What `export` writes as pruning.json.

    Args:
        plan: The last step.
        model: What it is applied to; one that was pruned before brings its own steps along.

    Returns:
        How the last step was done; which model the first one was, with its width and size; and all `steps`.
    """
    steps = [*steps_of(model), _step(plan, model)]
    first, last = steps[0], steps[-1]
    how = {key: last[key] for key in _HOW}
    return {
        **how,
        **{key: first[key] for key in _OF_THE_FIRST},
        "scores_hash": last["scores_hash"],
        "dense_intermediate_size": first["intermediate_size"],
        "dense_parameters": first["parameters"],
        "steps": steps,
    }


def _step(plan: PruningPlan, model: ModelFolder) -> dict[str, Any]:
    """One pruning. intermediate_size, parameters: before it. vocabulary: rows of the embedding before and after.
    recovery: how the model was fine-tuned before it.
    """
    how = {key: getattr(plan, key) for key in _HOW if key != "ratio_requested"}
    return {
        **how,
        "ratio_requested": plan.ratio,
        **{key: getattr(plan, key) for key in (*_OF_THE_FIRST, "scores_hash")},
        "plan_hash": plan_hash(plan),
        "intermediate_size": plan.intermediate_size,
        "widths": list(plan.widths),
        "parameters": model.parameters,
        **({"vocabulary": [plan.vocab_size, len(plan.vocabulary)]} if plan.vocabulary is not None else {}),
        **_structures(plan),
        **({"recovery": read_recovery(model.path)} if model.recovered else {}),
    }


def _structures(plan: PruningPlan) -> dict[str, Any]:
    """What a step did to more than neurons, and more than a re-fit; nothing for a plan of neurons alone."""
    found: dict[str, Any] = {} if plan.structure == "neuron" else {"structure": plan.structure}
    if plan.reconstructed:
        found["reconstructed"] = True
    if plan.kv_keep:
        found |= {"num_key_value_heads": plan.num_key_value_heads, "kv_heads": list(plan.kv_heads)}
    skips = {"skip_attention": list(plan.skip_attention), "skip_ffn": list(plan.skip_ffn)}
    return found | {name: layers for name, layers in skips.items() if layers}


def steps_of(model: ModelFolder) -> list[dict[str, Any]]:
    """How a model was pruned, the first step first; a record of an older version is one step."""
    record = model.record
    if record is None:
        return []
    if record.get("steps"):
        return list(record["steps"])
    known = {key: record.get(key) for key in (*_HOW, *_OF_THE_FIRST, "scores_hash")}
    sizes = {"intermediate_size": record["dense_intermediate_size"], "parameters": record["dense_parameters"]}
    return [{**known, "model_kind": record.get("model_kind", "unknown"), "widths": list(model.widths), **sizes}]


def plan_hash(plan: PruningPlan) -> str:
    """The first 16 hex digits of a SHA-256 over the kept neurons of every layer, and what else is kept or removed."""
    total = hashlib.sha256(str(plan.intermediate_size).encode())
    for keep in (*plan.keep, *plan.kv_keep):
        total.update(len(keep).to_bytes(8, "little") + keep.astype("<i4").tobytes())
    if plan.vocabulary is not None:
        total.update(plan.vocabulary.astype("<i4").tobytes())
    if plan.skip_attention or plan.skip_ffn:
        total.update(repr((plan.skip_attention, plan.skip_ffn)).encode())
    return total.hexdigest()[:16]


def read_record(checkpoint: Path) -> dict[str, Any] | None:
    """What pruning wrote beside the weights, None for a model that was not pruned by this project."""
    path = checkpoint / RECORD
    if not path.exists():
        return None
    record = read_json_object(path, _MOST_BYTES)
    if wrong := [name for name, fits in _RECORDED.items() if not fits(record.get(name))]:
        raise UsageError(f"{path} has no usable {', '.join(wrong)}; export the checkpoint again")
    return record


def read_recovery(checkpoint: Path) -> dict[str, Any] | None:
    """What fine-tuning wrote beside the weights, None for a model that was not fine-tuned by this project."""
    path = checkpoint / RECOVERED
    return read_json_object(path, _MOST_BYTES) if path.exists() else None


def is_own(checkpoint: Path, name: str) -> bool:
    """Whether pruning.json or recovery.json, by name, holds what this project writes there."""
    try:
        if name == RECORD:
            return read_record(checkpoint) is not None
        return type((read_recovery(checkpoint) or {}).get("steps")) is int
    except (UsageError, OSError):
        return False


def is_recovered(checkpoint: Path, record: Mapping[str, Any] | None) -> bool:
    """Whether fine-tuning came last; a checkpoint that was pruned afterwards keeps recovery.json too."""
    found, steps = read_recovery(checkpoint), (record or {}).get("steps") or ()
    return found is not None and not any(step.get("recovery") == found for step in steps)


def _is_text(value: Any) -> bool:
    return value is None or isinstance(value, str)


def _is_number(value: Any) -> bool:
    return value is None or is_count(value, _MOST)


def _are_numbers(value: Any) -> bool:
    return value is None or (
        isinstance(value, list) and len(value) <= 1 << 16 and all(is_count(n, _MOST) for n in value)
    )


def _is_size(value: Any) -> bool:
    return is_count(value, _MOST, 1)


def _are_rows(value: Any) -> bool:
    """Rows of an embedding before and after."""
    return isinstance(value, list) and len(value) == 2 and all(map(_is_size, value))


def _are_steps(value: Any) -> bool:
    if value is None:
        return True
    return isinstance(value, list) and 0 < len(value) <= _MOST_STEPS and all(map(_is_step, value))


def _is_step(value: Any) -> bool:
    return isinstance(value, dict) and all(fits(value.get(name)) for name, fits in _STEP.items())


_HOW: Mapping[str, Callable[[Any], bool]] = {  # how a step was done
    **dict.fromkeys(("method", "metric", "tokens"), _is_text),
    "alignment": _is_number,
    "allocation": _is_text,
    "compensated": lambda value: isinstance(value, bool),
    "protect": lambda value: value is None or isinstance(value, int | float),
    "seed": _is_number,
    "sequential": lambda value: isinstance(value, bool | None),
    "general_weight": lambda value: value is None or isinstance(value, int | float),
    "ratio_requested": lambda value: isinstance(value, int | float) and 0 <= value < 1,
}
_MODEL: Mapping[str, Callable[[Any], bool]] = {
    **dict.fromkeys(("model", "model_hash"), lambda value: isinstance(value, str)),
    "model_kind": lambda value: value is None or value in get_args(ModelKind),
}
_STEP: Mapping[str, Callable[[Any], bool]] = {
    **_HOW,
    **_MODEL,
    **dict.fromkeys(("intermediate_size", "parameters"), _is_size),
    "widths": lambda value: isinstance(value, list) and 0 < len(value) <= 1 << 16 and all(map(_is_size, value)),
    "vocabulary": lambda value: value is None or _are_rows(value),
    "recovery": lambda value: value is None or isinstance(value, dict),
    "structure": lambda value: value is None or (isinstance(value, str) and value in STRUCTURE_NOUNS),
    "num_key_value_heads": _is_number,
    "reconstructed": lambda value: isinstance(value, bool | None),
    **dict.fromkeys(("kv_heads", "skip_attention", "skip_ffn"), _are_numbers),
}
_RECORDED: Mapping[str, Callable[[Any], bool]] = {  # what is read of pruning.json
    **_HOW,
    **_MODEL,
    **dict.fromkeys(("dense_intermediate_size", "dense_parameters"), _is_size),
    "steps": _are_steps,
}
