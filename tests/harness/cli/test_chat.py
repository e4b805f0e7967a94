"""`harness chat`: two models on the same prompts, and how their answers are shown."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.cli.chat import _show
from harness.core.chat import prompt_ids
from harness.core.types.calibration import Example
from harness.models.tokenizer import load_chat
from harness.pipeline import side_by_side
from harness.pipeline.side_by_side import Answer
from pruning.checkpoint import open_model
from pruning.export import export
from tests.support.cli import invoke
from tests.support.models import TINY_MATH
from tests.support.pruned import plan_keeping

QUESTIONS = ("Tom has 3 apples and buys 4. How many are there?", "What is 12 - 5?")
HOSTILE = "\x1b[2Jgone\rover\x07 \u202e[bold]x[/bold]\nsecond line"


@pytest.fixture(scope="module")
def pruned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Half of the neurons at random: its answers differ."""
    chance = np.random.default_rng(0)
    plan = plan_keeping(TINY_MATH, [chance.permutation(640)[:320] for _ in range(4)], 640)
    return export(open_model(TINY_MATH), plan, tmp_path_factory.mktemp("pruned") / "half").path


def greedy(folder: Path, question: str, most: int) -> str:
    """By transformers."""
    import torch
    from transformers import AutoModelForCausalLM

    tokenizer, chat = load_chat(open_model(folder), {})
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ids = torch.tensor([prompt_ids(tokenizer, Example(question, ""), chat)])
    made = model.generate(ids, max_new_tokens=most, do_sample=False)[0, ids.shape[1] :]
    return str(tokenizer.decode(made, skip_special_tokens=True))


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("room", [True, False])
def test_both_answer_every_line_greedily(room: bool, pruned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [QUESTIONS[0], "", "word " * 5000, QUESTIONS[1]]
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(lines)))
    monkeypatch.setattr(side_by_side, "fit_together", lambda *_: room)
    models = (str(TINY_MATH), str(pruned))
    found, said = invoke("chat", *models, "--max-tokens", "12", "--threads", "1", "--json")
    assert [each["prompt"] for each in found["chat"] if each["answers"]] == list(QUESTIONS)
    assert "tokens and tiny-math takes" in " ".join(said.split())
    for each in found["chat"]:
        for model, answer in zip(models, each["answers"], strict=False):
            assert answer["text"] == greedy(Path(model), each["prompt"], 12) and answer["tokens"] <= 12
    assert [answer["model"] for answer in found["chat"][0]["answers"]] == ["tiny-math", "half"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("out", [Terminal, io.StringIO])
def test_nothing_in_an_answer_is_obeyed(out: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", out())
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    _show(HOSTILE, [Answer("a", HOSTILE, 3, True), Answer("b\x1b[1m", "x", 9, False)])
    text = sys.stdout.getvalue()  # type: ignore[union-attr]
    assert not {character for character in text if not character.isprintable()} - {"\n"}
    assert "[bold]x[/bold]" in text and "\\u001b[2Jgone\\u000dover" in text and "9 tokens, cut off" in text


def test_where_nothing_is_a_terminal_lines_stay_lines(capsys: pytest.CaptureFixture[str]) -> None:
    _show("why?", [Answer("dense", "one\n two  three", 3, True), Answer("pruned", "one\n two  three", 3, True)])
    rows = ["    one", "     two  three"]
    told = ["> why?", "dense, 3 tokens:", *rows, "pruned, 3 tokens:", *rows, "Both answers are the same.", ""]
    assert capsys.readouterr().out.splitlines() == told


@pytest.mark.long
@pytest.mark.slow
def test_one_prompt_on_the_command_line(pruned: Path) -> None:
    found, _ = invoke("chat", str(pruned), str(pruned), "--prompt", QUESTIONS[1], "--max-tokens", "4", "--json")
    assert [answer["model"] for answer in found["chat"][0]["answers"]] == ["half", "half-2"]
    assert len({json.dumps({**answer, "model": ""}) for answer in found["chat"][0]["answers"]}) == 1
