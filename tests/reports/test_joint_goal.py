"""The section of a joint search: a row for each arm, the chosen one marked, and what the costs say."""

from __future__ import annotations

from typing import Any

import pytest

from reports.sections.goal import condition_text, goal_lead, section, unlimited_tasks


def candidate(name: str, arm: str, layers: int, met: bool, **more: Any) -> dict[str, Any]:
    speed = {"quantity": "speedup", "limit": 1.6, "value": 1.7 if met else 1.5, "met": met, "miss": 0.0, "task": None}
    own = {"variant": name, "arm": arm, "layers": layers, "intermediate_size": 768, "ratio_neurons": 0.5}
    return {**own, "conditions": [speed], "predicted_speedup": 1.65, "nats": 0.0123, **more}


def run(**joint: Any) -> dict[str, Any]:
    described = {"device": "a CPU", "time_shares": {"layers": 0.25, "FFN": 0.75}, "cost_error": 0.031, "tokens": 1536}
    goal = {"speedup": 1.6, "concurrency": [8]}
    return {
        "task": "mini_math",
        "variants": [{"name": "joint-2", "eval": {"mini_math": {"value": 0.95}}}, {"name": "ffn-only", "eval": {}}],
        "goal": {
            "goal": goal,
            "widths": [384, 1536, 7],
            "looks": 0,
            "level": 0.05,
            "floors": {},
            "found": "joint-2",
            "nearest": None,
            "candidates": [
                candidate("ffn-only", "ffn-only", 30, met=False),
                candidate("joint-2", "joint", 24, met=True),
            ],
            "joint": {**described, "unreachable": ["depth-only"], **joint},
        },
    }


def test_the_arms_are_rows_with_what_was_predicted_and_measured() -> None:
    table = section(run()).tables[0]
    rows = [dict(zip(table.head, row, strict=True)) for row in table.rows]
    assert [row["arm"] for row in rows] == ["ffn-only", "joint-2 (recommended)"] and table.marked == 1
    assert [row["layers"] for row in rows] == ["30", "24"] and [row["mini_math"] for row in rows] == ["", "0.95"]
    assert [row["predicted speed"] for row in rows] == ["1.650", "1.650"]
    assert rows[0]["misses"].startswith("1.500 times") and rows[1]["keeps"].startswith("1.700 times")


def test_the_sentences_say_where_time_goes_and_what_cannot_be_reached() -> None:
    said = " ".join(section(run()).text)
    assert "one of 7 FFN widths from 384 to 1536" in said and "1,536 tokens" in said
    assert "on a CPU: layers 25.0 %, FFN 75.0 %" in said and "fitted to is 3.1 % off" in said
    assert "Cannot meet the goal by the costs: depth-only." in said
    sized = " ".join(section(run(device=None, cost_error=None, unreachable=[])).text)
    assert "costs" not in sized


@pytest.mark.parametrize(("limit", "told"), [(0.03, True), (None, False)])
def test_a_goal_that_limits_other_tasks_names_those_without_right_answers(limit: float | None, told: bool) -> None:
    made = run()
    made["goal"] |= {"joint": None, "goal": {**made["goal"]["goal"], "off_target_loss": limit}}
    texts = [{"metric": "word_perplexity", "value": value} for value in (20.0, 26.2)]
    made["variants"] = [
        {"name": name, "eval": {"mini_math": {"metric": "exact_match", "value": 0.9}, "wikitext": text}}
        for name, text in zip(("dense", "joint-2"), texts, strict=True)
    ]
    said = "Without right answers: wikitext 1.31 times dense, not judged."
    assert (said in section(made).text) == told == (unlimited_tasks(made) == f" {said}")


def test_an_arm_that_has_lost_the_task_says_so_and_the_lead_names_only_limits_of_the_goal() -> None:
    lost = {"quantity": "right", "limit": 1, "value": 0, "met": False, "miss": 1.0, "task": "mini_math"}
    kept, made = {**lost, "value": 380, "met": True, "miss": 0.0}, run()
    for number, condition in enumerate((lost, kept)):
        made["goal"]["candidates"][number]["conditions"].append(condition)
    table = section(made).tables[0]
    assert table.rows[0][-1].endswith("0 right answers on mini_math (1 needed)")
    assert goal_lead(made["goal"]).endswith("joint-2, with 1.700 times the speed of dense (1.6 needed).")


@pytest.mark.parametrize(
    ("value", "said"), [(0.005, "a loss of at most 0.50 points"), (-0.005, "a gain of at least 0.50 points")]
)
def test_a_loss_and_a_gain_are_in_points(value: float, said: str) -> None:
    condition = {"quantity": "max-loss", "task": "mini_math", "value": value, "limit": 0.02}
    assert condition_text(condition) == f"{said} on mini_math (limit 2)"


@pytest.mark.parametrize(("value", "shown"), [(1.59974, "1.599"), (1.67, "1.670"), (1.2, "1.200"), (1.61299, "1.612")])
def test_a_speed_that_misses_its_limit_is_not_shown_as_the_limit(value: float, shown: str) -> None:
    condition = {"quantity": "speedup", "value": value, "limit": 1.6, "task": None}
    assert condition_text(condition) == f"{shown} times the speed of dense (1.6 needed)"
