"""One row per task. A new task is a folder (lm-eval YAML, task.py, README.md) and a row here."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from harness.core.errors import UsageError
from harness.core.types.calibration import Example

TASKS_PATH = Path(__file__).parent
# the paper's split seed; --seed is for random pruning and does not change the prompts that are scored
CALIBRATION_SEED = 42
_BEGINNING = 40  # words by which a scored text is known
FAMILY_NAMES = {  # name -> (task for a chat model, task for a base model)
    "gsm8k": ("gsm8k_boxed", "gsm8k_cot"),
    "humaneval": ("humaneval_instruct", "humaneval_complete"),
}


@dataclass(frozen=True)
class Task:
    """`off_target`: what is evaluated beside it by default. `items`: how many the test split holds.

    `training_items`: how many there are to train on, None for a stream without end, 0 where there are none.
    `generates`: False where texts are scored; `max_new_tokens` is then what a window of text may be longer than a
    prompt.
    """

    name: str
    folder: str
    metric: str
    kind: Literal["math", "code", "general"]
    off_target: tuple[str, ...]
    max_new_tokens: int
    items: int
    summary: str
    training_items: int | None = 0
    generates: bool = True

    @property
    def module(self) -> ModuleType:
        """tasks/<folder>/task.py: calibration(name, n, seed), distractors(n, seed), load(), grade(name, doc, text) and
        extract() alike.

        Where it can be trained on: training(name, n, seed) gives documents, example(name, doc) one as the evaluation
        asks it, and answered.
        """
        return importlib.import_module(f"tasks.{self.folder}.task")


TASKS: Mapping[str, Task] = {
    task.name: task
    for task in (
        Task(
            "mini_math",
            "mini_math",
            "exact_match",
            "math",
            ("mini_facts", "mini_code"),
            64,
            500,
            "generated word problems",
            None,
        ),
        Task(
            "mini_facts",
            "mini_facts",
            "exact_match",
            "general",
            ("mini_math",),
            16,
            232,
            "closed-book questions, one word each",
            1392,
        ),
        Task(
            "mini_code",
            "mini_code",
            "pass@1",
            "code",
            ("mini_math", "mini_facts"),
            48,
            150,
            "generated functions, sandboxed",
            None,
        ),
        Task(
            "gsm8k_boxed",
            "gsm8k",
            "exact_match",
            "math",
            ("mini_facts",),
            1024,
            1319,
            "GSM8K, the paper's chat prompt, \\boxed",
            7469,
        ),
        Task(
            "gsm8k_cot", "gsm8k", "exact_match", "math", ("mini_facts",), 256, 1319, "GSM8K, 4-shot, #### answers", 7469
        ),
        Task(
            "humaneval_complete",
            "humaneval",
            "pass@1",
            "code",
            ("mini_facts",),
            512,
            164,
            "HumanEval, functions to complete",
            366,
        ),
        Task(
            "humaneval_instruct",
            "humaneval",
            "pass@1",
            "code",
            ("mini_facts",),
            512,
            164,
            "HumanEval, functions asked for in chat",
            366,
        ),
        Task("mbpp", "mbpp", "pass@1", "code", ("mini_facts",), 512, 500, "MBPP, 3-shot", 368),
        Task(
            "bbh_general",
            "bbh",
            "exact_match",
            "general",
            ("wikitext",),
            64,
            182,
            "general questions out of BIG-Bench Hard",
            1394,
        ),
        Task("similarity", "similarity", "similarity", "general", (), 128, 200, "answers beside the dense model's own"),
        Task(
            "gsm8k_answers",
            "gsm8k",
            "perplexity",
            "math",
            ("wikitext",),
            512,
            1319,
            "perplexity of GSM8K's worked answers",
            7469,
            False,
        ),
        Task(
            "wikitext",
            "wikitext",
            "bits_per_byte",
            "general",
            (),
            1024,
            62,
            "WikiText-2 test, bits per byte",
            generates=False,
        ),
    )
}


def is_task(name: str) -> bool:
    return name in TASKS or name in FAMILY_NAMES


def find_task(name: str, chat: bool = True) -> Task:
    """The row for a task or family name; raises UsageError with near misses."""
    resolved = FAMILY_NAMES[name][0 if chat else 1] if name in FAMILY_NAMES else name
    if resolved not in TASKS:
        known = [*TASKS, *FAMILY_NAMES]
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(sorted(known))}"
        raise UsageError(f"unknown task {name!r}; {hint}")
    return TASKS[resolved]


def calibration(task: Task, n: int, seed: int) -> tuple[str, list[Example]]:
    """Where the training items come from, and `n` of them with worked answers."""
    source, examples = task.module.calibration(task.name, n, seed)
    return source, _check_items(examples, task.name)


def distractors(task: Task, n: int, seed: int) -> tuple[tuple[str, ...], list[Example]]:
    """General prompts that are not the task: the names of their sources, and `n` of them."""
    sources, examples = task.module.distractors(n, seed)
    return sources, _check_items(examples, f"distractors of {task.name}")


def training(task: Task, n: int, seed: int) -> tuple[str, list[dict[str, Any]]]:
    """Where the training items come from, and up to `n` of them as documents that grade() takes; UsageError where there
    are none.
    """
    check_training_items(task)
    found: tuple[str, list[dict[str, Any]]] = task.module.training(task.name, n, seed)
    return found


def check_training_items(task: Task) -> None:
    """Raises UsageError for a task that has none."""
    if task.training_items == 0:
        raise UsageError(f"{task.name} has no training split; give --data a JSON Lines file or a Hub data set")


def evaluated_questions(task: Task) -> set[str]:
    """Every test item's bare question, or the beginning of a text that is scored."""
    fields = ("text", "question", "prompt", "page")
    found = (next(str(doc[field]) for field in fields if doc.get(field)) for doc in task.module.load()["test"])
    return {" ".join(text.split()[:_BEGINNING]) if task.name == "wikitext" else text for text in found}


def _check_items(examples: Sequence[Example], what: str) -> list[Example]:
    if not examples:
        raise UsageError(f"no calibration items for {what}; check the data set")
    return list(examples)
