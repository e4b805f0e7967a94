"""Calibration on the model's own answers: right ones by the task's own grading, given ones in place of wrong ones. The
answers are recorded; what grades them is real.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from harness.core.errors import MeasurementError, UsageError
from harness.core.types.calibration import Example
from harness.engine import generate_answers
from harness.engine.memory_budget import EngineSettings
from harness.models.tokenizer import load_tokenizer
from harness.pipeline import scoring
from harness.pipeline.own_answers import Asker, with_own_answers
from pruning.checkpoint import open_model
from tasks import sandbox
from tasks.generation import Generation
from tasks.mini_distractors import fact_examples, text_examples
from tasks.registry import calibration, find_task
from tasks.task import Task
from tests.support.cli import invoke
from tests.support.models import TINY_MATH

pytestmark = pytest.mark.slow
STOPPED = {"finish_reason": "stop", "n_tokens": 9}
GENERAL = [*fact_examples(2, 1), *text_examples(1, 1)]


@pytest.fixture
def asker() -> Asker:
    model = open_model(TINY_MATH)
    return Asker(model, load_tokenizer(model), None, EngineSettings(threads=1))


def record(monkeypatch: pytest.MonkeyPatch, target: Sequence[str | None], general: str = "in the park") -> None:
    """What the engine gives: `target` to the task's prompts in their order (None: no room), `general` to all others."""

    def answers(_model: Any, prompts: Mapping[tuple[int, int], Any], *_: Any) -> dict[tuple[int, int], Generation]:
        texts = {(group, i): general if group else target[i] for group, i in prompts}
        return {key: Generation(text, STOPPED) for key, text in texts.items() if text is not None}

    monkeypatch.setattr(generate_answers, "generate_answers", answers)


def prompts(name: str, n: int) -> tuple[Task, list[Example]]:
    task = find_task(name)
    return task, calibration(task, n, seed=3)[1]


def right(example: Example) -> str:
    assert example.document
    return f"Thus it is [/red] {{answer}} %s.\n#### {example.document['answer']}"


def test_wrong_answers_are_replaced_and_the_counts_are_said(
    asker: Asker, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    task, target = prompts("mini_math", 5)
    record(monkeypatch, [right(target[0]), "#### 999999", right(target[2]), None, right(target[4])])
    done, found, general = with_own_answers(asker, task, target, GENERAL)
    assert [e.answer for e in found] == [
        right(target[0]),
        target[1].answer,
        right(target[2]),
        target[3].answer,
        right(target[4]),
    ]
    assert [e.prompt for e in found] == [e.prompt for e in target]
    assert [e.answer for e in general] == ["in the park", "in the park", GENERAL[2].answer], "a text stays as it is"
    assert done == "answers by the model itself: 3 of 5 right, 2 with the given answer"
    said = capsys.readouterr().err
    assert "Own answers: 7 of at most 64 tokens; at most about" in said
    assert "Own answers: 3 of 5 right, 2 with the given answer\n" in said and "Fewer than half" not in said


def test_a_wrong_answer_without_a_given_one_is_left_out(
    asker: Asker, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    task, target = prompts("mini_math", 3)
    target = [replace(example, answer="") for example in target]
    record(monkeypatch, [right(target[0]), "#### 999999", None])
    done, found, _ = with_own_answers(asker, task, target, [])
    assert [e.prompt for e in found] == [target[0].prompt]
    assert done.endswith("1 of 3 right, 0 with the given answer, 2 without one left out")
    assert "Fewer than half of the own answers are right" in capsys.readouterr().err
    record(monkeypatch, ["no", "no", "no"])
    with pytest.raises(UsageError, match="none of 3 own answers is right and no answer is given"):
        with_own_answers(asker, task, target, [])


def test_where_none_is_right_all_are_the_given_ones_and_the_source_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    task = find_task("mini_math")
    record(monkeypatch, ["#### 999999"] * 4)
    request = scoring.CalibrationRequest(4, "completion")
    model = open_model(TINY_MATH)
    own = scoring.calibrate(model, "m", task, replace(request, generate_completions=True))
    given = scoring.calibrate(model, "m", task, request)
    assert [item for item in own.items if item.target] == [item for item in given.items if item.target]
    assert own.target_source == "mini_math (train), answers by the model itself: 0 of 4 right, 4 with the given answer"
    assert own.hash != given.hash and "(--completions reference)" in capsys.readouterr().err


def test_a_right_answer_without_end_is_cut_at_the_context(monkeypatch: pytest.MonkeyPatch) -> None:
    task, target = find_task("mini_math"), calibration(find_task("mini_math"), 2, scoring.CALIBRATION_SEED)[1]
    record(monkeypatch, [f"{right(target[0])}\n\n{'and so on ' * 5000}", right(target[1])])
    request = scoring.CalibrationRequest(2, "completion", generate_completions=True)
    lengths = [len(item.token_ids) for item in scoring.calibrate(open_model(TINY_MATH), "m", task, request).items]
    assert max(lengths) == 512


def test_programs_are_graded_in_the_sandbox(asker: Asker, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that is right, one that returns nothing, one that ends the process, and none at all."""
    task, target = prompts("mini_code", 4)
    record(monkeypatch, [target[0].answer, "    return None\n", "    raise SystemExit(0)\n", "I do not know."])
    done, found, _ = with_own_answers(asker, task, target, [])
    assert done.endswith("1 of 4 right, 3 with the given answer")
    assert [e.answer for e in found] == [e.answer for e in target]
    monkeypatch.setattr(sandbox, "available", lambda: "no sandbox here")
    with pytest.raises(MeasurementError, match="no sandbox here"):
        with_own_answers(asker, task, target, [])


@pytest.mark.parametrize("changes", [{"grade": None}, {"metric": "mean rouge"}])
def test_where_nothing_is_right_or_wrong_all_own_answers_are_used(
    changes: dict[str, Any], asker: Asker, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    task, target = prompts("mini_math", 2)
    record(monkeypatch, ["#### 999999"] * 2)
    done, found, _ = with_own_answers(asker, replace(task, **changes), target, [])
    assert (done, [e.answer for e in found]) == ("answers by the model itself", ["#### 999999"] * 2)
    assert "nothing grades them" in capsys.readouterr().err


def test_a_dry_run_says_how_many_answers_are_generated() -> None:
    command = ("tiny-math", "--task", "mini_math", "--calibration-samples", "20", "--dry-run", "--json")
    found, _ = invoke("score", *command, "--completions", "generated", "--out", "s")
    assert found["own_answers"] == 60
    assert invoke("score", *command, "--out", "s")[0]["own_answers"] == 0
