"""The table of what is given up for what is gained, and its picture, from the committed sweep."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from reports.build import markdown, sections
from reports.sections.accuracy import target_table
from reports.sections.cost import size_table
from reports.sections.tradeoff import section
from reports.verdict import verdict
from tests.support.runs import EXAMPLE, RUN


@pytest.fixture
def run() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(EXAMPLE.read_text(encoding="utf-8"))
    return found


def test_dense_and_every_ratio_of_the_recommended_arm_are_rows_and_the_recommended_one_is_marked(
    run: dict[str, Any],
) -> None:
    (table,) = section(run).tables
    ratios = sorted({p["ratio_requested"] for p in run["sweep"]["points"]})
    assert [row[0].split(" %")[0] for row in table.rows] == ["dense", *(f"{100 * ratio:.1f}" for ratio in ratios)]
    assert table.marked == len(ratios) and table.rows[table.marked][0] == "50.0 % (recommended, target only)"
    found = dict(zip(table.head, table.rows[table.marked], strict=True))
    v = next(v for v in run["variants"] if v["name"] == "selective-best-0.5")
    freed = 4 * (run["variants"][0]["parameters"] - v["parameters"])  # float32
    assert found["KV room gained"] == f"{freed // 2048:,} tokens" and found["parameters"] == "829,568 (-37.2 %)"
    assert found["speed at concurrency 32"] == "1.13x (0.99 to 1.30), noisy"  # of selective-S, of the same widths
    assert found["mini_math (target)"] == "98.8 % (395 of 400), -0.8 (-2.4 to +0.6)"
    tokens = v["eval"]["mini_math"]["tokens_per_answer"] / v["eval"]["mini_math"]["value"]
    assert found["per right answer"] == f"{tokens:.1f} tokens"  # a noisy time is not worth telling
    assert found["mini_code"].startswith("66.7 % (100 of 150), -31.3") and found["failures"] == "0.0 %"


def test_the_share_that_was_removed_is_shown_with_the_one_that_was_asked(run: dict[str, Any]) -> None:
    """As alignment makes it: asked 20 %, done 16.7 % by every arm but one, which did 18 %."""
    for p in run["sweep"]["points"]:
        if p["ratio_requested"] == 0.2:
            p["ratio_neurons"] = 0.18 if p["arm"] == "random" else 0.167
    for v in run["variants"]:
        if v["ratio_requested"] == 0.2:
            v["ratio_neurons"] = 0.167
    (table,) = section(run).tables
    assert [row[0] for row in table.rows[3:6]] == ["15.0 %", "16.7 %, asked 20 %", "25.0 %"]
    assert [row[0] for row in target_table(run).rows[2:5]] == [
        "15.0 %",
        "16.7 %, asked 20 % / 18.0 %, asked 20 %",
        "25.0 %",
    ]
    ratios = [row[0] for row in size_table(run).rows]
    assert "16.7 %, asked 20 %" in ratios and "20.0 %" not in ratios


def test_a_mean_of_scores_counts_no_right_answers(run: dict[str, Any]) -> None:
    for found in (run["variants"][0]["eval"]["mini_facts"], *run["sweep"]["points"]):
        if found.get("task", "mini_facts") == "mini_facts":
            found |= {"metric": "mean f1", "value": 0.66}
    (table,) = section(run).tables
    facts, code = ([row[table.head.index(task)] for row in table.rows] for task in ("mini_facts", "mini_code"))
    assert facts[0] == "66.0 %" and not any(" of " in text for text in facts)
    assert all(" of 150)" in text for text in code)


def timed(run: dict[str, Any], low: float, itself: tuple[float, float] | None) -> tuple[dict[str, str], str]:
    """The recommended row and the note where repeats agree; low: of its interval; itself: that of dense."""
    for v in run["variants"]:
        for row in v["serving"]["concurrency"] if v["serving"] else ():
            row["spread"] = 0.01
    known = [r for r in run["speed_ratios"] if r["quantity"] == "output_tok_s"]
    last = next(r for r in known if r["variant"] == "selective-S-0.5")
    last |= {"ratio": 1.25, "ci_low": low, "ci_high": 1.6}
    if itself:
        ends = dict(zip(("ci_low", "ci_high"), itself, strict=True))
        again = {**last, **ends, "variant": "dense-again", "ideal_flops": 1.0, "ideal_bytes": 1.0}
        run["speed_ratios"].append(again)
    (table,) = section(run).tables
    assert table.marked is not None
    return dict(zip(table.head, table.rows[table.marked], strict=True)), table.note


@pytest.mark.parametrize(
    ("low", "itself", "mark", "noted"),
    [
        (1.2, (0.9, 1.1), "", "Dense against itself spans 0.90 to 1.10 at concurrency 32."),
        (1.05, (0.9, 1.1), ", not shown", "spans 0.90 to 1.10"),
        (0.95, None, ", not shown", "Dense against itself was not timed."),
        (1.2, None, ", not compared", "Dense against itself was not timed."),
    ],
)
def test_a_speed_that_the_headline_withholds_is_marked_and_has_no_time(
    run: dict[str, Any], low: float, itself: tuple[float, float] | None, mark: str, noted: str
) -> None:
    dense = run["variants"][0]
    speed = dense["serving"]["concurrency"][0]["output_tok_s"]
    found, note = timed(run, low, itself)
    assert found["speed at concurrency 32"] == f"1.25x ({low:.2f} to 1.60){mark}" and noted in note
    best = next(v for v in run["variants"] if v["name"] == "selective-best-0.5")["eval"]["mini_math"]
    milliseconds = 1000 * best["tokens_per_answer"] / best["value"] / (1.25 * speed)
    assert found["per right answer"].split(", ")[1:] == ([] if mark else [f"{milliseconds:.3g} ms"])
    assert ("Faster at concurrency 32" in verdict(run)[0]) == (not mark)


def test_what_goes_farther_on_the_target_alone_and_floors_are_said(run: dict[str, Any]) -> None:
    for threshold in run["sweep"]["thresholds"]:
        threshold |= {"everywhere": 0.35 if threshold["arm"] == "selective-best" else 0.0, "off_target_margin": 0.05}
    run["variants"][0]["eval"]["mini_code"] |= {"value": 0.0, "ci_low": 0.0, "ci_high": 0.025}
    (table,) = section(run).tables
    assert [row[0] for row in table.rows[-2:]] == ["35.0 % (recommended)", "50.0 % (target only)"]
    assert table.marked == len(table.rows) - 2
    assert all(row[table.head.index("mini_code")].endswith(", cannot say") for row in table.rows[1:])


def test_the_picture_has_every_point_and_one_is_ringed(run: dict[str, Any]) -> None:
    size, speed = section(run).charts
    (rows,) = size.spec.to_dict()["datasets"].values()
    points = [p for p in run["sweep"]["points"] if p["task"] == run["task"]]
    assert {(r["arm"], r["value"]) for r in rows if r["removed"]} == {(p["arm"], 100 * p["value"]) for p in points}
    (ringed,) = (row for row in rows if row["chosen"])
    assert (ringed["arm"], ringed["x"]) == ("selective-best", pytest.approx(0.829568))
    assert "relative to dense" in json.dumps(speed.spec.to_dict())
    assert any(layer.get("transform") == [{"filter": "datum.chosen"}] for layer in size.spec.to_dict()["layer"])


def test_without_speeds_the_freed_memory_is_there_and_one_picture(run: dict[str, Any]) -> None:
    run["speed_ratios"] = []
    for v in run["variants"]:
        v["serving"] = None
    made = section(run)
    assert len(made.charts) == 1 and made.tables[0].head[3:5] == ("freed", "mini_math (target)")
    assert made.tables[0].rows[-1][3].endswith(" MiB")


def test_a_single_run_has_none_and_a_sweep_has_it_before_curves_failures_speed_and_claims(run: dict[str, Any]) -> None:
    assert section(RUN).empty
    order = ("Trade-off", "Accuracy", "Failures", "Memory and speed", "The paper's claims")
    text = markdown(run, sections(run), Path("r"))
    places = [text.index(f"\n## {title}\n") for title in order]
    assert places == sorted(places) and "\n## " not in text[: places[0]]
