"""A model whose chat template opens a block of reasoning, evaluated by an engine of its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import harness
from harness.evaluation.paired import read_samples
from tests.support.chat import MAY_THINK, model_with

pytestmark = pytest.mark.slow


def test_an_answer_inside_reasoning_does_not_count_and_the_run_says_how_it_was_asked(tmp_path: Path) -> None:
    """The embedded model knows no closing tag, so it never comes to an answer."""
    model, out = model_with(MAY_THINK, tmp_path / "m"), tmp_path / "run"
    results = harness.evaluate(
        model, ["mini_math"], limit=8, out=out, template_args={"enable_thinking": True}, threads=1
    )
    found = results["mini_math"]
    assert found.value == 0 and found.failures["unclosed_reasoning"] == 1 and found.failures["no_answer"] == 1
    rows = read_samples(out / found.samples).values()
    assert all(row["prompt"].endswith("assistant\n<think>\n") and row["text"] == "" for row in rows)
    assert any("####" in row["reasoning"] for row in rows)
    chat = {"template_args": {"enable_thinking": True}, "system_turn": True, "opens_reasoning": "<think>"}
    assert json.loads((out / "run.json").read_text())["chat"] == chat
    assert "enable_thinking=True; prompts open" in (out / "report.md").read_text()
