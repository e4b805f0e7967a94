"""Recovery of one checkpoint: what it is trained on, by which recipe, and the plain checkpoint that comes out."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from harness.config.recovery_settings import RecoveryConfig
from harness.config.settings import RunConfig
from harness.config.yaml_file import read_yaml
from harness.core.bounded_read import read_json_object, read_text
from harness.core.chat import ChatFormat
from harness.core.errors import MeasurementError, UsageError
from harness.core.files import check_disk, write_json, write_text
from harness.core.jsonl import write_rows
from harness.core.memory import available_bytes
from harness.core.progress import progress_bar, say
from harness.core.text import size_text
from harness.core.types.evaluation import EvalResult
from harness.core.types.pruning import ModelShape
from harness.core.written_folder import Replaceable, written_folder
from harness.engine.devices import gpus, half_dtype
from harness.models.tokenizer import load_chat
from harness.training.examples import (
    BATCH,
    STEPS,
    Source,
    check_data,
    mixture_tasks,
    rows_hash,
    training_items,
    training_sources,
    wanted_examples,
)
from harness.training.launch import run_job
from pruning.checkpoint import ModelFolder, open_model
from pruning.families import FAMILIES, check_trainable
from pruning.record import RECOVERED, read_recovery
from pruning.side_files import copy_own_files, copy_side_files, is_ours
from recovery import data as training_data
from recovery import recipe as recipes
from recovery import trainer
from recovery.card import recovered_card
from recovery.cost import Cost, cost
from recovery.data import TrainingData, end_of_answer
from recovery.merge import merge
from recovery.recipe import Recipe
from recovery.trainer import Job
from tasks import registry
from tasks.task import Task

CURVE_ITEMS = 200
_FAST_FROM = 50_000_000  # parameters from which BF16 is faster than FP32 on a CPU that has it
_LOSS_POINTS = 200
_CURVE = ("n", "value", "ci_low", "ci_high", "failure_rate")
_SUMMARY = "summary.json"


@dataclass(frozen=True)
class Defaults:
    """What the default settings depend on: model size, kind of task, preset."""

    shape: ModelShape
    kind: str
    preset: str | None
    seed: int

    def fill(self, config: RecoveryConfig) -> RecoveryConfig:
        """The preset's settings where none were given; steps that were asked for take the place of its epochs."""
        if self.preset != "paper":
            return config
        paper = dict(recipes.PAPER.get(self.kind, recipes.PAPER["math"]))
        if config.steps:
            paper.pop("epochs")
        return config.model_copy(update={key: value for key, value in paper.items() if getattr(config, key) is None})


def check_dependencies(config: RecoveryConfig, defaults: Defaults, task: Task) -> None:
    """Raises UsageError for a missing package or file and for settings that do not go together, before any work is
    done.
    """
    needed = ["trl", "peft", *([config.report_to] if config.report_to else [])]
    missing = [name for name in needed if not importlib.util.find_spec(name)]
    if missing:
        raise UsageError(f"recovery needs {' and '.join(missing)}; run `pip install {' '.join(missing)}`")
    if config.steps and config.epochs:
        raise UsageError("--steps and --epochs say the same in two ways; give one")
    check_files(config)
    make_recipe(config, defaults, available_examples(config, defaults, task))


def check_files(config: RecoveryConfig) -> None:
    """Raises UsageError for a file of training items or of accelerate's settings that cannot be used."""
    if config.accelerate_config and not config.accelerate_config.exists():
        raise UsageError(
            f"{config.accelerate_config} does not exist; give --accelerate-config a file that accelerate reads"
        )
    read_yaml(config.accelerate_config)
    check_data(config)


def data_hash(config: RecoveryConfig, defaults: Defaults) -> str:
    """What the training rows depend on, beside model, tasks and seed."""
    return rows_hash(defaults.fill(config), _is_paper(config, defaults))


def _is_paper(config: RecoveryConfig, defaults: Defaults) -> bool:
    """Whether the paper's items and its frame are trained on."""
    return defaults.preset == "paper" and not config.mixture


def gather(
    model: ModelFolder, tasks: Sequence[Task], config: RecoveryConfig, defaults: Defaults, folder: Path, run: RunConfig
) -> None:
    """Writes the rows that are trained on and a summary of them; no item of a test split may be among them."""
    config = defaults.fill(config)
    tokenizer, chat = load_chat(model, run.template_args)
    paper = _is_paper(config, defaults)
    with progress_bar(f"Gathering training data ({', '.join(config.mixture) or config.data})"):
        sources = training_sources(model, tasks[0], config, defaults.seed, run, paper)
        tested = set[str]().union(
            *(registry.evaluated_questions(task) for task in {*tasks, *mixture_tasks(config, chat is not None)})
        )
        for source in sources:
            training_data.check_no_overlap(source.examples, tested, source.origin)
        if paper:
            sources, chat = tuple(_under_headings(source, defaults.kind) for source in sources), None
        longest = min(config.max_length, model.shape.max_position_embeddings)
        parts = [_rows(source, tokenizer, chat, longest) for source in sources]
    found = training_data.mixed(parts, defaults.seed) if config.mixture else parts[0]
    names = [source.name for source in sources]
    told = [{"name": name, "source": part.source, **_sizes(part)} for name, part in zip(names, parts, strict=True)]
    with written_folder(folder, Replaceable(_SUMMARY, _is_training_data, True)) as scratch:
        write_rows(scratch / training_data.FILE, found.rows)
        summary = {"source": found.source, **_sizes(found), "end_token": found.end_token, "parts": told}
        write_json(scratch / _SUMMARY, summary)


