"""Any task of lm-eval as a `Task`: its YAML asks and grades, and its items for training, for few-shot prompts or for
validation are what a model is scored for and trained on, never those that are evaluated.
"""

from __future__ import annotations

import functools
import json
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from harness.core.bounded_read import is_count
from harness.core.errors import HarnessError, UsageError, first_line
from harness.core.hashing import digest
from harness.core.hub import only_cache_without_hub
from harness.core.progress import say
from harness.core.types.calibration import Example
from harness.core.types.evaluation import LIKELIHOOD_METRICS, MEAN
from tasks.data import general_prompts
from tasks.failures import GradedAnswer
from tasks.grading import Document
from tasks.lm_eval_files import check_files, content_hash, manager_of, own_files
from tasks.lm_eval_metric import chosen_metric, is_right_or_wrong, value_of
from tasks.lm_eval_prompts import check_columns, item_text, pair, shot_count, words, worked_examples
from tasks.splits import sample
from tasks.task import Distractors, Task, TrainingItems

_LONGEST_NAME = 200  # bytes, of the 255 of a file's name
_LONGEST_ANSWER = 256  # tokens, where a task does not say
_MOST_TOKENS = 1 << 24
_LONGEST_PROMPT = 3072  # tokens; few-shot prompts are long
_INVALID = "[invalid]"  # what lm-eval's filters give where they find no answer
_TEMPLATES = ("doc_to_text", "doc_to_target", "doc_to_choice")


@dataclass(frozen=True)
class Source:
    """Where a task comes from.

    Attributes:
        name: As in its YAML file.
        folder: Holds that file.
        files: A hash of the file and of what it uses.
        metric: The figure that counts; `filter`: the reading of the answers that it is taken of.
        chat: Whether prompts are put into a chat template, where answers begin without a delimiter.
    """

    name: str
    folder: Path
    files: str
    metric: str = ""
    filter: str = ""
    chat: bool = True


def names(include_path: Path | None) -> Mapping[str, Path]:
    """Name -> YAML file of every task, group and tag of lm-eval, and of those in the folder `include_path`, which come
    first.

    Raises:
        UsageError: A file of that folder cannot be read.
    """
    if include_path is None:
        return own_files()
    check_files(include_path)
    index = manager_of(include_path).task_index
    return {**own_files(), **{name: entry.yaml_path for name, entry in index.items() if entry.yaml_path}}


def metric_choices(texts: Sequence[str]) -> dict[str, tuple[str, str | None]]:
    """The values of --metric-of, each TASK=METRIC or TASK=METRIC,FILTER; raises UsageError for any other."""
    found = {}
    for text in texts:
        task, _, rest = text.partition("=")
        metric, _, name = rest.partition(",")
        if not task or not metric:
            raise UsageError(f"--metric-of {text} is not TASK=METRIC or TASK=METRIC,FILTER, like gsm8k=exact_match")
        found[task.strip()] = metric.strip(), name.strip() or None
    return found


def lm_eval_task(
    name: str,
    file: Path,
    wanted: tuple[str, str | None] | None = None,
    chat: bool = True,
    distractors: Distractors = general_prompts,
    scored: bool = True,
) -> Task:
    """A task of lm-eval, with its data loaded.

    Args:
        name: As in the YAML file.
        file: That file, from `names`.
        wanted: The metric that counts, and its filter or None; None: the first of the YAML file.
        chat: Whether the model has a chat template.
        distractors: As for `Task`.
        scored: Whether a model is scored for it; else it may have no other items than those that it evaluates.

    Raises:
        UsageError: It is a group, its data cannot be loaded, it would run code, a template names no column, its metric
            is not one of single items or fails, or there is nothing to score a model with.
    """
    if Path(name).name != name or len(name.encode()) > _LONGEST_NAME:
        raise UsageError(f"{name[:80]!r} cannot name a file of results; give the task another name in {file}")
    plain = Source(name, file.parent, content_hash(file))
    task = _load(plain)
    check_columns(task, name)
    metric, reading = chosen_metric(task, name, wanted)
    source = Source(name, plain.folder, plain.files, metric, reading, chat)
    known = _readable(source, scored)
    generates = task.OUTPUT_TYPE == "generate_until"
    return Task(
        name=name,
        summary="a task of lm-eval",
        kind="general",
        metric=_figure(source, known.documents[0] if known else dict(task.eval_docs[0])),
        folder=source.folder,
        max_new_tokens=_answer_tokens(task) if generates else _LONGEST_ANSWER,
        prompt_tokens=_LONGEST_PROMPT,
        items=len(task.eval_docs),
        documents=partial(_documents, source),
        calibration=partial(_calibration, source),
        distractors=distractors,
        grade=partial(_grade, source) if generates else None,
        training=_training_items(source, known),
        question=partial(_text, source),
        filter=reading,
        content=digest([source.files, metric, reading, _hash(task.eval_docs), _hash(known.documents if known else ())]),
    )


