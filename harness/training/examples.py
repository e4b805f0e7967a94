"""Where training examples come from: a task, the model's own answers, a file, the Hub, or a mixture of these tasks."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from harness.config.recovery_settings import RecoveryConfig
from harness.config.settings import RunConfig
from harness.core.chat import prompt_ids
from harness.core.errors import UsageError
from harness.core.hashing import digest, file_hash
from harness.core.hub_ids import is_hub_id
from harness.core.types.calibration import Example
from harness.engine.engine_settings import engine_settings
from harness.engine.generate_answers import Sampling, generate_answers
from harness.models.tokenizer import load_chat
from harness.training.original import original_of
from pruning.checkpoint import ModelFolder
from recovery import data as training_data
from tasks import registry
from tasks.data import DATA_DIR, hub_rows, plain_texts
from tasks.grading import Grade, Grader
from tasks.lm_eval_files import manager_of
from tasks.mini_distractors import text_examples
from tasks.task import Task, TrainingItems

TEXT = "text"  # general text in a mixture
STEPS, BATCH, _MANY = 300, 16, 10_000  # _MANY: an endless stream counts as this many examples per epoch
_TEMPERATURE = 0.7
_Item = TypeVar("_Item")


@dataclass(frozen=True)
class Source:
    """Training examples of one kind.

    Attributes:
        name: A task of the mixture, or text; where there is no mixture, the data as the setting names it.
        origin: The data set, for people.
        plain: Whether they are texts without a prompt, which no chat template is put around.
    """

    name: str
    origin: str
    examples: Sequence[Example]
    plain: bool = False


def check_data(config: RecoveryConfig, chat: bool = True) -> None:
    """Raises UsageError for a file that cannot be used, and for a mixture that cannot be made."""
    if is_file(config.data):
        training_data.read_file(Path(config.data))
    if not config.mixture:
        return
    if config.data != "task":
        raise UsageError(f"--mixture and --data {config.data} both say what is trained on; give one")
    for task in mixture_tasks(config, chat):
        registry.training_items(task)
    few = [name for name, n in mixture_counts(config.mixture, wanted_examples(config)).items() if not n]
    if few:
        raise UsageError(
            f"--mixture leaves {', '.join(few)} not one of {wanted_examples(config)} examples; "
            "give a larger weight or more --samples"
        )


def mixture_tasks(config: RecoveryConfig, chat: bool = True) -> tuple[Task, ...]:
    """The tasks that are trained on together; raises UsageError for one that there is not."""
    return tuple(registry.find_task(name, chat) for name in config.mixture if name != TEXT)


def mixture_counts(weights: Mapping[str, float], total: int) -> dict[str, int]:
    """`total` examples divided by weight, rounded so that the sum is kept (largest remainders)."""
    exact = {name: total * weight / sum(weights.values()) for name, weight in weights.items()}
    counts = {name: int(share) for name, share in exact.items()}
    largest = sorted(exact, key=lambda name: counts[name] - exact[name])
    return {name: n + (name in largest[: total - sum(counts.values())]) for name, n in counts.items()}


def is_file(data: str) -> bool:
    """Anything but our two words and a Hub id such as org/name."""
    return data not in ("task", "generated") and not is_hub_id(data)


def rows_hash(config: RecoveryConfig, paper: bool) -> str:
    """What the training rows depend on, beside model, tasks and seed."""
    chosen = config.model_dump(include={"data", "mixture", "steps", "epochs", "samples", "batch", "max_length"})
    return digest([chosen, paper, file_hash(Path(config.data)) if is_file(config.data) else None])


def wanted_examples(config: RecoveryConfig) -> int:
    """What the steps need, or where epochs are asked for all that there are."""
    return config.samples or (_MANY if config.epochs else (config.steps or STEPS) * (config.batch or BATCH))


def training_sources(
    model: ModelFolder, task: Task, config: RecoveryConfig, seed: int, run: RunConfig, paper: bool
) -> tuple[Source, ...]:
    """As many examples as are wanted, of the data that `config` names or of its mixture. `paper`: see
    `training_items`.
    """
    if config.mixture:
        chat = load_chat(model, run.template_args)[1] is not None
        counts = mixture_counts(config.mixture, wanted_examples(config))
        return tuple(_part(name, n, seed, chat) for name, n in counts.items())
    return (Source(config.data, *_examples(model, task, config, seed, run, paper)),)


def _part(name: str, n: int, seed: int, chat: bool) -> Source:
    if name == TEXT:
        return Source(name, *_repeated(_general_texts, n, seed), plain=True)
    training = registry.training_items(registry.find_task(name, chat))
    origin, documents = _repeated(training.documents, n, seed)
    return Source(name, origin, [training.example(doc) for doc in documents])


def _general_texts(n: int, seed: int) -> tuple[str, list[Example]]:
    """WikiText's paragraphs that are not evaluated; the embedded texts where no data folder is given."""
    if not os.environ.get(DATA_DIR):
        return "mini_texts (train)", text_examples(n, seed)
    names, examples = plain_texts(n, seed)
    return " and ".join(names), examples


