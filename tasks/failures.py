"""What can go wrong with a generated answer: one enum member and one detector each; list order is precedence.

A detector says True, False, or None where it cannot know (an engine that gave no finish_reason): unknown is never 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from tasks.degeneration import is_loop
from tasks.gibberish import is_gibberish


class FailureKind(StrEnum):
    """What is wrong with an answer; the first kind that was seen is the one that is named."""

    ENGINE_ERROR = "engine_error"  # the engine gave up on the request
    PROMPT_TRUNCATED = "prompt_truncated"  # the prompt did not fit and was cut
    EMPTY = "empty"  # nothing but white space
    LOOP = "loop"  # the same again and again: tasks/degeneration.py
    UNCLOSED_REASONING = "unclosed_reasoning"  # the reasoning before the answer did not end
    TRUNCATED = "truncated"  # stopped by the token limit: finish_reason "length"
    GIBBERISH = "gibberish"  # no text of any language: tasks/gibberish.py
    NO_ANSWER = "no_answer"  # no final answer in the form the task asks for
    NO_CODE = "no_code"  # no program in the text
    SYNTAX_ERROR = "syntax_error"  # Python cannot parse the program
    NO_ENTRY_POINT = "no_entry_point"  # the asked function is not defined
    RUNTIME_ERROR = "runtime_error"  # an exception, in the program or in a call
    TIMEOUT = "timeout"  # over the time limit
    MEMORY = "memory"  # over the memory limit
    CRASH = "crash"  # the interpreter ended without an answer
    WRONG = "wrong"  # an answer, and not the right one


# a wrong answer is an answer: these kinds do not count towards failure_rate
NOT_GENERATION_FAILURES = {FailureKind.WRONG, FailureKind.RUNTIME_ERROR, FailureKind.TIMEOUT, FailureKind.MEMORY}


@dataclass(frozen=True)
class GradedAnswer:
    """`prediction` is what was extracted (None: nothing); `outcome` is the sandbox's word where code was run, and
    `missing_module` what the program could not import, where that ended it.
    """

    text: str
    prediction: str | None
    correct: bool
    is_code: bool = False
    outcome: str | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)
    missing_module: str | None = None


Detector = Callable[[GradedAnswer], bool | None]


def _outcome(kind: FailureKind) -> Detector:
    return lambda answer: answer.outcome == kind


FINISH_REASONS = {  # of several engines and services -> ours; a filter that withholds the answer is an abort
    "stop": "stop",
    "eos": "stop",
    "eos_token": "stop",
    "stop_token": "stop",
    "stop_sequence": "stop",
    "end_turn": "stop",
    "complete": "stop",
    "completed": "stop",
    "tool_calls": "stop",
    "tool_use": "stop",
    "function_call": "stop",
    "refusal": "stop",
    "length": "length",
    "limit": "length",
    "max_tokens": "length",
    "max_length": "length",
    "max_new_tokens": "length",
    "max_output_tokens": "length",
    "model_length": "length",
    "model_context_window_exceeded": "length",
    "incomplete": "length",
    "repetition": "repetition",
    "repetition_detected": "repetition",
    "error": "error",
    "failed": "error",
    "abort": "abort",
    "cancelled": "abort",
    "content_filter": "abort",
    "safety": "abort",
    "recitation": "abort",
}


def _reason(answer: GradedAnswer) -> str | None:
    return FINISH_REASONS.get(str(answer.meta.get("finish_reason")).lower())


def _finish(*reasons: str) -> Detector:
    def detect(answer: GradedAnswer) -> bool | None:
        reason = _reason(answer)
        return None if reason is None else reason in reasons

    return detect


def _written(answer: GradedAnswer) -> str:
    """The reasoning and the answer."""
    return f"{answer.meta.get('reasoning', '')}{answer.text}"


def _unclosed(answer: GradedAnswer) -> bool:
    return answer.meta.get("reasoning_closed") is False


def _loop(answer: GradedAnswer) -> bool:
    reason = _reason(answer)
    return reason == "repetition" or is_loop(_written(answer), answer.meta.get("n_tokens"), reason, answer.correct)


DETECTORS: dict[FailureKind, Detector] = {
    FailureKind.ENGINE_ERROR: _finish("error", "abort"),
    FailureKind.PROMPT_TRUNCATED: lambda answer: answer.meta.get("prompt_truncated"),
    FailureKind.EMPTY: lambda answer: not answer.text.strip() and not (_unclosed(answer) and _written(answer).strip()),
    FailureKind.LOOP: _loop,
    FailureKind.UNCLOSED_REASONING: lambda answer: _unclosed(answer),
    FailureKind.TRUNCATED: _finish("length"),
    FailureKind.GIBBERISH: lambda answer: is_gibberish(_written(answer)),
    FailureKind.NO_ANSWER: lambda answer: not answer.is_code and answer.prediction is None,
    FailureKind.NO_CODE: lambda answer: answer.is_code and answer.prediction is None,
    FailureKind.SYNTAX_ERROR: _outcome(FailureKind.SYNTAX_ERROR),
    FailureKind.NO_ENTRY_POINT: _outcome(FailureKind.NO_ENTRY_POINT),
    FailureKind.RUNTIME_ERROR: _outcome(FailureKind.RUNTIME_ERROR),
    FailureKind.TIMEOUT: _outcome(FailureKind.TIMEOUT),
    FailureKind.MEMORY: _outcome(FailureKind.MEMORY),
    FailureKind.CRASH: _outcome(FailureKind.CRASH),
    FailureKind.WRONG: lambda answer: answer.prediction is not None and not answer.correct and answer.outcome is None,
}


def detect(answer: GradedAnswer) -> dict[FailureKind, bool | None]:
    """Every kind in order of precedence: True if detected, False if not, None if unknown."""
    return {kind: detector(answer) for kind, detector in DETECTORS.items()}


def lm_eval_metrics(metric: str, answer: GradedAnswer) -> dict[str, float]:
    """The row that process_results returns: the metric and fail_<kind>, NaN where unknown; every key every time."""
    flags = {f"fail_{kind}": math.nan if seen is None else float(seen) for kind, seen in detect(answer).items()}
    return {metric: float(answer.correct), **flags}