@functools.cache
def _load_cached(name: str, folder: Path, _files: str) -> Any:
    manager = manager_of(folder)
    only_cache_without_hub()
    try:
        with _no_progress_bars():
            found = manager.load([name])
    except Exception as error:  # every data set and task has errors of its own
        raise UsageError(f"lm-eval cannot load {name} ({first_line(error)}); {_what_to_check(error)}") from error
    if list(found["tasks"]) != [name]:
        raise UsageError(f"{name} is a group of lm-eval's; name its tasks: {', '.join(found['tasks'])}")
    task = found["tasks"][name]
    if getattr(task, "UNSAFE_CODE", False):
        raise UsageError(f"{name} would run a model's code outside the sandbox; take humaneval or mbpp of ours")
    return task


def _what_to_check(error: Exception) -> str:
    """lm-eval tries its templates on the first item, and says of one that is missing no more than TypeError."""
    tried = [frame.name for frame in traceback.extract_tb(error.__traceback__) if frame.name in _TEMPLATES]
    if not tried:
        return "check the data set that its YAML file names"
    return f"its {tried[-1]} is missing or fails on the first item; mend it in its YAML file"


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    """Data sets show one for every split that they read."""
    import datasets

    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()


def _load(source: Source) -> Any:
    """lm-eval's own task, once in a process."""
    return _load_cached(source.name, source.folder, source.files)


def _figure(source: Source, doc: Document) -> str:
    """The metric as `Task` names it: where an item's value is neither right nor wrong, a mean of scores."""
    task, metric = _load(source), source.metric
    if metric in LIKELIHOOD_METRICS or is_right_or_wrong(task, source.name, metric, source.filter, doc):
        return metric
    return f"{MEAN}{metric}"


def _answer_tokens(task: Any) -> int:
    from lm_eval.models.utils import normalize_gen_kwargs

    try:
        found = normalize_gen_kwargs(dict(task.config.generation_kwargs or {}), _LONGEST_ANSWER)["max_gen_toks"]
    except (TypeError, ValueError) as error:
        raise UsageError(f"{task.config.task}: bad generation_kwargs in its YAML file ({first_line(error)})") from error
    if not is_count(found, _MOST_TOKENS, 1):
        raise UsageError(f"{task.config.task}: its generation_kwargs ask for answers of {found} tokens; give 1 or more")
    return int(found)


@dataclass(frozen=True)
class _Known:
    """The items that are not evaluated. split: where they come from; left_out: how many of it are test items."""

    split: str
    documents: Sequence[dict[str, Any]]
    left_out: int

    def source(self, name: str) -> str:
        return f"{name} ({self.split}{f', {self.left_out} test items left out' if self.left_out else ''})"


def _known(source: Source) -> _Known:
    """As `_known_if_any`; raises UsageError where there are none."""
    if found := _known_if_any(source):
        return found
    raise UsageError(
        f"{source.name} has no item to score a model with besides those that it evaluates; "
        "give it a training_split, fewshot_split or validation_split with other items"
    )


def _known_if_any(source: Source) -> _Known | None:
    return _known_cached(Source(source.name, source.folder, source.files))


@functools.cache
def _known_cached(source: Source) -> _Known | None:
    """The first split with items that are not evaluated, without those that are test items all the same, and without
    those that have no right answer to generate where others have one; None where there is none.
    """
    task = _load(source)
    tested, left_out = _tested(source), 0
    for split, documents in _splits(task):
        every = [dict(doc) for doc in documents]
        kept = [doc for doc in every if words(item_text(task, doc)) not in tested]
        left_out += len(every) - len(kept)
        kept = [doc for doc in kept if _is_answered(task, doc)] or kept
        if kept:
            if left_out:
                say(f"{source.name}: {left_out} of its items for calibration are test items and are left out")
            return _Known(split, kept, left_out)
    return None