def _repeated(draw: Callable[[int, int], tuple[str, list[_Item]]], n: int, seed: int) -> tuple[str, list[_Item]]:
    """`n` items; a source that has fewer gives them again, in another order each time."""
    origin, items = draw(n, seed)
    while items and len(items) < n:
        seed += 1
        items = [*items, *draw(n - len(items), seed)[1]]
    return origin, items


def _examples(
    model: ModelFolder, task: Task, config: RecoveryConfig, seed: int, run: RunConfig, paper: bool
) -> tuple[str, list[Example]]:
    """Where they come from, and as many as are wanted."""
    wanted = wanted_examples(config)
    if config.data not in ("task", "generated"):
        local = is_file(config.data)
        rows = training_data.read_file(Path(config.data)) if local else _hub_examples(config.data)
        n = config.samples or (len(rows) if config.epochs else wanted)
        chosen = random.Random(seed).sample(rows, min(n, len(rows)))
        source = Path(config.data).name if local else config.data
        return f"{source}, {len(chosen)} of {len(rows)} rows", chosen
    training = training_items(task, config.data, paper)
    source, documents = training.documents(wanted, seed)
    examples = [training.example(doc) for doc in documents]
    if config.data == "task":
        return source, examples
    if task.grade is None:
        raise UsageError(f"{task.name} scores texts, so no answers can be generated for it; use --data task")
    own = _own_answers(original_of(model), task, task.grade, documents, examples, run)
    if not own:
        raise UsageError(f"the dense model answered none of {len(examples)} items of {source} right; use --data task")
    return f"{source}, {len(own)} of {len(examples)} answered right by the dense model itself", own


def training_items(task: Task, data: str, paper: bool) -> TrainingItems:
    """The task's, or the paper's of it; for generated answers the task's, which ask as the evaluation does."""
    found = registry.training_items(task)
    return found.paper if paper and data == "task" and found.paper else found


def _hub_examples(name: str) -> list[Example]:
    rows = hub_rows(name, None, "train")
    return [training_data.pair(row, f"{name}, row {number}") for number, row in enumerate(rows, 1)]


def _own_answers(
    model: ModelFolder,
    task: Task,
    grade: Grade,
    documents: Sequence[dict[str, Any]],
    examples: Sequence[Example],
    run: RunConfig,
) -> list[Example]:
    """Sampled once by the dense model, right ones only."""
    tokenizer, chat = load_chat(model, run.template_args)
    prompts = {i: prompt_ids(tokenizer, example, chat) for i, example in enumerate(examples)}
    sampling = Sampling(task.max_new_tokens, _TEMPERATURE, run.seed, _stops(task), chat)
    found = generate_answers(model, prompts, sampling, engine_settings(run))
    with Grader() as grader:
        coming = {i: grader.submit(grade, documents[i], text) for i, text in found.items()}
        right = [
            i for i, verdict in coming.items() if verdict.result().correct and found[i].meta["finish_reason"] == "stop"
        ]
    return [replace(examples[i], answer=found[i].written) for i in right]


def _stops(task: Task) -> list[str]:
    """The strings at which the evaluation ends an answer."""
    settings = manager_of(task.folder).load([task.name])["tasks"][task.name].config.generation_kwargs or {}
    return list(settings.get("until", ()))
