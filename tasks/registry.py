"""The tasks by name. A new task is a folder (NAME.yaml, task.py, README.md) and a line here, or an entry point of
another package in the group `harness.tasks`, whose object is a `Task`.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.core.errors import UsageError
from harness.core.installed import Installed
from harness.core.types.calibration import Example

if TYPE_CHECKING:  # a task's code is imported when the task is looked up
    from tasks.task import Task, TrainingItems

TASKS_PATH = Path(__file__).parent
# the paper's split seed; --seed is for random pruning and does not change the prompts that are scored
CALIBRATION_SEED = 42
FAMILY_NAMES = {  # name -> (task for a chat model, task for a base model)
    "gsm8k": ("gsm8k_boxed", "gsm8k_cot"),
    "gsm8k_platinum": ("gsm8k_platinum_boxed", "gsm8k_platinum_cot"),
    "humaneval": ("humaneval_instruct", "humaneval_complete"),
}
_OBJECTS = {  # name -> where its Task is, in the form of an entry point
    "mini_math": "tasks.mini_math.task:TASK",
    "mini_facts": "tasks.mini_facts.task:TASK",
    "mini_code": "tasks.mini_code.task:TASK",
    "gsm8k_boxed": "tasks.gsm8k.task:BOXED",
    "gsm8k_cot": "tasks.gsm8k.task:COT",
    "gsm8k_platinum_boxed": "tasks.gsm8k.task:PLATINUM_BOXED",
    "gsm8k_platinum_cot": "tasks.gsm8k.task:PLATINUM_COT",
    "humaneval_complete": "tasks.humaneval.task:COMPLETE",
    "humaneval_instruct": "tasks.humaneval.task:INSTRUCT",
    "mbpp": "tasks.mbpp.task:TASK",
    "humaneval_plus": "tasks.evalplus.task:HUMANEVAL_PLUS",
    "mbpp_plus": "tasks.evalplus.task:MBPP_PLUS",
    "bbh_general": "tasks.bbh.task:TASK",
    "similarity": "tasks.similarity.task:TASK",
    "gsm8k_answers": "tasks.gsm8k.task:ANSWERS",
    "wikitext": "tasks.wikitext.task:TASK",
}


def _is_task(name: str, found: object) -> bool:
    from tasks.task import Task

    return isinstance(found, Task) and found.name == name


TASKS: Installed[Task] = Installed(_OBJECTS, "harness.tasks", "task", _is_task)


def loadable_tasks() -> list[Task]:
    """All but those of packages that cannot be loaded, ours first."""
    return [task for _, task in TASKS.loadable()]


def is_task(name: str) -> bool:
    """Whether `name` is a task or a family of tasks."""
    return name in TASKS or name in FAMILY_NAMES


def needs_data(name: str) -> bool:
    """Whether a task's items are a data set of others; those of the embedded models are generated."""
    return not name.startswith("mini_")


def find_task(name: str, chat: bool = True) -> Task:
    """The task of a name.

    Args:
        name: a task, or a family, which means another task for a chat model than for a base model.
        chat: whether the model has a chat template.

    Raises:
        UsageError: nothing has this name; says what is near.
    """
    resolved = FAMILY_NAMES[name][0 if chat else 1] if name in FAMILY_NAMES else name
    if resolved not in TASKS:
        known = [*TASKS, *FAMILY_NAMES]
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(sorted(known))}"
        raise UsageError(f"unknown task {name!r}; {hint}")
    return TASKS[resolved]


def calibration(task: Task, n: int, seed: int, paper_rows: bool = False) -> tuple[str, list[Example]]:
    """Up to `n` prompts of the task with worked answers, none of them a test item.

    Args:
        paper_rows: out of the rows that the paper's scripts score, where they have the task's data.

    Returns:
        The name of their source, and the prompts.

    Raises:
        UsageError: there are none, or the data set cannot be loaded.
    """
    draw = task.paper_calibration if paper_rows and task.paper_calibration else task.calibration
    source, examples = draw(n, seed)
    return source, _check_items(examples, task.name)


def distractors(task: Task, n: int, seed: int, paper_rows: bool = False) -> tuple[tuple[str, ...], list[Example]]:
    """Up to `n` general prompts that are not the task.

    Args:
        paper_rows: out of the rows that the paper's scripts score, where the task has no distractors of its own.

    Returns:
        The names of their sources, and the prompts.

    Raises:
        UsageError: there are none, or a data set cannot be loaded.
    """
    from tasks.data import general_prompts, paper_prompts

    draw = paper_prompts if paper_rows and task.distractors is general_prompts else task.distractors
    try:
        sources, examples = draw(n, seed)
    except UsageError as error:
        raise UsageError(
            f"the general prompts (distractors) that a scoring for {task.name} needs beside the task's own, whatever "
            f"the --metric: {error}"
        ) from error
    return sources, _check_items(examples, f"distractors of {task.name}")


def training_items(task: Task) -> TrainingItems:
    """What the task can be trained on; raises UsageError where there is nothing."""
    if task.training is None:
        raise UsageError(f"{task.name} has no training split; give --data a JSON Lines file or a Hub data set")
    return task.training


def evaluated_questions(task: Task) -> set[str]:
    """The question of every test item, to be looked for among training items."""
    return {task.question(document) for document in task.documents()["test"]}


def _check_items(examples: Sequence[Example], what: str) -> list[Example]:
    if not examples:
        raise UsageError(f"no calibration items for {what}; check the data set")
    return list(examples)
