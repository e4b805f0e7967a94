"""Which items are asked, and that answers are given to their own requests alone."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from harness.core.chat import ChatFormat
from harness.core.errors import MeasurementError
from harness.evaluation.lm_eval_requests import EvalSpec, TaskRequests, TaskResponses, identity_of
from tasks.registry import find_task

TASKS = (find_task("mini_math"), find_task("mini_facts"))


def test_items_are_the_targets_and_the_limit_is_for_the_others() -> None:
    spec = EvalSpec("m", TASKS, 512, chat=ChatFormat(), limit=5, items=(9, 3))
    assert spec.chosen(TASKS[0]) == {"samples": {"mini_math": [3, 9]}} and spec.chosen(TASKS[1]) == {"limit": 5}
    assert EvalSpec("m", TASKS, 512, chat=ChatFormat()).chosen(TASKS[0]) == {"limit": None}


def responses(*prompts: str) -> TaskResponses:
    requests = tuple(SimpleNamespace(args=(prompt, {"max_gen_toks": 4})) for prompt in prompts)
    question = TaskRequests(TASKS[0], "generate_until", requests)
    return TaskResponses(question, tuple(f"answer to {prompt}" for prompt in prompts), 1.0, SimpleNamespace())


def test_answers_come_back_in_the_order_of_their_requests() -> None:
    given = responses("a", "b")
    model = given.replayed()
    assert model.generate_until(list(given.asked.requests)) == ["answer to a", "answer to b"]


@pytest.mark.parametrize("asked", [("a",), ("b", "a"), ("a", "c"), ("a", "b", "c")])
def test_other_requests_get_no_answers(asked: tuple[str, ...]) -> None:
    model = responses("a", "b").replayed()
    with pytest.raises(MeasurementError, match="other requests for"):
        model.generate_until(list(responses(*asked).asked.requests))


def engine_of(dtype: str, longest: int) -> Any:
    config = SimpleNamespace(model_config=SimpleNamespace(dtype=dtype, max_model_len=longest))
    return SimpleNamespace(llm_engine=SimpleNamespace(vllm_config=config))


def test_generations_are_known_by_weights_number_type_and_context() -> None:
    found = {
        identity_of(engine_of(dtype, longest), weights)
        for dtype in ("float32", "bfloat16")
        for longest in (256, 512)
        for weights in ("a", "b")
    }
    assert len(found) == 8 and identity_of(engine_of("float32", 256), "a") in found
