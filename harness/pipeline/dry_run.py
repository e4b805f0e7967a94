"""What a run would do, from the model's config alone: widths, sizes, disk, cells, time."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from harness.core.labels import is_as_asked
from harness.core.run_directory import check_run_directory
from harness.core.types.pruning import StructureName
from harness.engine.memory_budget import kv_copies
from harness.pipeline.cpu_time import flops_per_second, on_gpu, time_text
from harness.pipeline.data_check import check_data
from harness.pipeline.file_sizes import file_sizes
from harness.pipeline.own_answers import check_grading
from harness.pipeline.resolve import ResolvedRun
from harness.pipeline.run_context import defaults_of
from harness.pipeline.scoring import check_scores_file, placement_of
from harness.pipeline.width_search import check_whole, probe_place, search_flops
from harness.training.fine_tuning import available_examples, check_files, make_recipe
from harness.training.original import check_original
from pruning.families import FAMILIES
from pruning.placement import Placement
from pruning.plan import uniform_width
from pruning.reconstruct import SCHEDULE
from pruning.record import read_record
from pruning.scores import OBS
from pruning.second_moments import layer_bytes
from pruning.structures import STRUCTURES, check_plain, count_of, pruned_kv_bytes, pruned_parameters
from recovery.cost import cost
from reports.figures import count_text, mebibytes, percent
from reports.parts import Table

_TOKENS_PER_PROMPT = 150  # a word problem with its solution; calibration prompts are capped at 1024
_START_SECONDS = 30.0  # imports and two engines, about; the rest is counted in FLOPs


@dataclass(frozen=True)
class Change:
    """A number of the dense model and of the pruned one."""

    dense: int
    pruned: int


@dataclass(frozen=True)
class SecondMoments:
    """What `obs` and re-fitting need: a [width, width] matrix per layer, on disk until the plans are made.

    Attributes:
        disk_bytes: Of all layers.
        memory_bytes: Of the one layer that is measured at a time.
    """

    disk_bytes: int
    memory_bytes: int


@dataclass(frozen=True)
class RecoveryForecast:
    """The cost of fine-tuning one variant, the widest, as recovery/cost.py estimates it.

    Attributes:
        variants: How many are fine-tuned.
        examples: Training examples, at most.
        tokens: Over all steps, prompts included.
        memory_bytes: Sum of weights, gradients, optimiser state and activations.
        flops: Of one variant.
    """

    variants: int
    tuning: str
    examples: int
    tokens: int
    steps: int
    trained_parameters: int
    weights_bytes: int
    gradient_bytes: int
    optimiser_bytes: int
    activation_bytes: int
    disk_bytes: int
    flops: float
    memory_bytes: int


@dataclass(frozen=True)
class Forecast:
    """What a run would do. `harness run --dry-run --json` prints these fields.

    Attributes:
        task: The target task.
        alignment: Widths are multiples of it; None where nothing is pruned.
        ratio_requested: Fraction of FFN neurons to remove, before alignment.
        ratio_neurons: Fraction of FFN neurons that would be removed.
        ratio_parameters: Fraction of all parameters that would be removed.
        intermediate_size: FFN width of every layer.
        structure: What the ratio is of.
        structures: How many a layer has, or of blocks the model.
        disk_bytes: Of all checkpoints that would be written.
        own_answers: That the dense model gives to calibration prompts, at most.
        scoring: Where the model's weights are while it is scored; None where nothing is pruned.
        second_moments: None where no metric and no re-fitting needs them.
        recovery: None where nothing is fine-tuned.
        cells: "VARIANT x TASK" for every evaluation.
        out: The run directory.
        seconds: Upper bound for this CPU; None where a GPU would be used.
    """

    model: str
    task: str
    variants: tuple[str, ...]
    alignment: int | None
    ratio_requested: float
    ratio_neurons: float
    ratio_parameters: float
    intermediate_size: Change
    parameters: Change
    weight_bytes: Change
    structure: StructureName
    structures: Change
    kv_bytes_per_token: int
    pruned_kv_bytes_per_token: int
    disk_bytes: int
    scoring: Placement | None
    second_moments: SecondMoments | None
    recovery: RecoveryForecast | None
    cells: tuple[str, ...]
    out: str
    seconds: float | None
    own_answers: int = 0


def forecast(spec: ResolvedRun, out: Path | None = None) -> Forecast:
    """Everything by formula from the model's config.json, and sizes of files from the headers of its shards where it is
    here; no weights are read. `out`: the run directory, None for the default.
    """
    check_run_directory(out or spec.default_out)
    check_data(spec)
    if spec.recovered:
        check_files(spec.config.recovery)
        check_original(spec.config.recovery, Path(spec.config.model))
    if spec.arms:
        check_plain(spec.structure, spec.config.allocation, FAMILIES[spec.shape.model_type])
    shape = spec.shape
    pruned, gpus = pruned_parameters(spec.structure, shape, spec.left), spec.config.tensor_parallel
    heads = spec.left if spec.structure == "kv_group" else shape.num_key_value_heads
    left = pruned_kv_bytes(spec.structure, shape, spec.left) * kv_copies(heads, gpus)
    files = file_sizes(spec) or (shape.parameters * shape.dtype_bytes, pruned * shape.dtype_bytes)
    dense = spec.base in spec.recovered  # which is as large as before
    return Forecast(
        model=spec.model,
        task=spec.target.name,
        variants=spec.variants,
        alignment=spec.arms[0].request.alignment if spec.arms else None,
        ratio_requested=spec.config.ratio if spec.arms else 0.0,
        ratio_neurons=1 - spec.width / shape.intermediate_size,
        ratio_parameters=1 - pruned / shape.parameters,
        intermediate_size=Change(shape.intermediate_size, spec.width),
        parameters=Change(shape.parameters, pruned),
        weight_bytes=Change(*files),
        structure=spec.structure,
        structures=Change(count_of(spec.structure, shape), spec.left),
        kv_bytes_per_token=shape.kv_bytes_per_token * kv_copies(shape.num_key_value_heads, gpus),
        pruned_kv_bytes_per_token=left,
        disk_bytes=dense * files[0] + (len(spec.arms) + len(spec.recovered) - dense) * files[1],
        scoring=scoring_place(spec),
        second_moments=second_moments(spec),
        recovery=recovery_cost(spec),
        cells=tuple(f"{name} x {task.name}" for name in spec.variants for task in spec.tasks),
        out=str(out or spec.default_out),
        seconds=estimated_seconds(spec),
        own_answers=generated_answers(spec),
    )


@dataclass(frozen=True)
class ScoreForecast:
    """What a scoring would do. `harness score --dry-run --json` prints these fields.

    Attributes:
        metrics: The requested ones; those that need only activations are always computed.
        prompts: Of the task and of others, at most.
        scoring: Where the model's weights are meanwhile.
        second_moments: None where no metric and no re-fitting needs them.
        out: The scores' file.
        own_answers: That the dense model gives to the prompts, at most.
    """

    model: str
    task: str
    metrics: tuple[str, ...]
    prompts: int
    scoring: Placement
    second_moments: SecondMoments | None
    out: str
    own_answers: int = 0


def forecast_score(spec: ResolvedRun, out: Path) -> ScoreForecast:
    """By formula from the model's config.json; refuses what the scoring would."""
    check_scores_file(out)
    check_data(spec, evaluated=False)
    if generated_answers(spec):
        check_grading(spec.target)
    samples, request = spec.calibration_request.samples, spec.score_request
    return ScoreForecast(
        model=spec.model,
        task=spec.target.name,
        metrics=request.metrics,
        prompts=3 * samples,
        scoring=placement_of(spec.shape, samples, request.needs),
        second_moments=second_moments(spec),
        out=str(out),
        own_answers=generated_answers(spec),
    )


