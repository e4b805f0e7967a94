"""What is said in words, of runs of every kind; and the commands that go with it."""

from __future__ import annotations

import copy
import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from harness.cli.main import cli
from reports.verdict import choice, commands, sentences, verdict
from tests.support.runs import EXAMPLE, RUN


@pytest.fixture
def run() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(EXAMPLE.read_text(encoding="utf-8"))
    return found


def test_of_a_sweep_it_is_what_goes_farthest_without_loss(run: dict[str, Any]) -> None:
    chosen = choice(run)
    assert chosen is not None and chosen.shown and chosen.variant["name"] == "selective-best-0.5"
    far, cost, gain = verdict(run)
    assert far.startswith("Prune up to here to lose less than 5 points: removing 50.0 % of the FFN neurons")
    assert (
        "from 99.5 % to 98.8 %" in far
        and "mini_code -31.3 points" in cost
        and "(-37.1 %)" in gain
        and "times dense" in gain
    )


def test_where_nothing_is_shown_nothing_is_recommended(run: dict[str, Any], tmp_path: Path) -> None:
    for threshold in run["sweep"]["thresholds"]:
        threshold["non_inferior"] = 0.0
    assert (
        verdict(run)[0].startswith("No ratio tried is shown to lose less than 5 points")
        and commands(run, tmp_path) == []
    )


def test_a_target_without_right_answers_says_so_and_keeps_its_claims(run: dict[str, Any]) -> None:
    run["sweep"]["thresholds"], run["variants"][0]["eval"]["mini_math"]["metric"] = [], "perplexity"
    assert verdict(run) == [
        "mini_math is measured as perplexity, which has no right answers; read from the curves how far to prune."
    ]
    assert len(sentences(run)) == 1 + len(run["claims"])


def test_a_sweep_of_which_all_failed_says_so(run: dict[str, Any]) -> None:
    run["sweep"]["points"] = []
    assert "could be evaluated" in verdict(run)[0] and len(sentences(run)) == 1 + len(run["claims"])


@pytest.mark.parametrize("kept", [True, False])
def test_the_commands_are_commands_and_keep_how_it_was_scored(run: dict[str, Any], tmp_path: Path, kept: bool) -> None:
    if kept:
        (tmp_path / "config.yaml").write_text("prompt_format: plain\n")
    first, second = commands(run, tmp_path)
    words = shlex.split(first)
    context = copy.deepcopy(cli.commands["run"]).make_context("run", words[2:])  # it remembers having been asked
    options = context.params
    assert (options["model"], options["task"], options["ratio"], options["metric"]) == (
        "tiny-math",
        ("mini_math",),
        0.5,
        "obs",
    )
    assert options["compensate"] is True and options["align"] == 1
    assert options["config_file"] == (tmp_path / "config.yaml" if kept else None)
    assert second == f"vllm serve {options['out']}/checkpoint"


def test_a_single_model_is_told_by_what_was_measured() -> None:
    assert verdict(copy.deepcopy(RUN)) == [] and choice(RUN) is None and commands(RUN, Path()) == []
