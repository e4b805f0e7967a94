"""Calibration prompts with the dense model's own answers: of the task only those that it grades as right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from harness.core.chat import ChatFormat, prompt_ids
from harness.core.errors import MeasurementError, UsageError
from harness.core.progress import progress_bar, say
from harness.core.reasoning import left_open, with_end
from harness.core.types.calibration import Example
from harness.core.types.evaluation import MEAN
from harness.engine.memory_budget import EngineSettings
from harness.pipeline.cpu_time import forward_seconds, time_text
from pruning.checkpoint import ModelFolder
from tasks import sandbox
from tasks.generation import Generation
from tasks.grading import grade_all
from tasks.task import Task


@dataclass(frozen=True)
class Asker:
    """What asks the dense model. chat: None where prompts are plain."""

    model: ModelFolder
    tokenizer: Any
    chat: ChatFormat | None
    settings: EngineSettings


@dataclass(frozen=True)
class Counts:
    """Graded answers: `right` ones are used, `given` ones replace wrong ones, and `left_out` have no given answer."""

    right: int = 0
    given: int = 0
    left_out: int = 0

    @property
    def graded(self) -> int:
        return self.right + self.given + self.left_out

    @property
    def text(self) -> str:
        left_out = f", {self.left_out} without one left out" if self.left_out else ""
        return f"{self.right} of {self.graded} right, {self.given} with the given answer{left_out}"


def check_grading(task: Task) -> None:
    """Raises MeasurementError where answers to the task cannot be graded here."""
    if task.kind == "code" and (reason := sandbox.available()):
        raise MeasurementError(reason)


def with_own_answers(
    asker: Asker, task: Task, target: Sequence[Example], general: Sequence[Example]
) -> tuple[str, list[Example], list[Example]]:
    """Both groups with the model's greedy answers; a text without a question stays as it is.

    A wrong answer to the task is replaced by the given one. Where there is none, or the task cannot grade (it scores
    texts, or gives marks between right and wrong), the prompt is left out, or has the model's answer whatever it is.

    Returns:
        What was done, for the name of the source; the target's examples; the general ones.

    Raises:
        UsageError: No answer is right and none is given.
        MeasurementError: Code cannot be graded here.
    """
    check_grading(task)
    answers = _generated(asker, task.max_new_tokens, (target, general))
    right = _right(task, target, answers[0])
    chosen = [_chosen(asker.chat, e, answers[0].get(i), right.get(i)) for i, e in enumerate(target)]
    found = [example for example in chosen if example]
    counts = _counts(target, right)
    _tell(counts)
    if not found:
        raise UsageError(f"none of {counts.graded} own answers is right and no answer is given; use another task")
    others = [_chosen(asker.chat, e, answers[1].get(i), None) or e for i, e in enumerate(general)]
    done = "answers by the model itself"
    return f"{done}: {counts.text}" if counts.graded else done, found, others


def _generated(asker: Asker, longest: int, groups: Sequence[Sequence[Example]]) -> list[dict[int, Generation]]:
    """Of each group: position -> answer, without those for which the context has no room."""
    from harness.engine.generate_answers import Sampling, generate_answers

    prompts = {
        (number, i): prompt_ids(asker.tokenizer, example, asker.chat)
        for number, group in enumerate(groups)
        for i, example in enumerate(group)
        if example.prompt
    }
    tokens = sum(map(len, prompts.values())) + longest * len(prompts)
    time = time_text(forward_seconds(asker.model.parameters, tokens))
    say(f"Own answers: {len(prompts)} of at most {longest} tokens; {time}")
    found = generate_answers(asker.model, prompts, Sampling(longest, chat=asker.chat), asker.settings)
    return [{i: answer for (group, i), answer in found.items() if group == number} for number in range(len(groups))]


def _right(task: Task, examples: Sequence[Example], answers: Mapping[int, Generation]) -> dict[int, bool]:
    """Position -> whether the answer is right, of the examples that the task can grade; no answer is not right."""
    if task.grade is None or task.metric.startswith(MEAN):
        return {}
    right = {i: False for i, example in enumerate(examples) if example.prompt and example.document is not None}
    asked = [i for i in right if i in answers]
    pairs = [(examples[i].document or {}, answers[i]) for i in asked]
    with progress_bar(f"Grading {len(pairs)} own answers", len(pairs)) as advance:
        for i, verdict in zip(asked, grade_all(task.grade, pairs), strict=True):
            right[i] = verdict.correct
            advance(1)
    return right


def _chosen(chat: ChatFormat | None, example: Example, answer: Generation | None, right: bool | None) -> Example | None:
    """The example with the answer that is scored; None where there is none. right: None where nothing was graded."""
    if right is False or answer is None:
        return example if example.answer else None
    text = with_end(answer.written, left_open(chat.prompt_end)) if chat else str(answer)
    return replace(example, answer=text)


def _counts(examples: Sequence[Example], right: Mapping[int, bool]) -> Counts:
    wrong = [examples[i] for i, is_right in right.items() if not is_right]
    given = sum(bool(example.answer) for example in wrong)
    return Counts(len(right) - len(wrong), given, len(wrong) - given)


def _tell(counts: Counts) -> None:
    if not counts.graded:
        say("Own answers: nothing grades them, so that all are used")
        return
    say(f"Own answers: {counts.text}")
    if 2 * counts.right < counts.graded:
        say("Fewer than half of the own answers are right: given ones fit better (--completions reference)")