def scoring_place(spec: ResolvedRun) -> Placement | None:
    """Where a scoring has the weights, or None; raises MeasurementError where it or a reconstruction has no room."""
    if not spec.arms:
        return None
    samples = spec.calibration_request.samples
    place = placement_of(spec.shape, samples, spec.score_request.needs)
    if spec.widths_searched:
        check_whole(spec.shape, probe_place(spec.shape, samples))
    if (spec.structure == "joint" and spec.config.reconstruct) or any(arm.request.reconstructed for arm in spec.arms):
        placement_of(spec.shape, samples, {"reconstruction"})
    return place


def generated_answers(spec: ResolvedRun) -> int:
    """The most answers that the dense model gives to calibration prompts before it is scored."""
    return 3 * spec.config.calibration_samples if spec.arms and spec.config.completions == "generated" else 0


def _refitted_inputs(spec: ResolvedRun) -> int:
    """Inputs of the output projection that is re-fitted: the FFN's, or the query heads'."""
    shape = spec.shape
    return shape.num_attention_heads * shape.head_dim if spec.structure == "kv_group" else shape.intermediate_size


def second_moments(spec: ResolvedRun) -> SecondMoments | None:
    """Of every layer; None where they are not measured."""
    if "second moments" not in spec.score_request.needs:
        return None
    layers, width = spec.shape.num_hidden_layers, _refitted_inputs(spec)
    return SecondMoments(disk_bytes=layers * layer_bytes(width), memory_bytes=layer_bytes(width))