def _rows(source: Source, tokenizer: Any, chat: ChatFormat | None, longest: int) -> TrainingData:
    if not source.plain:
        return training_data.build(source.origin, source.examples, tokenizer, chat, longest)
    texts = [example.answer for example in source.examples]
    return training_data.build_texts(source.origin, texts, tokenizer, end_of_answer(tokenizer, chat)[-1], longest)


def _sizes(data: TrainingData) -> dict[str, int]:
    return {
        "examples": len(data.rows),
        "tokens": data.tokens,
        "answer_tokens": data.answer_tokens,
        "left_out": data.left_out,
    }


def _is_training_data(_folder: Path, name: str) -> bool:
    return name in (training_data.FILE, _SUMMARY)


def _under_headings(source: Source, kind: str) -> Source:
    """In the frame of the paper's training, without a chat template."""
    return replace(source, examples=[training_data.under_headings(example, kind) for example in source.examples])


def available_examples(config: RecoveryConfig, defaults: Defaults, task: Task) -> int:
    """How many there will be, at most, without the data at hand."""
    wanted = wanted_examples(defaults.fill(config))
    if config.mixture or config.data not in ("task", "generated"):
        return wanted
    return min(wanted, training_items(task, config.data, _is_paper(config, defaults)).items or wanted)


def make_recipe(config: RecoveryConfig, defaults: Defaults, examples: int) -> Recipe:
    """The recipe for this number of examples; raises UsageError for settings that contradict each other."""
    check_trainable(FAMILIES[defaults.shape.model_type])
    config, parameters = defaults.fill(config), defaults.shape.parameters
    tuning = config.tuning or recipes.default_tuning(parameters)
    batch = config.batch or BATCH
    processes = config.processes or recipes.default_processes(batch, config.micro_batch, gpus())
    checkpointing = config.gradient_checkpointing
    return recipes.check(
        Recipe(
            tuning=tuning,
            learning_rate=config.learning_rate or recipes.default_learning_rate(tuning, parameters),
            steps=config.steps or (recipes.steps_of(config.epochs, examples, batch) if config.epochs else STEPS),
            batch=batch,
            micro_batch=config.micro_batch or recipes.default_micro_batch(batch, processes, parameters),
            max_length=config.max_length,
            lora_rank=config.lora_rank,
            lora_alpha=config.lora_alpha,
            lora_dropout=0.05 if config.lora_dropout is None else config.lora_dropout,
            distill=config.distill,
            packing=config.packing,
            gradient_checkpointing=parameters > recipes.SMALL if checkpointing is None else checkpointing,
            precision=_precision(parameters),
            curve=config.curve,
            seed=defaults.seed,
            processes=processes,
            report_to=config.report_to,
            **(recipes.PAPER_SCHEDULE if defaults.preset == "paper" else {}),
        )
    )


