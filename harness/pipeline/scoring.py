"""Calibration and scoring of one model on one task: the first stages, and `harness score` alone."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from harness.core import out_place
from harness.core.bounded_read import is_count, read_json_object
from harness.core.chat import ChatFormat, notes
from harness.core.errors import MeasurementError, UsageError, first_line
from harness.core.files import check_disk, check_replaceable_arrays, load_arrays, save_arrays, write_json
from harness.core.memory import free_memory, release_memory
from harness.core.metadata import model_kind_of
from harness.core.progress import progress_bar, say
from harness.core.types.arrays import FloatArray
from harness.core.types.calibration import CalibrationItem, CalibrationSet, TokenScope
from harness.core.types.pruning import ActivationStats, ModelShape, PruningPlan, StructureName
from harness.engine.memory_budget import EngineSettings
from harness.models.registry import model_kind
from harness.models.tokenizer import load_chat, load_tokenizer
from harness.pipeline.own_answers import Asker, with_own_answers
from pruning import compensation, score_file, second_moments
from pruning.calibration import build_calibration
from pruning.checkpoint import ModelFolder, down_projection, seen_from
from pruning.collect import collect
from pruning.config_sizes import MOST_SIZES
from pruning.families import FAMILIES
from pruning.group_statistics import side_by_side
from pruning.layer_source import FromShards, InMemory, LayerSource
from pruning.loader import from_folder
from pruning.obs import removal_scores
from pruning.placement import Placement, ScoringNeeds, choose
from pruning.plan_file import load_plan
from pruning.precision import ieee_products
from pruning.reconstruct import LayerReconstruction
from pruning.saliency import taylor
from pruning.scores import NEEDS, OBS, check_metric, score
from pruning.second_moments import SecondMoments
from pruning.sequential import LayerwiseRefit
from pruning.structures import STRUCTURES, Structure, check_structure, kept_layers
from tasks import registry
from tasks.registry import CALIBRATION_SEED
from tasks.task import Task

REFIT = "refit"  # a need of the search of widths, beside those of metrics
_CALIBRATION = ".calibration.json"
_SCORES = {"calibration_hash", "stability"}  # in the metadata of scores
_CALIBRATION_BYTES = 1 << 30
_HIDE = "do not fit the GPU; hide it (CUDA_VISIBLE_DEVICES=) or"
_MOMENTS = f"a layer's second moments and their inverse in FP64 {_HIDE} use --metric rms"
_OPTIMISER = f"a layer's FFN and the moments of its gradients in FP32 {_HIDE} leave out --reconstruct"
_TABLES, _PROMPT_BYTES = 32, 2048  # about: tables of 4 bytes a neuron in the scores, bytes of a prompt as JSON


@dataclass(frozen=True)
class CalibrationRequest:
    """`samples` target prompts and twice as many distractors, as in the paper.

    generate_completions: with the dense model's own answers, of the task only right ones (own_answers.py). plain: the
    bare questions, without system message and chat template, as in the paper. paper_rows: out of the rows that the
    paper's scripts score. engine: of what generates answers. template_args: variables of the chat template.
    """

    samples: int = 160
    tokens: TokenScope = "all"
    generate_completions: bool = False
    plain: bool = False
    paper_rows: bool = False
    engine: EngineSettings = field(default_factory=EngineSettings)
    template_args: Mapping[str, Any] = field(default_factory=dict)


def calibrate(model: ModelFolder, name: str, task: Task, request: CalibrationRequest) -> CalibrationSet:
    tokenizer, chat = _prompt_format(model, request)
    target_source, target = registry.calibration(task, request.samples, CALIBRATION_SEED, request.paper_rows)
    sources, general = registry.distractors(task, 2 * request.samples, CALIBRATION_SEED, request.paper_rows)
    if request.plain:
        target = [replace(example, system="", shots=()) for example in target]
    if request.generate_completions:
        asker = Asker(model, tokenizer, chat, request.engine)
        done, target, general = with_own_answers(asker, task, target, general)
        target_source = f"{target_source}, {done}"
    context = model.shape.max_position_embeddings
    made = build_calibration(
        tokenizer, name, model.fingerprint, target, general, (target_source, sources), request.tokens, chat, context
    )
    return replace(made, model_kind=model_kind(name))


def _prompt_format(model: ModelFolder, request: CalibrationRequest) -> tuple[Any, ChatFormat | None]:
    """The tokenizer, and the chat template unless the prompts are plain; says what is unusual about it."""
    if request.plain:
        return load_tokenizer(model), None
    tokenizer, chat = load_chat(model, request.template_args)
    for note in notes(asdict(chat.summary)) if chat else ():
        say(f"chat template: {note}")
    return tokenizer, chat


def save_calibration(calibration: CalibrationSet, path: Path) -> None:
    write_json(path, asdict(calibration))


def load_calibration(path: Path) -> CalibrationSet:
    """What `save_calibration` wrote; raises UsageError for anything else."""
    raw = read_json_object(path, _CALIBRATION_BYTES)
    try:
        return CalibrationSet(
            model=raw["model"],
            model_hash=raw["model_hash"],
            target_source=raw["target_source"],
            distractor_sources=tuple(raw["distractor_sources"]),
            tokens=raw["tokens"],
            items=tuple(_item(item) for item in raw["items"]),
            model_kind=model_kind_of(raw),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{path} holds no calibration prompts ({first_line(error)}); score again") from error


def _item(raw: Mapping[str, Any]) -> CalibrationItem:
    ids, start, stop = raw["token_ids"], raw["start"], raw["stop"]
    whole = isinstance(ids, list) and all(is_count(token, MOST_SIZES["vocab_size"]) for token in ids)
    if not whole or not is_count(stop, len(ids)) or not is_count(start, stop) or not isinstance(raw["target"], bool):
        raise ValueError("an item is not a list of tokens with a range in it")
    return CalibrationItem(raw["target"], tuple(ids), start, stop)


@dataclass(frozen=True)
class ScoreRequest:
    """`metrics`: beyond those that the hook's statistics give for nothing. `moments`: also H of every layer, for
    compensation.

    general_weight: the share of general tokens in H. sequential: re-fit each layer on moments with the layers before it
    already pruned. structure: what is scored, or re-fitted to.
    """

    metrics: tuple[str, ...] = ()
    moments: bool = False
    general_weight: float = 0.0
    threads: int | None = None
    sequential: bool = False
    structure: StructureName = "neuron"

    @property
    def needs(self) -> set[str]:
        return {NEEDS[check_metric(name)] for name in self.metrics if name in NEEDS} | (
            {"second moments"} if self.moments else set()
        )


def check_scores_file(out: Path) -> None:
    """Raises UsageError or StorageError where scores, and what lies beside them, cannot be written to `out`."""
    out_place.check_file(out, (_CALIBRATION,))
    check_replaceable_arrays(out, _SCORES, "scores")


def calibration_file(scores: Path) -> Path:
    """Where the calibration prompts of scores lie that are made alone: beside them."""
    return scores.with_name(f"{scores.name}{_CALIBRATION}")


def moments_folder(scores: Path) -> Path:
    """Where the layers' second moments lie: beside the scores."""
    return scores.with_name(f"{scores.name}.moments")


