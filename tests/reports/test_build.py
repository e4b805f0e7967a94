"""Rendering from one run.json: escapes what models and users wrote, shows unknown as unknown."""

from __future__ import annotations

import copy
import csv
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from harness.core.errors import UsageError
from reports.build import write_reports
from reports.verdict import verdict
from tests.support.runs import EVAL, RUN, VARIANT


def rendered(tmp_path: Path, run: dict[str, Any]) -> tuple[str, str]:
    (tmp_path / "run.json").write_text(json.dumps(run))
    written = write_reports(tmp_path)
    return written["html"].read_text(), written["md"].read_text()


def test_a_single_variant_renders_and_unknown_is_not_zero(tmp_path: Path) -> None:
    html, markdown = rendered(tmp_path, RUN)
    for text in (html, markdown):
        shown = text.replace("\u00a0", " ")  # in HTML a unit is never torn from its number
        assert "unknown" in shown and "90.0 %" in shown and "82.6 % to 94.5 %" in shown


@pytest.mark.parametrize(
    "hostile", ["<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "</svg><script>1</script>", "{{ 7*7 }}"]
)
def test_names_are_text(tmp_path: Path, hostile: str) -> None:
    run = copy.deepcopy(RUN)
    run["model"] = run["command"] = run["variants"][0]["name"] = hostile
    html, _ = rendered(tmp_path, run)
    seen = Elements()
    seen.feed(html)
    assert (
        seen.tags.count("script") == 3 and "img" not in seen.tags and "svg" not in seen.tags
    )  # the charts' data, vega, ours
    assert seen.text.count(hostile) >= 3  # title, heading and tables show it as it is


class Elements(HTMLParser):
    """What a browser would make elements of, and the text outside of scripts."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: object) -> None:  # noqa: ARG002
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        if self.cdata_elem is None:
            self.text += data


def test_a_pipe_does_not_break_a_markdown_table(tmp_path: Path) -> None:
    run = copy.deepcopy(RUN)
    run["command"] = "harness run | tee log"
    assert "harness run \\| tee log" in rendered(tmp_path, run)[1]


def test_a_run_without_a_command_says_so(tmp_path: Path) -> None:
    page, text = rendered(tmp_path, {**copy.deepcopy(RUN), "command": None})[:2]
    assert all("none, a call from Python" in document for document in (page, text))


def test_the_verdict_says_what_run_json_says() -> None:
    run = copy.deepcopy(RUN)
    pruned = {
        **copy.deepcopy(VARIANT),
        "name": "p",
        "method": "selective",
        "metric": "rms",
        "ratio_neurons": 0.25,
        "ratio_parameters": 0.1,
    }
    pruned["eval"]["mini_math"]["value"] = 0.85
    run["variants"].append(pruned)
    run["comparisons"] = [
        {
            "variant": "p",
            "baseline": "dense",
            "task": "mini_math",
            "n": 100,
            "difference": -0.05,
            "ci_low": -0.11,
            "ci_high": 0.01,
            "lost": 7,
            "gained": 2,
            "mcnemar_p": 0.18,
            "metric": "exact_match",
        }
    ]
    sentence, cost, gain = verdict(run)
    assert "25.0 % of the FFN neurons (10.0 % of all parameters)" in sentence
    assert "from 90.0 % (90 right) to 85.0 % (85 right): -5.0 points, 95 % interval -11.0 to +1.0, n = 100" in sentence
    assert cost == "Nothing off target was measured." and "its speed was not measured" in gain


def test_a_heading_is_not_doubled_and_empty_columns_are_left_out(tmp_path: Path) -> None:
    text = rendered(tmp_path, RUN)[1]
    headings = [line.lstrip("# ") for line in text.splitlines() if line.startswith("#")]
    assert len(headings) == len(set(headings)) and {"Summary", "Accuracy", "Provenance"} <= set(headings)
    serving = {"concurrency": [], "weight_bytes": 1, "kv_bytes_per_token": 1, "kv_capacity_tokens": 1, "device": "cpu"}
    run = copy.deepcopy(RUN)
    run["variants"][0]["serving"] = {**serving, "dtype": "float32", "output_tokens": 1}
    text = rendered(tmp_path, run)[1]
    assert "| variant | weights |\n" in text and "engine's memory |" not in text


def test_no_run_and_a_damaged_run_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no run\.json"):
        write_reports(tmp_path)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(UsageError, match="damaged"):
        write_reports(tmp_path)


def test_perplexity_is_shown_as_a_number_and_its_change_as_a_factor(tmp_path: Path) -> None:
    eval_ = {**EVAL, "metric": "perplexity", "value": 4.18, "ci_low": 4.0, "ci_high": 4.4}
    bits = {**EVAL, "metric": "bits_per_byte", "value": 1.1, "ci_low": 1.0, "ci_high": 1.2}
    pruned = {**VARIANT, "name": "pruned", "method": "selective", "eval": {"mini_math": eval_, "wikitext": bits}}
    change = {"variant": "pruned", "baseline": "dense", "n": 9, "ci_low": 0.01, "ci_high": 0.03, "difference": 0.02}
    flips = {"lost": None, "gained": None, "mcnemar_p": None}
    comparisons = [
        {**change, **flips, "task": "mini_math", "metric": "perplexity"},
        {**change, **flips, "task": "wikitext", "metric": "bits_per_byte"},
    ]
    dense = {**VARIANT, "eval": {"mini_math": eval_, "wikitext": bits}}
    html, markdown = rendered(tmp_path, {**RUN, "variants": [dense, pruned], "comparisons": comparisons})
    assert "4.180" in markdown and "x1.020 (x1.010 to x1.030)" in markdown and "418" not in markdown
    assert "wikitext +0.020 bits per byte" in html and '"title":"right answers, %"' not in html


@pytest.mark.parametrize(
    ("value", "low", "high", "shown"),
    [
        (0.89, 0.77, 1.01, "89.0 % | 77.0 % to 101.0 %"),
        (0.89, -0.015, 0.97, "89.0 % | -1.5 % to 97.0 %"),
        (7.5, -0.015, 0.5, "7.500 | -0.015 to 0.500"),
    ],
)
def test_an_interval_has_the_unit_of_its_value_and_scores_are_no_right_answers(
    value: float, low: float, high: float, shown: str, tmp_path: Path
) -> None:
    eval_ = {**EVAL, "metric": "mean f1", "value": value, "ci_low": low, "ci_high": high}
    html, markdown = rendered(tmp_path, {**RUN, "variants": [{**VARIANT, "eval": {"mini_math": eval_}}]})
    assert shown in markdown and "Intervals are Wilson's, Student's t over items for means of scores; over" in markdown
    assert '"title":"right answers, %"' not in html and ('"title":"mean f1, %"' in html) == (value < 1)
    html, markdown = rendered(tmp_path, RUN)
    assert '"title":"right answers, %"' in html and "Intervals are Wilson's; over texts" in markdown


def test_the_report_says_how_the_chat_template_was_used(tmp_path: Path) -> None:
    chat = {"template_args": {"effort": "<b>low</b>"}, "system_turn": False, "opens_reasoning": "<think>"}
    page, text = rendered(tmp_path, {**copy.deepcopy(RUN), "chat": chat})
    seen = Elements()
    seen.feed(page)
    for said in ("no system turn, so a system message stands in front", "prompts open <think>", "effort=<b>low</b>"):
        assert said in seen.text
    assert "in front of the user" in text
    for usual in (None, {"template_args": {}, "system_turn": True, "opens_reasoning": None}):
        assert "chat template" not in rendered(tmp_path, {**copy.deepcopy(RUN), "chat": usual})[1]


def test_the_report_says_how_the_engine_computed_and_what_it_was_told(tmp_path: Path) -> None:
    engine = {"model_runner": "V2", "async_scheduling": True, "cuda_graph_mode": None}
    run = {**copy.deepcopy(RUN), "engine": {**engine, "options": {"enforce_eager": True, "block_size": 32}}}
    text = rendered(tmp_path, run)[1].replace("\\", "")
    assert "| engine | model runner V2, async scheduling true, tensor parallel 1 |" in text
    assert "enforce_eager=true, block_size=32 |" in text
    assert "| engine |" not in rendered(tmp_path, copy.deepcopy(RUN))[1]


def test_the_distance_to_the_dense_model_is_shown_where_it_was_measured(tmp_path: Path) -> None:
    assert all("Distance to dense" not in text for text in rendered(tmp_path, RUN))
    distance = {"n": 64, "tokens": 1700, "nats_per_token": 0.01234, "ci_low": 0.0101, "ci_high": 0.0202}
    distance |= {"agreement": 0.987, "agreement_low": 0.98, "agreement_high": 0.99}
    pruned = {**VARIANT, "name": "pruned", "eval": {"mini_math": {**EVAL, "kl_to_dense": distance}}}
    html, markdown = rendered(tmp_path, {**RUN, "variants": [VARIANT, pruned]})
    assert "Distance to dense" in html
    assert "| pruned | 0.0 % | 0.0123 | 0.0101 to 0.0202 | 98.7 % | 98.0 % to 99.0 % | 64 (1,700 tokens) |" in markdown
    rows = csv_rows(tmp_path)
    assert ["pruned", "kl_to_dense, nats per token", "0.01234", "0.0101", "0.0202", "64"] in rows


def csv_rows(folder: Path) -> list[list[str]]:
    """variant, quantity, value, low, high and n of every row of report.csv."""
    with write_reports(folder, ["csv"])["csv"].open(newline="") as file:
        return [[row[0], *row[5:]] for row in csv.reader(file)]