def _is_answered(task: Any, doc: Document) -> bool:
    """Whether there is an answer to train on: a list of right ones can be empty. Choices always have one."""
    return task.OUTPUT_TYPE != "generate_until" or bool(pair(task, doc)[1].strip())


def _readable(source: Source, scored: bool) -> _Known | None:
    """As `_known` of a task that a model is scored for, else as `_known_if_any`; raises UsageError where an item cannot
    be written as a prompt and an answer.
    """
    try:
        return _known(source) if scored else _known_if_any(source)
    except HarnessError:
        raise
    except Exception as error:  # of the templates, and of the task's own functions
        raise UsageError(
            f"{source.name} has an item that cannot be asked ({first_line(error)}); check it, and the task's "
            "doc_to_text, doc_to_target and doc_to_choice"
        ) from error


def _tested(source: Source) -> set[str]:
    task = _load(source)
    return {words(item_text(task, doc)) for doc in task.eval_docs}


def _splits(task: Any) -> Iterator[tuple[str, Iterable[dict[str, Any]]]]:
    """(name, items) of the splits for training, few-shot prompts and validation, but for the one that is evaluated."""
    config, shots = task.config, getattr(task, "fewshot_cfg", None)
    evaluated = config.test_split if task.has_test_docs() else config.validation_split
    split = getattr(shots, "split", None)
    if task.has_training_docs() and config.training_split != evaluated:
        yield config.training_split or "train", task.training_docs()
    if split not in (None, evaluated):
        yield str(split), task.fewshot_docs()
    elif split is None and getattr(shots, "samples", None):
        yield "few-shot examples", task.fewshot_docs()
    if task.has_validation_docs() and config.validation_split != evaluated and task.has_test_docs():
        yield config.validation_split or "validation", task.validation_docs()


def _text(source: Source, doc: Document) -> str:
    return item_text(_load(source), doc)


def _example(source: Source, doc: Document) -> Example:
    """As the evaluation asks, without worked examples: the description before the prompt, the prefix of answers."""
    task = _load(source)
    prompt, answer = pair(task, doc)
    config = task.config
    if config.gen_prefix:
        answer = f"{task.resolve_field(doc, config.gen_prefix)} {answer.lstrip()}"
    if not source.chat and task.OUTPUT_TYPE in ("generate_until", "multiple_choice"):
        answer = f"{config.target_delimiter}{answer}"
    return Example(prompt, answer, str(task.resolve_field(doc, config.description) or ""))


def _documents(source: Source) -> dict[str, list[dict[str, Any]]]:
    return {"test": [dict(doc) for doc in _load(source).eval_docs]}


def _training_items(source: Source, known: _Known | None) -> TrainingItems | None:
    if known is None:
        return None
    return TrainingItems(
        documents=partial(_training, source), example=partial(_example, source), items=len(known.documents)
    )


def _training(source: Source, n: int, seed: int) -> tuple[str, list[dict[str, Any]]]:
    known = _known(source)
    return known.source(source.name), sample(known.documents, n, seed)


def _calibration(source: Source, n: int, seed: int) -> tuple[str, list[Example]]:
    """As the evaluation asks, with its worked examples before each prompt."""
    (name, documents), task = _training(source, n, seed), _load(source)
    shots = worked_examples(task, _known(source).documents, _tested(source), source.chat)
    count = shot_count(task)
    found = [replace(_example(source, doc), shots=shots(doc), document=doc) for doc in documents]
    return f"{name}, {count}-shot" if count else name, found


def _grade(source: Source, doc: Document, text: str) -> GradedAnswer:
    """By the task's own filter and metric."""
    value, reading = value_of(_load(source), source.metric, source.filter, doc, text)
    return GradedAnswer(text, prediction_of(reading), value == 1.0, meta=getattr(text, "meta", {}))


def prediction_of(reading: Any) -> str | None:
    """What lm-eval's filter found in an answer; None where it found nothing."""
    found = reading[0] if isinstance(reading, list | tuple) and reading else reading
    return str(found) if str(found).strip() not in ("", _INVALID) else None


def _hash(documents: Iterable[Any]) -> str:
    return digest([json.dumps(dict(doc), sort_keys=True, default=str) for doc in documents])