def check_room(model: ModelFolder, samples: int, out: Path) -> None:
    """Raises StorageError where the disk has no room for scores and prompts, three for every sample."""
    check_disk(out, 4 * _TABLES * sum(model.widths) + 3 * samples * _PROMPT_BYTES)


def partial_folder(scores: Path) -> Path:
    """Where the layers of a scoring that is not finished lie."""
    return scores.with_name(f"{scores.name}.partial")


def placement_of(shape: ModelShape, samples: int, needs: Set[str]) -> Placement:
    """Where the weights are while a model is scored here.

    Raises MeasurementError where the memory is too small for what the metrics need, and UsageError for a metric of
    gates where there is no gate.
    """
    if "gate" in needs and FAMILIES[shape.model_type].gate is None:
        raise UsageError(f"{shape.model_type} has no gate, which lape needs; choose another --metric")
    wanted = ("second moments" in needs, "gradient" in needs, "reconstruction" in needs, REFIT in needs)
    return choose(shape, ScoringNeeds(samples, *wanted), free_memory())


def open_source(
    model: ModelFolder, calibration: CalibrationSet, needs: Set[str] = frozenset(), threads: int | None = None
) -> LayerSource:
    """The dense model's layers, where the free memory allows them to be; says where."""
    import torch

    where = placement_of(model.shape, calibration.count(True), needs)
    say(f"Weights: {where.text}")
    torch.set_num_threads(threads or os.cpu_count() or 1)
    dtype = getattr(torch, where.dtype)
    if where.source == "layers":
        return FromShards(model, dtype, where.device, calibration)
    if where.source == "gpus":
        return InMemory(_over_gpus(model, dtype), model.family)
    on_gpu = {"device_map": {"": where.device}} if where.gpus else {}
    return InMemory(from_folder(model, dtype=dtype, **on_gpu).eval(), model.family)