def recipe_for(config: RecoveryConfig, defaults: Defaults, data: Path) -> Recipe:
    """For the rows in the folder `data`; packed, several count as one."""
    summary = summary_of(data)
    packed = -(-summary["tokens"] // config.max_length)
    return make_recipe(config, defaults, packed if config.packing else summary["examples"])


def summary_of(data: Path) -> dict[str, Any]:
    return read_json_object(data / _SUMMARY)


def _precision(parameters: int) -> Any:
    """16 bits on GPUs, BF16 where they have it; BF16 for all but small models on CPUs with instructions for it; FP32
    elsewhere.
    """
    import torch

    if torch.cuda.is_available():
        return half_dtype()
    cpu = Path("/proc/cpuinfo")
    flags = cpu.read_text(encoding="utf-8") if cpu.exists() else ""
    fast = "amx_bf16" in flags or "avx512_bf16" in flags
    return "bfloat16" if fast and parameters >= _FAST_FROM else "float32"


def recover(job: Job, before: ModelFolder, out: Path, run: RunConfig, inputs: str) -> None:
    """Trains and writes the merged checkpoint to `out`; training.json in the job's folder says how it went.

    inputs: a hash of all that the training depends on, by which a killed one is resumed.
    """
    summary = summary_of(job.data)
    trainer.discard_stale_checkpoints(job, inputs)
    expected = expected_cost(job, before)
    _announce(job, expected)
    check_room(job, expected)
    state = run_job(job, run.threads, run.recovery.accelerate_config)
    record = {
        **asdict(job.recipe),
        "source": summary["source"],
        "examples": summary["examples"],
        "end_token": summary["end_token"],
    }
    with progress_bar(f"Merging into {out.name}"):
        write_checkpoint(before, state, out, record)
    history = trainer.history(state)
    told = {key: value for key, value in summary.items() if key != "end_token"}
    cost_told = {**asdict(expected), "memory_bytes": expected.memory_bytes}
    spent = {"steps": job.recipe.steps, "seconds": trainer.seconds(job), "tokens": history[-1]["num_input_tokens_seen"]}
    found = {**told, **spent, "recipe": asdict(job.recipe), "expected": cost_told, "loss": _thinned(history)}
    write_json(job.folder / "training.json", found)


def expected_cost(job: Job, before: ModelFolder) -> Cost:
    """Of training `before` on the job's rows, with the job's teacher."""
    summary = summary_of(job.data)
    teacher = open_model(job.teacher).parameters if job.teacher else None
    return cost(before.shape, job.recipe, summary["tokens"] / summary["examples"], teacher)


def _announce(job: Job, expected: Cost) -> None:
    names = ("weights", "gradient", "optimiser", "activation", "disk")
    sizes = {name: size_text(getattr(expected, f"{name}_bytes")) for name in names}
    say(
        f"{job.folder.name}: {job.recipe.tuning} fine-tuning, {expected.tokens:,} tokens in {expected.steps} steps, "
        f"{expected.trained_parameters:,} trained parameters; about "
        f"{sizes['weights']} weights, {sizes['gradient']} gradients, "
        f"{sizes['optimiser']} optimiser, {sizes['activation']} activations, {sizes['disk']} disk"
    )


def check_room(job: Job, expected: Cost) -> None:
    """Raises MeasurementError where memory, StorageError where the disk will not do."""
    import torch

    check_disk(job.folder, expected.disk_bytes)
    count = max(1, gpus())
    free = (
        sum(torch.cuda.mem_get_info(device)[0] for device in range(count))
        if torch.cuda.is_available()
        else available_bytes()
    )
    if expected.memory_bytes > free:
        lower = (
            "--tuning lora" if job.recipe.tuning == "full" else "--gradient-checkpointing or a smaller --micro-batch"
        )
        raise MeasurementError(
            f"training {job.folder.name} needs about {size_text(expected.memory_bytes)} "
            f"and {size_text(free)} are free; "
            f"give {lower}, or use a larger machine"
        )


def write_checkpoint(before: ModelFolder, state: Path, out: Path, record: dict[str, Any]) -> ModelFolder:
    """Writes a checkpoint like `before` with the trained weights of `state` to `out`, completely or not at all."""
    with written_folder(out, Replaceable(RECOVERED, is_ours, repair=True)) as scratch:
        copy_side_files(before, scratch)
        copy_own_files(before.path, scratch)
        merge([shard.path for shard in before.shards], state, scratch)
        earlier = read_recovery(before.path)
        write_json(scratch / RECOVERED, {**record, "before": earlier} if earlier else record)
        _stop_at(scratch, before.config, record["end_token"])
        card = before.path / "README.md"
        write_text(scratch / "README.md", recovered_card(read_text(card) if card.exists() else "", record))
    return open_model(out)


def _stop_at(checkpoint: Path, config: Mapping[str, Any], end_token: int) -> None:
    """The engine must stop where the model was taught to end an answer."""
    file = checkpoint / "generation_config.json"
    settings = read_json_object(file) if file.exists() else {}
    known = settings.get("eos_token_id", config.get("eos_token_id"))
    stops = known if isinstance(known, list) else [known] if known is not None else []
    if end_token not in stops:
        write_json(file, {**settings, "eos_token_id": [*stops, end_token]})


def curve(job: Job, before: ModelFolder, evaluate: Callable[[ModelFolder, int], EvalResult]) -> list[dict[str, Any]]:
    """What `evaluate` measures of the states between, each written as a checkpoint and removed afterwards."""
    points = []
    for state in trainer.states(job):
        step = trainer.step_of(state)
        if step in job.recipe.curve_steps:
            folder = job.folder / f"step-{step}"
            shutil.rmtree(folder, ignore_errors=True)
            record = {"steps": step, "end_token": summary_of(job.data)["end_token"]}
            found = asdict(evaluate(write_checkpoint(before, state, folder, record), step))
            shutil.rmtree(folder)
            tokens = trainer.history(state)[-1]["num_input_tokens_seen"]
            points.append({"step": step, "tokens": tokens, **{key: found[key] for key in _CURVE}})
    return points


def _thinned(history: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """At most 200 points: means of loss and gradient norm over as many steps each."""
    size = -(-len(history) // _LOSS_POINTS)
    blocks = [history[i : i + size] for i in range(0, len(history), size)]
    return [
        {
            "step": block[-1]["step"],
            "tokens": block[-1]["num_input_tokens_seen"],
            "loss": sum(e["loss"] for e in block) / len(block),
            "grad_norm": sum(e["grad_norm"] for e in block) / len(block),
            "learning_rate": block[-1]["learning_rate"],
        }
        for block in blocks
    ]
