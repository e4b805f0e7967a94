"""What a task is: items, graders, calibration prompts and training items behind one typed object.

A task of another package is built the same way: give `Task` its functions and put NAME.yaml beside them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from pathlib import Path
from typing import Any, Literal

from harness.core.types.calibration import Example
from tasks.data import general_prompts
from tasks.grading import Document, Grade, result_row

Prompts = Callable[[int, int], tuple[str, list[Example]]]
# general text, knowledge and common sense: one task of ours and two of lm-eval's (docs/adr/0043)
GENERAL = ("wikitext", "arc_easy", "piqa")
Distractors = Callable[[int, int], tuple[tuple[str, ...], list[Example]]]


def worked(
    documents: Callable[[int, int], tuple[str, list[dict[str, Any]]]],
    example: Callable[[Document], Example],
    n: int,
    seed: int,
) -> tuple[str, list[Example]]:
    """Calibration prompts out of `documents`, as `example` asks them; a task gives the first two by a `partial`."""
    source, found = documents(n, seed)
    return source, [replace(example(doc), document=doc) for doc in found]


@dataclass(frozen=True, kw_only=True)
class TrainingItems:
    """What a task can be trained on.

    Attributes:
        documents: (n, seed) -> where they come from, and up to `n` documents that the task's `grade` takes.
        example: a document as the evaluation asks it, with the answer that the model should give.
        items: how many there are; None for a generator without end.
        paper: what the paper's scripts train on instead; None where they have other data.
    """

    documents: Callable[[int, int], tuple[str, list[dict[str, Any]]]]
    example: Callable[[Document], Example]
    items: int | None
    paper: TrainingItems | None = None


@dataclass(frozen=True, kw_only=True)
class Task:
    """A task that a model is scored for, evaluated on and trained on.

    Every function is one of a module or a `functools.partial` of one, so that a task can be sent to another process.

    Attributes:
        name: as in NAME.yaml and on the command line.
        summary: what it is, in a few words.
        kind: what it is about; a model's alias can stand for another checkpoint per kind.
        metric: the figure of an evaluation: exact_match, pass@1, perplexity, bits_per_byte or similarity.
        folder: holds NAME.yaml, the task in lm-eval's form.
        max_new_tokens: the longest answer; of a text that is scored: tokens that it may have beyond a prompt.
        items: how many items the test split has.
        documents: split -> its items, "test" among them.
        calibration: (n, seed) -> where the prompts come from, and up to `n` of them with worked answers, and with the
            documents that `grade` takes.
        paper_calibration: the same out of the rows that the paper's scripts score; None where they have other data.
        distractors: (n, seed) -> the names of the sources, and up to `n` general prompts that are not the task.
        grade: (document, answer) -> verdict; None where texts are scored and nothing is generated.
        extract: (document, answer) -> the prediction in the answer, None where there is none.
        training: what can be trained on; None where there is nothing.
        off_target: names of the tasks that are evaluated beside it by default; itself among them is left out.
        code_files: names of data files in HARNESS_DATA_DIR that hold tests.
        paper_items: a JSON list of the test items that the paper asks, for `--items paper`; None where it asks others.
        id_prefixes: what stands before the number in its items' own ids: "HumanEval" for HumanEval/0.
        question: a document's text without instructions, by which training items are compared with test items.
        prompt_tokens: the longest prompt that is not cut.
        filter: of a task of lm-eval's own, the reading of the answers that its metric grades; None for ours.
        content: of such a task, a hash of its files and items, to which a run directory is bound.
    """

    name: str
    summary: str
    kind: Literal["math", "code", "general"]
    metric: str
    folder: Path
    max_new_tokens: int
    items: int
    documents: Callable[[], Mapping[str, Sequence[Document]]]
    calibration: Prompts
    paper_calibration: Prompts | None = None
    distractors: Distractors = general_prompts
    grade: Grade | None = None
    extract: Callable[[Document, str], str | None] | None = None
    training: TrainingItems | None = None
    off_target: tuple[str, ...] = GENERAL
    code_files: tuple[str, ...] = ()
    paper_items: Path | None = None
    id_prefixes: tuple[str, ...] = ()
    question: Callable[[Document], str] = itemgetter("question")
    prompt_tokens: int = 1024
    filter: str | None = None
    content: str = ""

    @property
    def generates(self) -> bool:
        """False where texts are scored."""
        return self.grade is not None

    def load(self, **_: Any) -> dict[str, Any]:
        """The documents for lm-eval (`custom_dataset` in the YAML): split -> datasets.Dataset."""
        from datasets import Dataset

        return {split: Dataset.from_list([*documents]) for split, documents in self.documents().items()}

    def process_results(self, doc: Document, results: Sequence[str]) -> dict[str, float]:
        """The verdict on one answer for lm-eval (`process_results` in the YAML): the metric and fail_<kind>."""
        if self.grade is None:
            raise TypeError(f"{self.name} has no grade(); its YAML must name another process_results")
        return result_row(self.metric, self.grade, doc, results[0])