def _over_gpus(model: ModelFolder, dtype: Any) -> Any:
    """Spread by accelerate; raises MeasurementError where that would leave a part on the host."""
    loaded = from_folder(model, dtype=dtype, device_map="auto").eval()
    if {"cpu", "disk"} & {str(device) for device in loaded.hf_device_map.values()}:
        raise MeasurementError(
            f"{model.path} does not fit the memory of the GPUs that are free; free some, or show one GPU alone "
            "(CUDA_VISIBLE_DEVICES=0), which takes one layer at a time"
        )
    return loaded


def score_model(model: ModelFolder, calibration: CalibrationSet, request: ScoreRequest, out: Path) -> ActivationStats:
    """Measures what the metrics need and writes scores.safetensors; what is done of it survives a kill."""
    structure = STRUCTURES[request.structure]
    check_structure(request.structure, model.shape)
    moments = SecondMoments(calibration, request.general_weight, moments_folder(out), structure.blocks[0])
    with ieee_products():
        stats = _measured(model, calibration, request, out, moments)
        release_memory()  # the whole model, which no step below needs
        tables = _tables(stats, structure, request.metrics)
        if OBS in request.metrics:
            groups = None if request.structure == "neuron" else structure.units(model.shape)
            read = seen_from(model, structure.blocks[0])
            with progress_bar(f"Removal order of {len(model.widths)} layers", len(model.widths)) as advance:
                tables[OBS] = _removal_scores(read, moments, groups, advance)
    width = model.shape.intermediate_size
    score_file.save(stats, tables, calibration, request.general_weight, out, request.structure, width)
    shutil.rmtree(partial_folder(out), ignore_errors=True)
    return stats


def _tables(stats: ActivationStats, structure: Structure, asked: Sequence[str]) -> dict[str, FloatArray]:
    """Metric -> [layers, units]; a structure of two blocks scores their mean."""
    if structure.metrics is None:
        return score(stats, asked=asked)
    tables = score(stats, [name for name in structure.metrics if name != OBS])
    return tables if structure.in_layers else {name: t.mean(axis=1, keepdims=True) for name, t in tables.items()}


def _measured(
    model: ModelFolder, calibration: CalibrationSet, request: ScoreRequest, out: Path, moments: SecondMoments
) -> ActivationStats:
    """All that needs the model itself."""
    structure, layers = STRUCTURES[request.structure], len(model.widths)
    units = None if request.structure == "neuron" else structure.units(model.shape)
    wanted = moments if "second moments" in request.needs else None
    found = []
    for block in structure.blocks:
        source = open_source(seen_from(model, block), calibration, request.needs, request.threads)
        with progress_bar(f"Scoring {layers} layers on {len(calibration.items)} prompts", layers) as advance:
            partial = partial_folder(out) / block if len(structure.blocks) > 1 else partial_folder(out)
            found.append(collect(source, calibration, "gate" in request.needs, advance, partial, wanted, units))
    stats = side_by_side(found)
    if "gradient" in request.needs:
        with progress_bar("Gradients on the task's prompts", calibration.count(True)) as advance:
            stats = replace(stats, saliency=taylor(source.model, model.family, calibration, advance))
    return stats


