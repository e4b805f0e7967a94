"""The card's head is what huggingface_hub reads back, and its table says what run.json says."""

from __future__ import annotations

import json
from typing import Any

import pytest
from huggingface_hub import ModelCard

from reports.model_card import render
from tests.reports.conftest import EXAMPLE


@pytest.fixture(scope="module")
def run() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(EXAMPLE.read_text(encoding="utf-8"))
    return found


def test_the_hub_reads_the_results_back(run: dict[str, Any]) -> None:
    card = ModelCard(render(run, "selective-smd-0.2", {"license": "apache-2.0", "base_model": "org/base", "tags": ["math"]}))
    assert card.data.license == "apache-2.0" and card.data.base_model == "org/base" and card.data.tags == ["math", "pruned"]
    variant = next(v for v in run["variants"] if v["name"] == "selective-smd-0.2")
    found = {result.dataset_name: result.metric_value for result in card.data.eval_results or ()}
    assert found == {task: pytest.approx(e["value"], abs=1e-6) for task, e in variant["eval"].items()}
    assert "| mini_math | exact_match | 400 | 99.5 % | 95.2 % |" in card.text and "Prune up to here" not in card.text


def test_a_path_of_this_machine_stays_here(run: dict[str, Any]) -> None:
    command = "harness run --model /home/ann/models/mine --out '/data/x y' --items a/b"
    text = render({**run, "model": "/home/ann/models/mine", "command": command}, "selective-smd-0.2")
    assert "ann" not in text and "# mine, selective" in text and "--model mine" in text and "--items a/b" in text


def test_without_a_name_it_is_the_card_of_the_verdict(run: dict[str, Any]) -> None:
    text = render(run)
    assert "# tiny-math, selective-obs-refit-0.5" in text and "Prune up to here to lose less than 5 points" in text
