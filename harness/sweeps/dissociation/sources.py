"""The prompts that neurons are contrasted on: each task's own, general text, and each task's own with its words
shuffled. The statistics of each are measured once; S of any target against any others follows from them.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from harness.core.chat import ChatFormat
from harness.core.errors import UsageError
from harness.core.progress import progress_bar
from harness.core.types.arrays import FloatArray
from harness.core.types.calibration import CalibrationItem, CalibrationSet, Example
from harness.core.types.pruning import GroupStats
from harness.models.registry import model_kind
from harness.models.tokenizer import load_tokenizer
from harness.pipeline.scoring import CalibrationRequest, open_source
from pruning.calibration import calibration_items
from pruning.checkpoint import ModelFolder
from pruning.collect import collect
from pruning.precision import ieee_products
from tasks import registry
from tasks.registry import CALIBRATION_SEED
from tasks.task import Task

GENERAL = "general text"
_WORDS = re.compile(r"\S+")


@dataclass(frozen=True)
class Statistics:
    """What was measured of one draw of prompts: source -> its statistics, and the norms of down_proj's columns."""

    groups: Mapping[str, GroupStats]
    down_norm: FloatArray


def shuffled_name(task: str) -> str:
    """The source with the task's prompts in shuffled words."""
    return f"{task}, words shuffled"


def examples(tasks: Sequence[Task], samples: int, number: int) -> dict[str, list[Example]]:
    """Source -> up to `samples` prompts; the tasks first, then general text.

    Args:
        number: Of the draw, from 0; 0 is the one that `harness score` makes.

    Raises:
        UsageError: A task has no calibration prompts, or none of them has general text among its distractors.
    """
    seed = CALIBRATION_SEED + number
    found = {task.name: registry.calibration(task, samples, seed)[1] for task in tasks}
    return {**found, GENERAL: _general(tasks, samples, seed)}


def shuffled(sources: Mapping[str, Sequence[Example]], tasks: Sequence[str]) -> dict[str, list[Example]]:
    """Source -> the prompts of each task with their words shuffled."""
    return {shuffled_name(task): [_shuffled(example) for example in sources[task]] for task in tasks}


def _general(tasks: Sequence[Task], samples: int, seed: int) -> list[Example]:
    """The distractors without a question, which are plain texts."""
    for task in tasks:
        if texts := [e for e in registry.distractors(task, 3 * samples, seed)[1] if not e.prompt][:samples]:
            return texts
    names = ", ".join(task.name for task in tasks)
    raise UsageError(f"no task of {names} has plain text among its distractors; add one that has, such as gsm8k")


def _shuffled(example: Example) -> Example:
    """The same words, numbers and line breaks, in random order within the question and within the answer."""
    rng = random.Random(f"{example.prompt}\n{example.answer}")
    return replace(example, prompt=_reordered(example.prompt, rng), answer=_reordered(example.answer, rng))


def _reordered(text: str, rng: random.Random) -> str:
    words = _WORDS.findall(text)
    rng.shuffle(words)
    left = iter(words)
    return _WORDS.sub(lambda _: next(left), text)


def tokenised(
    model: ModelFolder,
    name: str,
    sources: Mapping[str, Sequence[Example]],
    request: CalibrationRequest,
    chat: ChatFormat | None,
) -> dict[str, CalibrationSet]:
    """Source -> its prompts as a calibration set of one group, in the format of the evaluation or plain.

    Raises:
        UsageError: No prompt of a source has one of the tokens that are scored.
    """
    tokenizer, context = load_tokenizer(model), model.shape.max_position_embeddings
    found = {}
    for source, own in sources.items():
        if request.plain:
            own, chat = [replace(example, system="", shots=()) for example in own], None
        items = calibration_items(tokenizer, own, True, request.tokens, chat, context)
        if not items:
            raise UsageError(f"no prompt of {source} has {request.tokens} tokens; choose another --score-tokens")
        found[source] = CalibrationSet(
            name, model.fingerprint, source, (), request.tokens, tuple(items), model_kind(name)
        )
    return found


def measure(model: ModelFolder, sources: Mapping[str, CalibrationSet], threads: int | None, title: str) -> Statistics:
    """Takes the prompts of every source through the dense model."""
    groups: dict[str, GroupStats] = {}
    items: tuple[CalibrationItem, ...] = sum((one.items for one in sources.values()), ())
    with ieee_products():
        source = open_source(model, replace(next(iter(sources.values())), items=items), threads=threads)
        with progress_bar(title, len(sources) * len(model.widths)) as advance:
            for name, calibration in sources.items():
                stats = collect(source, calibration, progress=advance)
                groups[name] = stats.target
    return Statistics(groups, stats.down_norm)
