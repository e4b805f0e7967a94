"""A checkpoint with a smaller vocabulary: which entries the task needs, and how much longer texts get without the
others.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from harness.config.settings import RunConfig
from harness.core.chat import ChatFormat
from harness.core.errors import UsageError
from harness.core.jsonl import numbered_rows
from harness.core.progress import progress_bar, say
from harness.core.text import well_formed
from harness.core.types.arrays import IndexArray
from harness.core.types.calibration import Example
from harness.core.types.pruning import PredictedCheckpoint, PruningPlan
from harness.core.written_folder import check_replaceable
from harness.engine.memory_budget import EngineSettings
from harness.evaluation.verify_export import Verification
from harness.models import registry
from harness.models.tokenizer import load_chat
from harness.pipeline.named_tasks import check_metric_choices, named_task, task_names
from harness.pipeline.prune import write_checkpoint
from pruning.calibration import calibration_items
from pruning.checkpoint import ModelFolder
from pruning.export import check_export, predict_size, replaceable
from pruning.plan_file import load_plan
from pruning.vocabulary import ROWS, choose_tokens, occurrences, padded, trimmed
from pruning.vocabulary_files import read_tokenizer, required_rows
from tasks.registry import CALIBRATION_SEED, calibration, distractors
from tasks.task import Task

_TEXTS = 4000  # of each kind, at most
_HELD_OUT = 5  # every fifth text is left for the comparison
Texts = Sequence[Sequence[int]]  # as token ids of the whole vocabulary


@dataclass(frozen=True)
class VocabularyRequest:
    """What to trim.

    Attributes:
        size: Entries that stay, rounded up to a multiple of 64.
        texts: JSON Lines files with a `text`, and a `prompt` before it where there is one, such as sample files of a
            run: further texts of the task.
        plan_file: A plan for the model's FFN neurons that is carried out as well.
    """

    size: int
    texts: tuple[Path, ...] = ()
    plan_file: Path | None = None


@dataclass(frozen=True)
class TokensPerText:
    """Mean tokens of texts that were not counted for the choice, with the whole vocabulary and with what stays."""

    texts: int
    before: float
    after: float


@dataclass(frozen=True)
class TrimmedVocabulary:
    """A vocabulary that was trimmed, or on a dry run would be.

    Attributes:
        vocabulary: Rows of the embedding before and after.
        parameters: Of the model before and after.
        weight_bytes: Of its weight files before and after.
        tokens_per_text: By what the texts are: task, general.
        made: The checkpoint, or its sizes on a dry run.
    """

    vocabulary: tuple[int, int]
    parameters: tuple[int, int]
    weight_bytes: tuple[int, int]
    tokens_per_text: Mapping[str, TokensPerText]
    made: ModelFolder | PredictedCheckpoint
    verified: Verification | None = None


def trim_vocabulary(
    config: RunConfig,
    request: VocabularyRequest,
    out: Path,
    dry_run: bool = False,
    verify_by: EngineSettings | None = None,
) -> TrimmedVocabulary:
    """Writes the checkpoint of a model that keeps the entries of the vocabulary which its tasks need.

    Args:
        config: The model, the tasks, and variables of the chat template.
        request: How many entries stay.
        out: The folder to write.
        dry_run: Write nothing; the sizes are those that the files would have, to the byte.
        verify_by: As in `prune`.

    Raises:
        UsageError: The size cannot be, the plan is another model's, or a file of texts cannot be read.
        UnsupportedModelError: The tokenizer is no byte-level BPE.
        MeasurementError: Logits or tokens differ by more than rounding.
    """
    check_replaceable(out, replaceable())
    check_metric_choices(config)
    model = registry.locate(config.model, named_task(config, task_names(config)[0]).kind)
    tokenizer, chat = load_chat(model, config.template_args)
    tasks = [named_task(config, name, chat is not None) for name in task_names(config)]
    check_size(model, request.size)
    if padded(request.size) != request.size:
        say(f"{request.size} entries are rounded up to {padded(request.size)}, a multiple of {ROWS}")
    plan = load_plan(request.plan_file) if request.plan_file else _nothing_removed(model, config.model, tasks[0])
    check_export(model, plan, out, plan.path)
    more = [ids for path in request.texts for ids in _of_file(tokenizer, path)]
    keep, lengths = needed_entries(model, (tokenizer, chat), tasks, request.size, more)
    plan = replace(plan, vocabulary=keep, vocab_size=model.shape.vocab_size)
    if dry_run:
        check_export(model, plan, out, plan.path)
    made, verified = (predict_size(model, plan), None) if dry_run else write_checkpoint(model, plan, out, verify_by)
    return TrimmedVocabulary(
        vocabulary=(model.shape.vocab_size, len(keep)),
        parameters=(model.parameters, made.parameters),
        weight_bytes=(model.weight_bytes, made.weight_bytes),
        tokens_per_text=lengths,
        made=made,
        verified=verified,
    )


def check_size(model: ModelFolder, size: int) -> None:
    """Raises UsageError for a size that cannot be, and UnsupportedModelError for a tokenizer that cannot be trimmed."""
    _chosen(model, read_tokenizer(model), (), size)


def needed_entries(
    model: ModelFolder,
    reading: tuple[Any, ChatFormat | None],
    tasks: Sequence[Task],
    size: int,
    more: Texts = (),
    others: Sequence[Task] = (),
) -> tuple[IndexArray, dict[str, TokensPerText]]:
    """The entries of a vocabulary that tasks need most, and what texts that were not counted cost with them.

    Args:
        model: The whole model.
        reading: Its tokenizer and its chat template, from `load_chat`.
        tasks: Their training texts decide.
        size: Entries that stay, rounded up to a multiple of 64.
        more: Further texts of the tasks.
        others: Tasks that decide after these, together with general text.

    Returns:
        The rows of the embedding that stay, sorted, and the tokens per text by what the texts are: task, general.
    """
    file, groups = read_tokenizer(model), _texts(model, *reading, tasks, others)
    counted = {name: [ids for i, ids in enumerate(texts) if i % _HELD_OUT] for name, texts in groups.items()}
    counts = [occurrences([*counted["task"], *more]), occurrences(counted["general"])]
    keep = _chosen(model, file, counts, size)
    return keep, {name: _lengths(file, keep, texts[::_HELD_OUT]) for name, texts in groups.items()}


def _nothing_removed(model: ModelFolder, name: str, task: Task) -> PruningPlan:
    """A plan that keeps all neurons."""
    shape, identity = model.shape, registry.model_id(name, task.kind)
    return PruningPlan(
        keep=(np.arange(shape.intermediate_size, dtype=np.int32),) * shape.num_hidden_layers,
        intermediate_size=shape.intermediate_size,
        method="chosen",
        metric=None,
        ratio=0.0,
        seed=0,
        alignment=1,
        model=identity,
        model_hash=model.fingerprint,
        scores_hash="",
        tokens="all",
        model_kind=registry.model_kind(identity),
    )


def _texts(
    model: ModelFolder, tokenizer: Any, chat: ChatFormat | None, tasks: Sequence[Task], others: Sequence[Task]
) -> dict[str, Texts]:
    """Training texts of the tasks as the evaluation puts them, with their answers, and general ones."""
    own, theirs = (
        [example for task in each for example in calibration(task, _TEXTS, CALIBRATION_SEED)[1]]
        for each in (tasks, others)
    )
    general = [*theirs, *distractors(tasks[0], _TEXTS, CALIBRATION_SEED)[1]]
    context = model.shape.max_position_embeddings

    def tokenised(examples: Sequence[Example]) -> Texts:
        items = calibration_items(tokenizer, examples, True, "all", chat, context)
        return [item.token_ids for item in items]

    with progress_bar(f"Reading {len(own)} texts of {', '.join(task.name for task in tasks)}, {len(general)} others"):
        return {"task": tokenised(own), "general": tokenised(general)}


def _of_file(tokenizer: Any, path: Path) -> Iterator[list[int]]:
    for number, row in numbered_rows(path):
        prompt, text = row.get("prompt") or "", row.get("text")
        if not isinstance(text, str) or not isinstance(prompt, str):
            raise UsageError(f"{path}, line {number} has no `text`; each line needs one, and may have a `prompt`")
        yield list(tokenizer(well_formed(prompt + text), add_special_tokens=False)["input_ids"])


def _chosen(model: ModelFolder, tokenizer: Mapping[str, Any], counts: Sequence[Counter[int]], size: int) -> IndexArray:
    required = required_rows(model, tokenizer)
    return choose_tokens(tokenizer, counts, padded(size), model.shape.vocab_size, required)


def _lengths(tokenizer: Mapping[str, Any], keep: IndexArray, texts: Texts) -> TokensPerText:
    """Of texts as ids of the whole vocabulary."""
    whole, less = map(_encoder, (tokenizer, trimmed(tokenizer, keep)))
    written = whole.decode_batch([list(ids) for ids in texts], skip_special_tokens=False)
    before, after = (_mean_tokens(each, written) for each in (whole, less))
    return TokensPerText(len(texts), before, after)


def _encoder(tokenizer: Mapping[str, Any]) -> Any:
    """Of texts as they are, though the file may say to pad or to cut them."""
    from tokenizers import Tokenizer

    found = Tokenizer.from_str(json.dumps(tokenizer))
    found.no_padding()
    found.no_truncation()
    return found


def _mean_tokens(tokenizer: Any, texts: Sequence[str]) -> float:
    return float(np.mean([len(found.ids) for found in tokenizer.encode_batch(texts, add_special_tokens=False)]))
