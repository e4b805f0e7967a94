"""The tasks that settings name: ours, and any of lm-eval or of the folder of the user's own."""

from __future__ import annotations

import difflib
from pathlib import Path

from harness.config.settings import RunConfig
from harness.core.errors import UsageError
from harness.models import registry
from harness.training.examples import TEXT
from tasks.data import general_prompts
from tasks.lm_eval_files import own_files
from tasks.lm_eval_task import lm_eval_task, metric_choices, names
from tasks.registry import FAMILY_NAMES, TASKS, find_task, is_task
from tasks.task import Distractors, Task


def task_names(config: RunConfig) -> tuple[str, ...]:
    """The requested tasks, else those that are trained on together, else what the model's alias is for."""
    alias = registry.find_model(config.model)
    mixed = tuple(name for name in config.recovery.mixture if name != TEXT)
    return config.task or mixed or ((alias.task,) if alias else ("gsm8k",))


def named_task(config: RunConfig, name: str, chat: bool = True) -> Task:
    """The task of a name, with its data loaded where it is not one of ours.

    Args:
        config: Its include_path, metric_of and model.
        name: A task or family of ours, else one of include_path or of lm-eval.
        chat: Whether the model has a chat template.

    Raises:
        UsageError: Nothing has this name, or it cannot be scored, evaluated and compared.
    """
    if is_task(name):
        return find_task(name, chat)
    file = yaml_of(name, config.include_path)
    wanted = metric_choices(config.metric_of).get(name)
    return lm_eval_task(name, file, wanted, chat, _distractors(config))


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


def check_metric_choices(config: RunConfig) -> None:
    """Raises UsageError where --metric-of names a task of ours, or one that is not asked for."""
    asked = task_names(config)
    for name in metric_choices(config.metric_of):
        if is_task(name):
            raise UsageError(f"--metric-of: {name} is not a task of lm-eval's own; it has one metric")
        if name not in asked:
            raise UsageError(f"--metric-of: {name} is not among the tasks ({', '.join(asked)})")


def _distractors(config: RunConfig) -> Distractors:
    """General text for the model: that of the task that its alias is for."""
    alias = registry.find_model(config.model)
    return find_task(alias.task).distractors if alias else general_prompts
