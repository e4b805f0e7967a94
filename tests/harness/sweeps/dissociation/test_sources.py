"""The prompts that neurons are contrasted on."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.core.errors import UsageError
from harness.core.types.calibration import Example
from harness.models.tokenizer import load_chat, load_tokenizer
from harness.pipeline.scoring import CalibrationRequest
from harness.sweeps.dissociation.sources import GENERAL, examples, shuffled, shuffled_name, tokenised
from pruning.checkpoint import open_model
from tasks.registry import calibration, find_task
from tests.support.models import TINY_MATH

TASKS = [find_task(name) for name in ("mini_math", "mini_facts", "mini_code")]


def test_every_task_and_general_text_have_prompts_that_differ_by_draw() -> None:
    first, second = (examples(TASKS, 12, number) for number in (0, 1))
    assert list(first) == ["mini_math", "mini_facts", "mini_code", GENERAL]
    assert all(len(own) == 12 for own in first.values())
    assert all(not example.prompt for example in first[GENERAL])
    assert first["mini_math"] == calibration(TASKS[0], 12, 42)[1], "the prompts that `harness score` takes"
    assert all(first[name] != second[name] for name in first)


@given(st.text(alphabet="ab 1\n+", max_size=30), st.text(alphabet="xy 2\n", max_size=30))
def test_shuffled_prompts_have_the_same_words_and_the_same_layout(prompt: str, answer: str) -> None:
    (found,) = shuffled({"t": [Example(prompt, answer)]}, ["t"])[shuffled_name("t")]
    for before, after in ((prompt, found.prompt), (answer, found.answer)):
        assert Counter(before.split()) == Counter(after.split())
        assert re.findall(r"\s+", before) == re.findall(r"\s+", after)


def test_shuffled_prompts_are_in_another_order() -> None:
    found = shuffled(examples(TASKS[:1], 20, 0), ["mini_math"])[shuffled_name("mini_math")]
    assert all(a.answer != b.answer for a, b in zip(found, examples(TASKS[:1], 20, 0)["mini_math"], strict=True))


def test_tasks_without_general_text_are_refused() -> None:
    questions = replace(TASKS[0], distractors=lambda n, _: (("questions",), [Example("What?", "That.")] * n))
    with pytest.raises(UsageError, match="no task of mini_math has plain text"):
        examples([questions], 4, 0)


def test_plain_prompts_have_no_chat_template() -> None:
    model, chat = open_model(TINY_MATH), load_chat(open_model(TINY_MATH), {})[1]
    texts = {"mini_math": examples(TASKS[:1], 2, 0)["mini_math"]}
    framed, plain = (
        tokenised(model, "tiny-math", texts, CalibrationRequest(plain=how), chat)["mini_math"].items
        for how in (False, True)
    )
    ids = load_tokenizer(model)(texts["mini_math"][0].prompt)["input_ids"]
    assert list(plain[0].token_ids[: len(ids)]) == list(ids) != list(framed[0].token_ids[: len(ids)])
