"""The tasks that settings name: ours, and any of lm-eval or of the folder of the user's own."""

from __future__ import annotations

import difflib
import functools
import os
from collections.abc import Sequence
from pathlib import Path

from harness.config.settings import RunConfig
from harness.core.errors import UsageError
from harness.models import registry
from harness.training.examples import TEXT
from tasks.data import DATA_DIR, general_prompts, trusting
from tasks.lm_eval_files import own_files
from tasks.lm_eval_task import lm_eval_task, metric_choices, names
from tasks.registry import (
    CALIBRATION_SEED,
    FAMILY_NAMES,
    TASKS,
    calibration,
    distractors,
    find_task,
    is_task,
    needs_data,
)
from tasks.task import GENERAL, Distractors, Task

_SMALL = 50_000_000  # parameters
_WITHOUT_DATA = ["mini_facts"]  # generated


def task_names(config: RunConfig) -> tuple[str, ...]:
    """The requested tasks, else those that are trained on together, else what the model's alias is for; raises
    UsageError for one that is named twice.
    """
    alias = registry.find_model(config.model)
    mixed = tuple(name for name in config.recovery.mixture if name != TEXT)
    found = config.task or mixed or ((alias.task,) if alias else ("gsm8k",))
    check_named_once(found)
    return found


def check_named_once(names: Sequence[str]) -> None:
    """Raises UsageError for a task that would be evaluated twice."""
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UsageError(f"the task {twice} is named twice in --task, or in --off-target as well; name it once")


def named_task(config: RunConfig, name: str, chat: bool = True, scored: bool = True) -> Task:
    """The task of a name, with its data loaded where it is not one of ours.

    Args:
        config: Its include_path, metric_of and model.
        name: A task or family of ours, else one of include_path or of lm-eval.
        chat: Whether the model has a chat template.
        scored: Whether the model is scored for it, for which one of lm-eval needs items that it does not evaluate.

    Raises:
        UsageError: Nothing has this name, or it cannot be scored, evaluated and compared.
    """
    if is_task(name):
        check_not_hidden(name, config.include_path)
        return find_task(name, chat)
    file = yaml_of(name, config.include_path)
    wanted = metric_choices(config.metric_of).get(name)
    return lm_eval_task(name, file, wanted, chat, _distractors(config), scored)


def check_not_hidden(name: str, include_path: Path | None) -> None:
    """Raises UsageError where a task of ours has the name of one in the user's own folder."""
    file = None if include_path is None else names(include_path).get(name)
    if file and file != own_files().get(name):
        raise UsageError(f"{name} is a task of ours, and {file} has the same name; give that one another")


def yaml_of(name: str, include_path: Path | None) -> Path:
    """The YAML file of a task that is not ours; raises UsageError where there is none, with what is near."""
    known = names(include_path)
    if name in known:
        return known[name]
    ours = [*TASKS, *FAMILY_NAMES]
    first = [*ours, *(known.keys() - own_files().keys())]
    near = difflib.get_close_matches(name, first, n=1) or difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(sorted(ours))}, and lm-eval's own"
    raise UsageError(f"unknown task {name!r}; {hint}")


def off_target_tasks(config: RunConfig, target: Task, parameters: int, chat: bool, scored: bool = False) -> list[Task]:
    """What is evaluated by default beside a single target.

    Args:
        config: As for `named_task`.
        target: The only task that was asked for.
        parameters: Of the model; a small one is at chance on general tasks and has only those of the embedded models.
        chat: Whether the model has a chat template.
        scored: As for `named_task`.

    Raises:
        UsageError: The data of one of them cannot be loaded; says which tasks can be asked for instead.
    """
    found: list[Task] = []
    for name in target.off_target:
        if name == target.name or (name in GENERAL and parameters < _SMALL):
            continue
        check_at_hand([target], config.trust_data)  # or a command is named that is refused for it
        try:
            task = named_task(config, name, chat, scored)
            check_at_hand([task], config.trust_data)
        except UsageError as error:
            others = [task.name for task in found] or _WITHOUT_DATA
            raise UsageError(
                f"{name} is evaluated beside {target.name} by default, and {error}; or name the tasks, as in "
                f"--task {','.join((target.name, *others))}"
            ) from error
        found.append(task)
    return found


def check_at_hand(tasks: Sequence[Task], trusted: bool) -> None:
    """Raises UsageError where the items of a task cannot be loaded."""
    with trusting(trusted):
        for task in tasks:
            if is_task(task.name) and needs_data(task.name):  # those of lm-eval are loaded when they are looked up
                _load_once(task.name, os.environ.get(DATA_DIR), trusted)


def check_calibration(task: Task, config: RunConfig) -> None:
    """Raises UsageError where the prompts that neurons are scored on cannot be loaded."""
    with trusting(config.trust_data):
        _draw_once(task, os.environ.get(DATA_DIR), config.calibration_rows == "paper")


@functools.cache
def _load_once(name: str, _data: str | None, _trusted: bool) -> None:
    TASKS[name].documents()


@functools.cache
def _draw_once(task: Task, _data: str | None, paper_rows: bool) -> None:
    for draw in (calibration, distractors):
        draw(task, 2, CALIBRATION_SEED, paper_rows)


def check_metric_choices(config: RunConfig, off_target: Sequence[str] = ()) -> None:
    """Raises UsageError where --metric-of names a task of ours, or one that is not evaluated."""
    asked = (*task_names(config), *off_target)
    for name in metric_choices(config.metric_of):
        if is_task(name):
            raise UsageError(f"--metric-of: {name} is not a task of lm-eval's own; it has one metric")
        if name not in asked:
            raise UsageError(f"--metric-of: {name} is not among the tasks ({', '.join(asked)})")


def _distractors(config: RunConfig) -> Distractors:
    """General text for the model: that of the task that its alias is for."""
    alias = registry.find_model(config.model)
    return find_task(alias.task).distractors if alias else general_prompts