def compensate_plan(
    model: ModelFolder, calibration: CalibrationSet, request: ScoreRequest, scores: Path, plan_file: Path
) -> None:
    """Re-fits the kept columns of a saved plan on the second moments beside the scores, measured again where they are
    gone.

    Sequentially: on moments measured layer by layer, with the layers before already pruned. Where the plan says so,
    each layer is reconstructed afterwards.
    """
    import torch

    plan = load_plan(plan_file)
    block = STRUCTURES[plan.structure].blocks[0]
    moments = SecondMoments(calibration, request.general_weight, moments_folder(scores), block)
    torch.set_num_threads(request.threads or os.cpu_count() or 1)
    device, layers = "cuda" if torch.cuda.is_available() else "cpu", len(kept_layers(plan))
    with ieee_products(), ExitStack() as stack:
        if not request.sequential:
            measure_moments(seen_from(model, block), moments, request)
        walk = _refit_walk(seen_from(model, block), moments, request) if request.sequential else None
        advance = stack.enter_context(progress_bar(f"Re-fitting {layers} layers", layers))
        stack.enter_context(enough_memory())

        def done(_layer: int, keep: Any, fitted: Any) -> None:
            if walk:
                walk.prune(keep, fitted)
            advance(1)

        find = walk.second_moment if walk else lambda layer: second_moments.load(moments.folder, layer, device)
        compensation.compensate(model, plan, plan_file, find, device, done)
    if plan.reconstructed:
        release_memory()  # of the re-fit
        _reconstruct(model, plan, plan_file, moments, request)


def _reconstruct(
    model: ModelFolder, plan: PruningPlan, plan_file: Path, moments: SecondMoments, request: ScoreRequest
) -> None:
    """Replaces the re-fitted columns beside a plan by all tensors of the FFNs, each layer's optimised."""
    source = open_source(model, moments.calibration, {"reconstruction"}, request.threads)
    left = kept_layers(plan)
    walk = LayerReconstruction(source, left, moments, no_attention=plan.skip_attention)
    start = compensation.load_layers(model, replace(plan, reconstructed=False), plan_file)
    errors, layers = [], len(left)
    with progress_bar(f"Reconstructing {layers} layers", layers) as advance, enough_memory(_OPTIMISER):

        def tensors(layer: int) -> Mapping[str, Any]:
            found = walk.fit(layer, plan.keep[layer], start(layer))
            errors.append((found.before, found.after))
            advance(1)
            return found.tensors

        compensation.save(plan, plan_file, model, tensors)
    before, after = (sum(part) / layers for part in zip(*errors, strict=True))
    say(f"Error of a layer's output on held-out prompts, relative to the dense model's: {before:.4f} -> {after:.4f}")


def _refit_walk(model: ModelFolder, moments: SecondMoments, request: ScoreRequest) -> LayerwiseRefit:
    return LayerwiseRefit(open_source(model, moments.calibration, {"second moments"}, request.threads), moments)


@contextmanager
def enough_memory(what: str = _MOMENTS) -> Iterator[None]:
    """Says in one line what to do where a layer's matrices do not fit the GPU. what: the error."""
    import torch

    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        raise MeasurementError(what) from error


def measure_moments(model: ModelFolder, moments: SecondMoments, request: ScoreRequest) -> None:
    """Those that are not there; the model is gone afterwards."""
    if missing := moments.missing(range(len(model.widths))):
        source = open_source(model, moments.calibration, {"second moments"}, request.threads)
        with progress_bar(f"Second moments of {len(missing)} layers", missing[-1] + 1) as advance:
            second_moments.measure(source, moments, advance)
    release_memory()


def _removal_scores(
    model: ModelFolder, moments: SecondMoments, groups: int | None, progress: Callable[[int], None]
) -> FloatArray:
    """Removal scores [layers, F], or of `groups` of a layer's inputs; one output projection in memory at a time. Each
    layer's are kept beside its second moments, so that a killed scoring resumes.
    """
    import torch

    rows, device = [], "cuda" if torch.cuda.is_available() else "cpu"
    for layer in range(len(model.widths)):
        file = moments.folder / f"order-{layer:03d}.safetensors"
        if second_moments.stored_key(file) != moments.key:
            with enough_memory():
                second_moment = second_moments.load(moments.folder, layer, device)
                found = removal_scores(down_projection(model, layer).to(device), second_moment, groups=groups)
            save_arrays(file, {"scores": found}, {"key": moments.key})
        rows.append(load_arrays(file, "harness score")[0]["scores"])
        progress(1)
    return np.stack(rows)
