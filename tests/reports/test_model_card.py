"""The card's head is what huggingface_hub reads back, and its table says what run.json says."""

from __future__ import annotations

import json
from typing import Any

import pytest
from huggingface_hub import ModelCard

from harness.core.model_card import ModelCard as ModelCardText
from reports.model_card import render
from tests.support.runs import EXAMPLE


@pytest.fixture(scope="module")
def run() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(EXAMPLE.read_text(encoding="utf-8"))
    return found


def test_the_hub_reads_the_results_back(run: dict[str, Any]) -> None:
    card = ModelCard(
        render(
            run,
            "selective-S-0.2",
            ModelCardText({"license": "apache-2.0", "base_model": "org/base", "tags": ["math"]}),
        )
    )
    assert (
        card.data.license == "apache-2.0"
        and card.data.base_model == "org/base"
        and card.data.tags == ["math", "pruned"]
    )
    variant = next(v for v in run["variants"] if v["name"] == "selective-S-0.2")
    found = {result.dataset_name: result.metric_value for result in card.data.eval_results or ()}
    assert found == {task: pytest.approx(e["value"], abs=1e-6) for task, e in variant["eval"].items()}
    assert "| mini_math | exact_match | 400 | 99.5 % | 95.2 % |" in card.text and "Target only" not in card.text


def test_a_path_of_this_machine_stays_here(run: dict[str, Any]) -> None:
    command = (
        "harness run --model /home/ann/models/mine --out '/data/ann smith/x y' --items a/b --config=/home/ann/c.yaml"
    )
    text = render({**run, "model": "/home/ann/models/mine", "command": command}, "selective-S-0.2")
    assert (
        "ann" not in text
        and "# mine, selective" in text
        and "--model mine" in text
        and "--out 'x y' --items a/b --config=c.yaml" in text
    )


def test_a_run_without_a_command_shows_none(run: dict[str, Any]) -> None:
    text = render({**run, "command": None}, "selective-S-0.2")
    assert "None" not in text and "on cpu.\n" in text and "on cpu:\n\n    harness" in render(run)


def test_without_a_name_it_is_the_card_of_the_verdict(run: dict[str, Any]) -> None:
    text = render(run)
    assert "# tiny-math, selective-best-0.5" in text and "shown to lose less than 5 points on mini_math" in text


def test_what_the_original_claims_of_itself_is_not_carried_on(run: dict[str, Any]) -> None:
    front = {
        "license": "mit",
        "model-index": [{"name": "x"}],
        "model_name": "x",
        "pipeline_tag": "fill-mask",
        True: 1,
        "eval_results": [1],
    }
    card = ModelCard(render(run, "selective-S-0.2", ModelCardText(front)))
    assert card.data.license == "mit" and card.data.pipeline_tag == "fill-mask"
    assert {r.dataset_name for r in card.data.eval_results or ()} == {"mini_math", "mini_facts", "mini_code"}


def test_names_are_no_markup(run: dict[str, Any]) -> None:
    hostile = "<img src=x onerror=alert(1)>\n# heading ![i](http://x) `code` a\\|b"
    variants = [{**v, "name": hostile} if v["name"] == "dense" else v for v in run["variants"]]
    text = render(
        {**run, "model": hostile, "command": f"harness run\n# {hostile}", "variants": variants}, "selective-S-0.2"
    )
    body = "\n".join(
        line for line in text.split("---\n", 2)[2].splitlines() if not line.startswith("    ")
    )  # but for code
    assert "<img" not in body and "\n# heading" not in body and "![i]" not in body and body.count("\n# ") == 0
    header = next(line for line in body.splitlines() if line.startswith("| task"))
    assert header.count(" | ") == 7 and "\\`code\\`" in header
