"""`--allocation search`: the FFN width of every layer by its measured damage, for a plan of a run."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from harness.core.errors import MeasurementError, UsageError
from harness.core.hashing import digest
from harness.core.memory import release_memory
from harness.core.progress import progress_bar, say
from harness.core.text import size_text
from harness.core.types.calibration import CalibrationItem, CalibrationSet, Example
from harness.core.types.pruning import ModelShape, NeuronScores
from harness.models.tokenizer import load_chat, load_tokenizer
from harness.pipeline import scoring
from harness.pipeline.scoring import CalibrationRequest, ScoreRequest
from pruning import second_moments
from pruning.calibration import calibration_items
from pruning.checkpoint import ModelFolder
from pruning.layer_source import InMemory
from pruning.placement import Placement
from pruning.plan import PlanRequest, least_width, removal_order, uniform_width
from pruning.precision import ieee_products
from pruning.search.choices import LayerChoice
from pruning.search.damage import DamageProbe
from pruning.search.table import measure_damage
from pruning.search.widths import LOOKS, FoundWidths, measured_choices, search_widths
from pruning.second_moments import SecondMoments
from tasks import registry
from tasks.task import Task

TEXTS, TOKENS = 64, 1536  # at most, of the held-out texts and of those of their tokens that are scored
_QUESTION = 75  # tokens of a word problem, of which none are scored
_INSTEAD = "free some memory, or use --allocation global"
_PROBE = f"the model and a layer's re-fit in FP64 do not fit the GPU together; {_INSTEAD}"
_SEED = registry.CALIBRATION_SEED + 1  # of their draw


@dataclass(frozen=True)
class Scored:
    """What a search starts from.

    Attributes:
        model: The dense model.
        calibration: The prompts that were scored.
        request: How they were.
        scores: As read from their file.
    """

    model: ModelFolder
    calibration: CalibrationSet
    request: ScoreRequest
    scores: NeuronScores


def find_widths(scored: Scored, wanted: PlanRequest, task: Task, prompts: CalibrationRequest) -> FoundWidths:
    """The widths of all layers with the least KL to the dense model that was found, as many neurons in all as at the
    uniform width.

    The damage of single layers is measured once and kept beside the scores, for other ratios and for a resumed run.

    Raises:
        MeasurementError: The whole model does not fit the memory.
        UsageError: The task has no prompts beyond those that were scored.
    """
    model, scores = scored.model, scored.scores
    size, uniform = model.shape.intermediate_size, uniform_width(wanted, model.shape.intermediate_size)
    if uniform == size:
        return FoundWidths(model.widths, 0.0, 0.0)
    texts = held_out_texts(model, task, prompts, scored.calibration)
    choices, file = measured_choices(size, wanted.alignment), damage_file(Path(str(scores.path)))
    with ieee_products(), scoring.enough_memory(_PROBE):
        probe = open_probe(scored, wanted, texts)
        with progress_bar(f"Damage of {len(choices) - 1} widths in {probe.layers} layers", probe.layers) as advance:
            table = measure_damage(probe, choices, advance, file, _key(scores, wanted, texts, choices))
        with progress_bar(f"Searching widths with a mean of {uniform}", LOOKS) as advance:
            found = search_widths(probe, table, uniform, wanted.alignment, _floor(wanted, size), progress=advance)
    del probe
    release_memory()
    nats = f"{found.nats:.4g} nats per token from the dense model"
    say(f"Widths {min(found.widths)} to {max(found.widths)}: {nats}; uniform: {found.uniform_nats:.4g}")
    return found


def _floor(wanted: PlanRequest, size: int) -> int:
    """The least width of a layer, with room for what is protected."""
    protected = -(-round(wanted.protect * size) // wanted.alignment) * wanted.alignment
    return max(least_width(wanted, size), protected)


def held_out_texts(
    model: ModelFolder, task: Task, request: CalibrationRequest, calibration: CalibrationSet
) -> list[CalibrationItem]:
    """Calibration prompts of the task from another draw, none of them in the calibration set; their answers are judged.

    The answers are the data set's, also where the model's own were scored. Raises UsageError where there are none.
    """
    tokenizer, chat = (load_tokenizer(model), None) if request.plain else load_chat(model, request.template_args)
    source, examples = _drawn(task, request)
    if request.plain:
        examples = [replace(example, system="", shots=()) for example in examples]
    context = model.shape.max_position_embeddings
    drawn = calibration_items(tokenizer, examples, True, "completion", chat, context)
    found = _as_many_as_fit(item for item in drawn if not _is_among(item, calibration))
    if not found:
        raise _nothing_left(source)
    return found


def check_held_out(task: Task, request: CalibrationRequest) -> None:
    """Raises UsageError where `held_out_texts` would find none, before anything is scored.

    Where the model answers itself, wrong answers are not scored, so that only the run knows what is left.
    """
    if request.generate_completions:
        return
    first = registry.calibration(task, request.samples, registry.CALIBRATION_SEED, request.paper_rows)[1]
    scored, (source, others) = {_asked(example) for example in first}, _drawn(task, request)
    if all(_asked(example) in scored for example in others):
        raise _nothing_left(source)


def _drawn(task: Task, request: CalibrationRequest) -> tuple[str, list[Example]]:
    """Where the prompts come from, and so many that some of them were not scored, if there are that many."""
    return registry.calibration(task, request.samples + TEXTS, _SEED, request.paper_rows)


def _asked(example: Example) -> str:
    """What tells a prompt from others, whatever its answer."""
    return example.prompt or example.answer


def _nothing_left(source: str) -> UsageError:
    return UsageError(
        f"{source} has no prompt besides those that are scored, and measuring damage needs others; "
        "lower --calibration-samples"
    )


def _is_among(item: CalibrationItem, calibration: CalibrationSet) -> bool:
    """Whether its question was scored, with whatever answer."""
    question = item.token_ids[: item.start] or item.token_ids
    return any(other.target and other.token_ids[: len(question)] == question for other in calibration.items)


def _as_many_as_fit(items: Iterable[CalibrationItem]) -> list[CalibrationItem]:
    found: list[CalibrationItem] = []
    tokens = 0
    for item in itertools.islice(items, TEXTS):
        tokens += item.stop - item.start
        if found and tokens > TOKENS:
            break
        found.append(item)
    return found


def probe_place(shape: ModelShape, samples: int) -> Placement:
    """Where the weights are while damage is measured, with room beside them for a re-fit."""
    return scoring.placement_of(shape, samples, {scoring.REFIT})


def check_whole(shape: ModelShape, place: Placement) -> None:
    """Raises MeasurementError where damage would be measured layer by layer, since it is measured on all of them."""
    if place.source == "layers":
        size = size_text(shape.parameters * (shape.dtype_bytes if place.gpus else 4))
        raise MeasurementError(
            f"--allocation search needs the whole model in memory, {size} of weights, and that does not fit; {_INSTEAD}"
        )


def damage_file(scores: Path) -> Path:
    """Where the damage of single layers lies: beside the scores."""
    return scores.with_name(f"{scores.name}.damage")


def search_flops(shape: ModelShape, wanted: PlanRequest) -> float:
    """Of a search's forward passes, at most; those with one changed layer start at it, in the middle of the model."""
    choices = len(measured_choices(shape.intermediate_size, wanted.alignment)) - 1
    passes = shape.num_hidden_layers * choices / 2 + LOOKS
    return 2 * shape.parameters * passes * (TOKENS + TEXTS * _QUESTION)


def open_probe(scored: Scored, wanted: PlanRequest, texts: Sequence[CalibrationItem]) -> DamageProbe:
    """The dense model on the held-out texts; second moments that are missing are measured first."""
    request, calibration = scored.request, scored.calibration
    moments = SecondMoments(calibration, request.general_weight, scoring.moments_folder(Path(str(scored.scores.path))))
    scoring.measure_moments(scored.model, moments, request)
    source = scoring.open_source(scored.model, calibration, {scoring.REFIT}, request.threads)
    if not isinstance(source, InMemory):
        raise MeasurementError(f"{scored.model.path} no longer fits the memory as a whole; free some, and run it again")
    order = removal_order(scored.scores, wanted)
    return DamageProbe(source, texts, order, lambda layer: second_moments.load(moments.folder, layer))


def _key(
    scores: NeuronScores, wanted: PlanRequest, texts: Sequence[CalibrationItem], choices: Sequence[LayerChoice]
) -> str:
    """Identifies what the damage of single layers depends on."""
    what = [scores.model_hash, scores.file_hash, wanted.metric, wanted.protect]
    return digest([*what, [asdict(text) for text in texts], [asdict(choice) for choice in choices]])
