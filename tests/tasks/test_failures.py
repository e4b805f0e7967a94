"""Each failure kind with a positive and a negative example; unknown stays unknown."""

from __future__ import annotations

import math
import pickle

import pytest
import yaml

from tasks.failures import DETECTORS, NOT_GENERATION_FAILURES, FailureKind, GradedAnswer, detect, lm_eval_metrics
from tasks.generation import Generation
from tasks.registry import TASKS_PATH

GOOD = GradedAnswer("#### 2", "2", True, meta={"finish_reason": "stop", "n_tokens": 3, "prompt_truncated": False})
EXAMPLES = {
    FailureKind.ENGINE_ERROR: GradedAnswer("", None, False, meta={"finish_reason": "abort"}),
    FailureKind.PROMPT_TRUNCATED: GradedAnswer(
        "2", "2", True, meta={"finish_reason": "stop", "prompt_truncated": True}
    ),
    FailureKind.EMPTY: GradedAnswer(" \n", None, False),
    FailureKind.LOOP: GradedAnswer("I see. " + "and so on " * 20, None, False),
    FailureKind.UNCLOSED_REASONING: GradedAnswer(
        "", None, False, meta={"reasoning": "<think>\nwell", "reasoning_closed": False}
    ),
    FailureKind.TRUNCATED: GradedAnswer("and and", None, False, meta={"finish_reason": "length"}),
    FailureKind.GIBBERISH: GradedAnswer("apples \ufffd\ufffd\ufffd and more apples", None, False),
    FailureKind.NO_ANSWER: GradedAnswer("maybe", None, False),
    FailureKind.NO_CODE: GradedAnswer("", None, False, is_code=True),
    FailureKind.SYNTAX_ERROR: GradedAnswer("x +", "x +", False, is_code=True, outcome="syntax_error"),
    FailureKind.NO_ENTRY_POINT: GradedAnswer("x", "x", False, is_code=True, outcome="no_entry_point"),
    FailureKind.RUNTIME_ERROR: GradedAnswer("x", "x", False, is_code=True, outcome="runtime_error"),
    FailureKind.TIMEOUT: GradedAnswer("x", "x", False, is_code=True, outcome="timeout"),
    FailureKind.MEMORY: GradedAnswer("x", "x", False, is_code=True, outcome="memory"),
    FailureKind.CRASH: GradedAnswer("x", "x", False, is_code=True, outcome="crash"),
    FailureKind.WRONG: GradedAnswer("#### 3", "3", False),
}


def test_every_kind_has_a_detector_and_an_example_in_order_of_precedence() -> None:
    assert list(DETECTORS) == list(FailureKind) == list(EXAMPLES)


@pytest.mark.parametrize("kind", FailureKind)
def test_positive_and_negative(kind: FailureKind) -> None:
    assert detect(EXAMPLES[kind])[kind] is True
    assert detect(GOOD)[kind] is False


def test_without_a_finish_reason_truncation_is_unknown_and_never_zero() -> None:
    row = lm_eval_metrics("exact_match", GradedAnswer("#### 2", "2", True))
    assert math.isnan(row["fail_truncated"]) and row["fail_no_answer"] == 0.0


def test_a_right_answer_that_ran_on_is_right_and_truncated() -> None:
    row = lm_eval_metrics("exact_match", GradedAnswer("#### 2 ...", "2", True, meta={"finish_reason": "length"}))
    assert (row["exact_match"], row["fail_truncated"], row["fail_wrong"]) == (1.0, 1.0, 0.0)


def test_the_yaml_lists_every_metric() -> None:
    listed = yaml.safe_load((TASKS_PATH / "_metrics.yaml").read_text())["metric_list"]
    assert {m["metric"] for m in listed} == {"exact_match", "pass@1", *(f"fail_{kind}" for kind in FailureKind)}


def test_a_generation_is_a_string_that_keeps_its_meta_when_pickled() -> None:
    text = Generation("hello", {"finish_reason": "length"})
    copy = pickle.loads(pickle.dumps(text))
    assert copy == "hello" and isinstance(copy, str) and copy.meta == {"finish_reason": "length"}


def test_which_kinds_count_as_failures_of_the_generation() -> None:
    """docs/evaluation.md: the text itself is at fault, or no answer came; a wrong program is an answer."""
    counted = {kind for kind in FailureKind if kind not in NOT_GENERATION_FAILURES}
    assert counted == {
        "engine_error",
        "prompt_truncated",
        "empty",
        "loop",
        "unclosed_reasoning",
        "truncated",
        "gibberish",
        "no_answer",
        "no_code",
        "syntax_error",
        "no_entry_point",
        "crash",
    }
    assert {"wrong", "runtime_error", "timeout", "memory"} == NOT_GENERATION_FAILURES


def test_reasoning_that_does_not_end_is_no_empty_answer_and_may_be_a_loop() -> None:
    def kinds(reasoning: str, answer: str, closed: bool) -> set[FailureKind]:
        meta = {"reasoning": reasoning, "reasoning_closed": closed}
        return {kind for kind, seen in detect(GradedAnswer(answer, None, False, meta=meta)).items() if seen}

    assert kinds("well", "", closed=False) == {FailureKind.UNCLOSED_REASONING, FailureKind.NO_ANSWER}
    assert FailureKind.LOOP in kinds("I see. " + "and so on " * 20, "", closed=False)
    assert kinds("<think>\nwell\n</think>\n", "", closed=True) == {FailureKind.EMPTY, FailureKind.NO_ANSWER}


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        *[
            (word, FailureKind.TRUNCATED)
            for word in ("model_length", "max_output_tokens", "max_new_tokens", "MAX_TOKENS")
        ],
        *[(word, FailureKind.ENGINE_ERROR) for word in ("content_filter", "safety", "abort")],
        *[(word, None) for word in ("tool_calls", "stop_token", "completed", "eos")],
        ("repetition", FailureKind.LOOP),
    ],
)
def test_a_finish_reason_in_any_spelling(given: str, kind: FailureKind | None) -> None:
    seen = detect(GradedAnswer("#### 2", "2", True, meta={"finish_reason": given, "prompt_truncated": False}))
    assert [kind for kind, found in seen.items() if found] == ([kind] if kind else [])
    assert None not in seen.values()


def test_how_an_answer_ended_and_whether_it_is_right_decide_what_is_a_loop() -> None:
    def loop(text: str, reason: str | None, right: bool) -> bool | None:
        return detect(GradedAnswer(text, "2", right, meta={"finish_reason": reason}))[FailureKind.LOOP]

    some, much = "I will add them up again. " * 5, "I will add them up again. " * 20
    assert [loop(some, reason, False) for reason in ("length", None, "stop")] == [True, True, False]
    assert [loop(much, "eos_token", right) for right in (False, True)] == [True, False]