def recovery_cost(spec: ResolvedRun) -> RecoveryForecast | None:
    """The cost of fine-tuning one variant; None where nothing is fine-tuned."""
    if not spec.recovered:
        return None
    defaults = defaults_of(spec)
    examples = available_examples(spec.config.recovery, defaults, spec.target)
    packed = -(-examples * _TOKENS_PER_PROMPT // spec.config.recovery.max_length)
    recipe = make_recipe(spec.config.recovery, defaults, packed if spec.config.recovery.packing else examples)
    record = read_record(Path(spec.config.model))  # of a model that was pruned before; the dense one teaches it
    expected = cost(spec.shape, recipe, _TOKENS_PER_PROMPT, record["dense_parameters"] if record else None)
    return RecoveryForecast(
        variants=len(spec.fine_tunings),
        tuning=recipe.tuning,
        examples=examples,
        memory_bytes=expected.memory_bytes,
        **asdict(expected),
    )


def estimated_seconds(spec: ResolvedRun, more_flops: float = 0.0) -> float | None:
    """Upper bound from 2 FLOPs per parameter and token: scoring forward, and every answer at its full length.

    Args:
        more_flops: Of what else the run does.

    Returns:
        Seconds at this CPU's matrix speed; None where a GPU would be used.
    """
    if on_gpu():
        return None
    scored = 3 * spec.config.calibration_samples * _TOKENS_PER_PROMPT if spec.arms else 0
    items = {task.name: spec.items_of(task) for task in spec.tasks}
    tokens = [items[task.name] * (task.max_new_tokens + _TOKENS_PER_PROMPT) for task in spec.tasks]
    answered = len(spec.variants) * sum(tokens) + len(spec.masks) * tokens[0]
    recovery = recovery_cost(spec)
    training = len(spec.fine_tunings) * recovery.flops if recovery else 0.0
    searched = sum(search_flops(spec.shape, arm.request) for arm in spec.arms if arm.request.allocation == "search")
    own = generated_answers(spec) * (spec.target.max_new_tokens + _TOKENS_PER_PROMPT)
    repaired = _second_moment_flops(spec) + _reconstruction_flops(spec)
    flops = 2 * spec.shape.parameters * (scored + answered + own) + repaired + searched + training
    return _START_SECONDS + (flops + more_flops) / flops_per_second()


def _second_moment_flops(spec: ResolvedRun) -> float:
    """H over the target's tokens takes 2 F^2 each, F the FFN width; in FP64, at half the speed, the inverse and the
    removal order take about 2 F^3, and so does a re-fit.
    """
    if "second moments" not in spec.score_request.needs:
        return 0.0
    width, tokens = _refitted_inputs(spec), spec.config.calibration_samples * _TOKENS_PER_PROMPT
    order = 2 * 2 * width**3 if OBS in spec.score_request.metrics else 0
    refits = sum(arm.request.compensated for arm in spec.arms)
    return spec.shape.num_hidden_layers * (2 * width**2 * tokens + order + refits * 2 * width**3)


def _reconstruction_flops(spec: ResolvedRun) -> float:
    """A layer's forward pass and its FFN's backward pass, twice the FFN's forward, over all tokens in each epoch."""
    shape, tokens = spec.shape, spec.config.calibration_samples * _TOKENS_PER_PROMPT
    arms = [arm.request for arm in spec.arms if arm.request.reconstructed]
    narrow = [shape.neuron_parameters * uniform_width(request, shape.intermediate_size) for request in arms]
    attention = shape.layer_parameters - shape.neuron_parameters * shape.intermediate_size
    return shape.num_hidden_layers * SCHEDULE.passes * tokens * sum(2 * attention + 6 * ffn for ffn in narrow)


def forecast_table(expected: Forecast) -> Table:
    """The forecast for a terminal."""
    width, parameters, weights = expected.intermediate_size, expected.parameters, expected.weight_bytes
    of, noun = expected.structures, STRUCTURES[expected.structure].noun.removeprefix("FFN ")
    asked, done = expected.ratio_requested, 1 - of.pruned / of.dense
    removed = f"doing {percent(done, 2)} of {noun}s, {percent(expected.ratio_parameters, 2)} of parameters"
    if not is_as_asked(asked, done) and expected.structure == "neuron":
        removed += f"; widths are multiples of {expected.alignment}, --align sets another"
    dense, pruned = (f"{mebibytes(size)} ({size:,} bytes)" for size in (weights.dense, weights.pruned))
    rows = (
        ("model", expected.model),
        ("FFN width", f"{width.dense} -> {width.pruned} in every layer (alignment {expected.alignment or 'none'})"),
        *([] if expected.structure == "neuron" else [(f"{noun}s", f"{of.dense} -> {of.pruned}{_where(expected)}")]),
        ("ratio", f"asked {percent(asked)}, {removed}"),
        ("parameters", f"{parameters.dense:,} -> {parameters.pruned:,}"),
        ("weights", f"{dense} -> {pruned}"),
        ("KV cache", _kv_text(expected)),
        ("disk needed", f"{mebibytes(expected.disk_bytes)} for checkpoints"),
        *([("scoring", expected.scoring.text)] if expected.scoring else []),
        *own_answer_rows(expected.own_answers),
        *second_moment_rows(expected.second_moments),
        *recovery_rows(expected.recovery),
        ("evaluations", ", ".join(expected.cells)),
        ("time", time_text(expected.seconds)),
        ("would write to", expected.out),
    )
    return Table("What this run would do", ("what", "value"), rows)


def _where(expected: Forecast) -> str:
    return " in every layer" if STRUCTURES[expected.structure].in_layers else ""


def _kv_text(expected: Forecast) -> str:
    dense, pruned = expected.kv_bytes_per_token, expected.pruned_kv_bytes_per_token
    if dense == pruned:
        return f"{dense:,} bytes per token, unchanged by pruning"
    return f"{dense:,} -> {pruned:,} bytes per token"


def score_table(expected: ScoreForecast) -> Table:
    """The forecast for a terminal."""
    rows = (
        ("model", expected.model),
        ("task", expected.task),
        ("metrics", ", ".join(expected.metrics) or "those of mean activations"),
        ("prompts", f"at most {expected.prompts:,}, a third of them of the task"),
        ("scoring", expected.scoring.text),
        *own_answer_rows(expected.own_answers),
        *second_moment_rows(expected.second_moments),
        ("would write", expected.out),
    )
    return Table("What this scoring would do", ("what", "value"), rows)


def own_answer_rows(count: int) -> list[tuple[str, str]]:
    """The row on the dense model's own answers in the table of a scoring, a run, a search or a sweep."""
    return [("own answers", f"at most {count:,} generated before the scoring")] if count else []


def second_moment_rows(moments: SecondMoments | None) -> list[tuple[str, str]]:
    """The row on second moments in the table of a scoring, a run, a search or a sweep."""
    if moments is None:
        return []
    sizes = f"{mebibytes(moments.disk_bytes)} temporary disk, {mebibytes(moments.memory_bytes)} in memory at a time"
    return [("second moments", sizes)]


def recovery_rows(recovery: RecoveryForecast | None) -> list[tuple[str, str]]:
    """The rows on fine-tuning in the table of a run or of a sweep."""
    if recovery is None:
        return []
    sizes = {
        "weights": recovery.weights_bytes,
        "gradient": recovery.gradient_bytes,
        "optimiser": recovery.optimiser_bytes,
        "activation": recovery.activation_bytes,
    }
    parts = ", ".join(f"{mebibytes(size)} {name}" for name, size in sizes.items())
    work = f"{count_text(recovery.steps, 'step')} and about {recovery.tokens:,} tokens each"
    return [
        ("fine-tuning", f"{count_text(recovery.variants, 'variant')}, tuning {recovery.tuning}, {work}"),
        ("trained parameters", f"{recovery.trained_parameters:,}"),
        ("memory for training", f"about {mebibytes(recovery.memory_bytes)}: {parts}"),
        ("disk for training", f"{mebibytes(recovery.disk_bytes)} temporary disk"),
    ]
