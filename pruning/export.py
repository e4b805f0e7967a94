"""Writes the pruned checkpoint that a plan makes of a model, block by block; vLLM and transformers load it.

Bytes are copied, and rows and columns gathered from memory maps without a tensor library, so that a checkpoint of 15 GB
needs a few MiB of memory.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from harness.core.dtypes import tensor_of
from harness.core.errors import UnsupportedModelError, UsageError
from harness.core.files import check_disk
from harness.core.safetensors_stream import Array, Entry, file_bytes, finite, write_entries
from harness.core.types.pruning import PredictedCheckpoint, PruningPlan
from harness.core.written_folder import Replaceable, written_folder
from pruning import compensation, missing_attention
from pruning.checkpoint import ModelFolder, check_uniform_width, open_model
from pruning.families import check_nonuniform
from pruning.model_card import model_card
from pruning.pieces import Job, Piece, pieces_of, removed_parameters, structure_config
from pruning.plan_file import save_plan
from pruning.record import RECORD, RECOVERED, record_of
from pruning.shards import INDEX, Shard
from pruning.side_files import copy_side_files, is_ours
from pruning.structures import check_home, check_structure, kept_widths, needs_plugin, without_attention
from pruning.tokenizer_match import keep_tokenizer
from pruning.vision_language import with_text_sizes
from pruning.vocabulary_files import check_vocabulary, with_vocabulary, write_vocabulary

PLAN_COPY = "pruning/plan.safetensors"  # in a folder: vLLM loads every *.safetensors beside the weights
_FORMAT = {"format": "pt"}


def export(
    model: ModelFolder,
    plan: PruningPlan,
    out: Path,
    plan_file: Path | None = None,
    progress: Callable[[int], None] = lambda _: None,
    repair: bool = False,
) -> ModelFolder:
    """Writes the pruned checkpoint to `out`, completely or not at all.

    Args:
        model: the dense model that the plan was made for.
        plan: what stays.
        out: the folder to write; a checkpoint that was written there before is replaced where nothing was added.
        plan_file: the plan's own file; needed for the re-fitted columns beside it where the plan is compensated.
        progress: is called with 1 after every shard.
        repair: replace a checkpoint there also where its files have changed.

    Returns:
        The checkpoint, opened.

    Raises:
        UsageError: the plan does not fit the model, its tokenizer cannot be kept, or `out` holds what no export wrote.
        UnsupportedModelError: the weights are damaged.
        StorageError: the disk is full.
    """
    job, config = check_export(model, plan, out, plan_file)
    with written_folder(out, replaceable(repair)) as scratch:
        copy_side_files(model, scratch)
        if plan.vocabulary is not None:
            write_vocabulary(model, plan.vocabulary, scratch)
        write_own_files(model, scratch, plan, plan_file, config)
        keep_tokenizer(model, scratch, config, plan.vocabulary)  # before the weights, which take long
        write_weights(model, scratch, job, progress)
    return open_model(out)


def check_export(
    model: ModelFolder, plan: PruningPlan, out: Path, plan_file: Path | None
) -> tuple[Job, dict[str, Any]]:
    """What is written and its config.json, for `export` and for a dry run.

    Raises UsageError where the plan does not fit the model, or no config.json can say what it leaves, and StorageError
    for a disk that is too small.
    """
    job = job_of(model, plan, plan_file)
    if out.resolve() == model.path.resolve():
        raise UsageError(f"{out} is the model itself; give another --out")
    config = _config(model, job)
    check_disk(out, model.weight_bytes)
    return job, config


def write_gathered(
    model: ModelFolder, plan: PruningPlan, out: Path, progress: Callable[[int], None] = lambda _: None
) -> None:
    """Writes a model's weights with the neurons `plan.keep` of every layer, in that order, to an existing folder.

    Side files, config.json and the record are the caller's. Raises UnsupportedModelError for damaged weights.
    """
    write_weights(model, out, Job(model.family, model.shape, plan, {}), progress)


def write_weights(model: ModelFolder, out: Path, job: Job, progress: Callable[[int], None]) -> None:
    """Writes the shards that a job leaves, and their index, to an existing folder; `progress` is called per shard."""
    sizes = {}
    for shard in model.shards:
        if found := pieces_of(shard.entries, job):  # none where all its layers are removed
            sizes[shard.path.name] = _write_shard(shard, found, out / shard.path.name)
        progress(1)
    _write_index(out, model.path, sizes)


def replaceable(repair: bool = False) -> Replaceable:
    """Which folders `export` may replace. repair: also one whose files have changed."""
    return Replaceable(RECORD, lambda folder, name: name != RECOVERED and is_ours(folder, name), repair)


def predict_size(model: ModelFolder, plan: PruningPlan, decilm: bool = False) -> PredictedCheckpoint:
    """Widths, parameters and bytes of what `export` would write, to the byte, without writing it; `decilm`: of what
    `export_decilm` would.
    """
    job = Job(model.family, model.shape, plan, {}, decilm)
    written = [(shard, [piece.entry for piece in pieces_of(shard.entries, job)]) for shard in model.shards]
    total = sum(file_bytes(entries, shard.metadata or _FORMAT) for shard, entries in written if entries)
    parameters = model.parameters - removed_parameters(model.shards, job)
    return PredictedCheckpoint(kept_widths(plan), parameters, total, record_of(plan, model))


def config_of(model: ModelFolder, plan: PruningPlan) -> dict[str, Any]:
    """config.json of what `export` would write; raises UsageError where none can say what the plan leaves."""
    return _config(model, Job(model.family, model.shape, plan, {}))


def ffn_tensors(
    model: ModelFolder, plan: PruningPlan, plan_file: Path | None = None
) -> Iterator[tuple[int, dict[str, Any]]]:
    """(layer, the FFN's torch tensors by their name below the layer) as the pruned checkpoint would hold them."""
    job = job_of(model, plan, plan_file)
    layers: dict[int, list[tuple[str, Shard, Piece]]] = {}
    for shard, entry, cut, layer in model.ffn_entries():
        layers.setdefault(layer, []).append((cut.name, shard, pieces_of([entry], job)[0]))
    for layer, pieces in sorted(layers.items()):
        yield layer, {name: _tensor(shard, piece) for name, shard, piece in pieces}


def _tensor(shard: Shard, piece: Piece) -> Any:
    bits = np.concatenate([block.reshape(-1) for block in piece.blocks(shard)])
    return tensor_of(bits, piece.entry.dtype).reshape(piece.entry.shape)


def job_of(model: ModelFolder, plan: PruningPlan, plan_file: Path | None) -> Job:
    """What writing a plan's checkpoint takes; raises UsageError where the plan does not fit the model or its columns
    are missing.
    """
    check_fit(model, plan)
    if plan.compensated and plan_file is None:
        raise UsageError("the plan is compensated; its file is needed for the columns beside it")
    fitted = compensation.load(model, plan, plan_file) if plan_file else {}
    return Job(model.family, model.shape, plan, fitted)


def check_fit(model: ModelFolder, plan: PruningPlan) -> None:
    """Raises UsageError where a plan is not this model's."""
    shape = model.shape
    check_uniform_width(shape, model.path)
    if plan.kv_keep:
        check_structure("kv_group", shape)
    if plan.skip_attention or plan.skip_ffn:
        check_structure("layer", shape)
    if (shape.num_hidden_layers, shape.intermediate_size) != (len(plan.keep), plan.intermediate_size):
        raise UsageError(
            f"the plan is for {len(plan.keep)} layers of width {plan.intermediate_size}, the model has "
            f"{shape.num_hidden_layers} of {shape.intermediate_size}; make a plan from this model's scores"
        )
    if plan.kv_keep and plan.num_key_value_heads != shape.num_key_value_heads:
        raise UsageError(
            f"the plan is for {plan.num_key_value_heads} KV heads, the model has {shape.num_key_value_heads}; "
            "make a plan from this model's scores"
        )
    if plan.model_hash != model.fingerprint:
        raise UsageError(
            f"the plan was made for {plan.model} and {model.path} has other weights; "
            "make a plan from this model's scores"
        )
    if plan.vocabulary is not None:
        check_vocabulary(model, plan.vocabulary, plan.vocab_size)


def _config(model: ModelFolder, job: Job) -> dict[str, Any]:
    """config.json of the checkpoint; raises UsageError where none can say what the plan leaves."""
    check_home(job.plan, job.family, model.config)
    config, widths = structure_config(model.config, job), _widths(job)
    if job.plan.vocabulary is not None:
        config = with_vocabulary(config, job.plan.vocabulary)
    return with_text_sizes(config, widths) if model.family.tower else {**config, **widths}


def _widths(job: Job) -> dict[str, Any]:
    """What config.json says of the widths: one number, or our lists and the architecture that our vLLM plugin
    registers.

    Raises UsageError where vLLM cannot run the family with non-uniform widths.
    """
    widths, key = kept_widths(job.plan), job.family.width_key
    if not needs_plugin(job.plan):
        return {key: widths[0]}
    check_nonuniform(job.family)
    missing = list(without_attention(job.plan))
    return {
        key: max(widths),
        "intermediate_sizes": list(widths),
        **({missing_attention.KEY: missing} if missing else {}),
        "architectures": [f"FFNPruned{job.architecture}"],
    }


def _write_shard(source: Shard, pieces: Sequence[Piece], destination: Path) -> dict[str, int]:
    """Returns the bytes of every tensor written, by name."""
    by_name = {piece.entry.name: piece for piece in pieces}
    written = [piece.entry for piece in pieces]

    def blocks(entry: Entry) -> Iterator[Array]:
        for block in by_name[entry.name].blocks(source):
            if not finite(block, entry.dtype):
                raise UnsupportedModelError(f"{entry.name} in {source.path} holds NaN or infinity; get this file again")
            yield block

    write_entries(destination, written, source.metadata or _FORMAT, blocks)
    return {entry.name: entry.data_bytes for entry in written}


def _write_index(out: Path, model: Path, sizes: Mapping[str, Mapping[str, int]]) -> None:
    if not (model / INDEX).exists():
        return
    weight_map = {name: shard for shard, tensors in sizes.items() for name in tensors}
    total = sum(sum(tensors.values()) for tensors in sizes.values())
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    (out / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def write_own_files(
    model: ModelFolder, out: Path, plan: PruningPlan, plan_file: Path | None, config: dict[str, Any]
) -> None:
    """config.json, the record, the plan and the model card."""
    record = record_of(plan, model)
    (out / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    (out / "README.md").write_text(model_card(record, kept_widths(plan), model.path), encoding="utf-8")
    if (model.path / RECOVERED).exists():
        shutil.copyfile(model.path / RECOVERED, out / RECOVERED)
    _copy_plans(model.path, out, plan_file, len(record["steps"]))
    if plan.vocabulary is not None:  # which its file may not have
        save_plan(plan, out / PLAN_COPY)


def _copy_plans(model: Path, out: Path, plan_file: Path | None, steps: int) -> None:
    """The plan; those of earlier steps stay beside it, as plan-1.safetensors and so on."""
    numbered = [PLAN_COPY.replace("plan.", f"plan-{step}.") for step in range(1, steps)]
    copies = {model / name: out / name for name in numbered[:-1]}
    if numbered:
        copies[model / PLAN_COPY] = out / numbered[-1]
    if plan_file is not None:
        copies[plan_file] = out / PLAN_COPY
    for source, copy in copies.items():
        if source.is_file():
            copy.parent.mkdir(exist_ok=True)
            shutil.copyfile(source, copy)
