"""What is said in words, of runs of every kind; and the commands that go with it."""

from __future__ import annotations

import copy
import itertools
import json
import math
import shlex
from pathlib import Path
from typing import Any

import pytest

from harness.cli.main import cli
from reports.verdict import choice, commands, fixed_arm, is_floor, sentences, verdict
from tests.support.runs import EXAMPLE, RUN


@pytest.fixture
def run() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(EXAMPLE.read_text(encoding="utf-8"))
    return found


def test_of_a_sweep_it_is_what_goes_farthest_without_loss(run: dict[str, Any]) -> None:
    chosen = choice(run)
    assert chosen is not None and chosen.shown and chosen.variant["name"] == "selective-best-0.5"
    far, cost, gain = verdict(run)
    assert far.startswith("Target only: 50.0 % of the FFN neurons")
    assert "lose less than 5 points on mini_math, not shown for the other tasks. It changes mini_math" in far
    assert (
        "from 99.5 % (398 right) to 98.8 % (395 right)" in far
        and "mini_code -31.3 points" in cost
        and "(-37.1 %)" in gain
        and "not decided, 1.13 times dense (0.99 to 1.30)" in gain
    )


def test_safe_on_every_task_comes_first_and_farther_on_the_target_second(run: dict[str, Any], tmp_path: Path) -> None:
    for threshold in run["sweep"]["thresholds"]:
        threshold |= {"everywhere": 0.35 if threshold["arm"] == "selective-best" else 0.0, "off_target_margin": 0.05}
    far, target, cost, _ = verdict(run)
    assert far.startswith("Safe everywhere: 35.0 % of the FFN neurons")
    assert "lose less than 5 points on every task with right answers that dense can do. It changes" in far
    assert "398 right) to 99.5 % (398" in far
    assert target.startswith("Target only: 50.0 % by selective-best, with mini_facts -17.7 points (-23.1 to -12.9), ")
    assert cost.startswith("Off target at 35.0 %: ") and "mini_code -0.7 points" in cost
    assert "arms/selective-best-0.35/checkpoint" in commands(run, tmp_path)[-1]
    for threshold in run["sweep"]["thresholds"]:
        threshold["off_target_margin"] = 0.1
    assert (
        "less than 5 points and 10 points on every other task with right answers that dense can do" in verdict(run)[0]
    )
    for threshold in run["sweep"]["thresholds"]:
        threshold["everywhere"] = 0.0
    assert verdict(run)[0].startswith("Target only: 50.0 %") and "not shown for the other tasks" in verdict(run)[0]


def test_a_task_that_dense_cannot_do_is_no_evidence(run: dict[str, Any]) -> None:
    run["variants"][0]["eval"]["mini_code"] |= {"value": 0.0, "ci_low": 0.0, "ci_high": 0.025}
    assert "mini_code: cannot say, the dense model solves 0.0 %" in verdict(run)[1]


def without_right_answers(run: dict[str, Any], task: str, metric: str, values: tuple[float, float]) -> None:
    """An off-target task as one with another metric; values: of dense, and of every other variant."""
    for v in run["variants"]:
        v["eval"][task] |= {"metric": metric, "value": values[v["name"] != "dense"], "failure_rate": None}
    for c in run["comparisons"]:
        if c["task"] == task:
            difference = math.log(values[1] / values[0]) if metric == "word_perplexity" else values[1] - values[0]
            c |= {"metric": metric, "difference": difference, "lost": None, "gained": None}


@pytest.mark.parametrize("reached", [{"everywhere": 0.35, "off_target_margin": 0.05}, {}])
def test_tasks_without_right_answers_are_named_with_their_ratio_as_not_judged(
    run: dict[str, Any], reached: dict[str, float]
) -> None:
    without_right_answers(run, "mini_code", "word_perplexity", (10.0, 13.1))
    without_right_answers(run, "mini_facts", "mean f1", (0.8, 0.6))
    for threshold in run["sweep"]["thresholds"]:
        threshold |= reached if threshold["arm"] == "selective-best" else {}
    said = "Without right answers: mini_facts 0.75 times dense, not judged; mini_code 1.31 times dense, not judged."
    assert f". {said} It changes mini_math" in verdict(run)[0]
    assert reached or verdict(run)[0].startswith("Safe on the target, the only task to be judged: 50.0 %")


def test_a_low_mean_score_is_not_a_task_that_dense_cannot_do() -> None:
    found = {"value": 0.05, "n": 100}
    assert is_floor({**found, "metric": "exact_match"}) and not is_floor({**found, "metric": "mean f1"})


def timed_again(run: dict[str, Any], low: float, high: float) -> None:
    """Dense against itself, beside what was timed."""
    known = next(r for r in run["speed_ratios"] if r["quantity"] == "output_tok_s")
    itself = {**known, "variant": "dense-again", "ratio": 1.0, "ideal_flops": 1.0, "ideal_bytes": 1.0}
    run["speed_ratios"].append({**itself, "ci_low": low, "ci_high": high})


def quiet(run: dict[str, Any], low: float) -> dict[str, Any]:
    """The timing of the recommended width, with another interval and repeats that agree."""
    known = (r for r in run["speed_ratios"] if r["quantity"] == "output_tok_s")
    ratio: dict[str, Any] = next(r for r in known if r["variant"] == "selective-S-0.5")
    ratio |= {"ratio": 1.3, "ci_low": low, "ci_high": 1.5}
    for v in run["variants"]:
        for row in v["serving"]["concurrency"] if v["serving"] else ():
            row["spread"] = 0.04
    return ratio


def test_where_nothing_off_target_can_be_judged_the_headline_says_so(run: dict[str, Any]) -> None:
    for task in ("mini_facts", "mini_code"):
        run["variants"][0]["eval"][task] |= {"value": 0.0, "ci_low": 0.0, "ci_high": 0.025}
    assert verdict(run)[0].startswith("Safe on the target, the only task to be judged: 50.0 %")


def test_a_speed_that_is_not_shown_to_differ_is_no_gain(run: dict[str, Any]) -> None:
    assert verdict(run)[0].endswith(" A gain of speed is not shown: the timing was noisy.")
    quiet(run, 1.1)
    timed_again(run, 0.99, 1.01)
    assert "output tokens per second 1.30 times dense (1.10 to 1.50)" in verdict(run)[2]
    assert verdict(run)[0].endswith(" Faster at concurrency 32.")
    quiet(run, 0.9)
    assert verdict(run)[0].endswith(" A gain of speed is not shown.") and ", time " not in verdict(run)[2]
    quiet(run, 1.1)
    timed = next(v["serving"]["concurrency"] for v in run["variants"] if v["name"] == "selective-S-0.5")
    timed[0]["spread"] = 0.92
    assert "output tokens per second noisy, 1.30 times dense (1.10 to 1.50)" in verdict(run)[2]


def test_without_dense_against_itself_no_gain_is_claimed_and_the_ratio_is_said(run: dict[str, Any]) -> None:
    quiet(run, 1.1)
    said = "1.30 times dense (1.10 to 1.50) at concurrency 32"
    for known in ((), (None, None)):  # not timed, and timed by one pair
        if known:
            timed_again(run, *known)
        assert verdict(run)[0].endswith(f" Output tokens per second {said}, not compared with dense against itself.")
        assert f"not compared with dense against itself, {said}" in verdict(run)[2] and ", time " not in verdict(run)[2]
    quiet(run, 0.9)
    assert verdict(run)[0].endswith(" A gain of speed is not shown.")


def test_a_gain_within_the_noise_of_dense_against_itself_is_none(run: dict[str, Any]) -> None:
    quiet(run, 1.1)
    timed_again(run, 0.85, 1.15)
    assert "not beyond dense against itself (0.85 to 1.15), 1.30 times dense" in verdict(run)[2]
    assert verdict(run)[0].endswith(" A gain of speed is not shown.")
    run["speed_ratios"][-1] |= {"ci_high": 1.05}
    assert verdict(run)[0].endswith(" Faster at concurrency 32.")


def test_a_gain_is_told_by_right_answers_too(run: dict[str, Any]) -> None:
    quiet(run, 1.1)
    timed_again(run, 0.99, 1.01)
    dense, best = (v for v in run["variants"] if v["name"] in ("dense", "selective-best-0.5"))
    tokens = [v["eval"]["mini_math"]["tokens_per_answer"] / v["eval"]["mini_math"]["value"] for v in (dense, best)]
    speed = dense["serving"]["concurrency"][0]["output_tok_s"]
    times = f"{1000 * tokens[0] / speed:.3g} ms and {1000 * tokens[1] / speed / 1.3:.3g} ms"
    said = f"tokens for each right answer {tokens[0]:.1f} before and {tokens[1]:.1f} after, time {times}."
    assert verdict(run)[2].endswith(said)


def test_where_nothing_is_shown_nothing_is_recommended(run: dict[str, Any], tmp_path: Path) -> None:
    for threshold in run["sweep"]["thresholds"]:
        threshold["non_inferior"] = 0.0
    assert (
        verdict(run)[0].startswith("No ratio tried of selective-best is shown to lose less than 5 points")
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


def test_the_commands_write_the_checkpoint_from_the_plan_and_serve_it(run: dict[str, Any], tmp_path: Path) -> None:
    folder = tmp_path / "a run"
    plan = folder / "arms" / "selective-best-0.5" / "plan.safetensors"
    plan.parent.mkdir(parents=True)
    plan.touch()
    first, second = commands(run, folder)
    words = shlex.split(first)
    options = copy.deepcopy(cli.commands["prune"]).make_context("prune", words[2:]).params
    assert words[:2] == ["harness", "prune"] and options["model"] == str(folder) and options["best"]
    assert shlex.split(second) == ["vllm", "serve", str(plan.parent / "checkpoint")]


@pytest.mark.parametrize(
    ("command", "own"),
    [
        ("harness sweep --preset laptop; rm -rf x", ["harness sweep --preset 'laptop;' rm -rf x"]),
        ("rm -rf x", []),
        (None, []),
    ],
)
def test_where_the_plan_is_gone_the_runs_own_command_comes_first(
    run: dict[str, Any], tmp_path: Path, command: str | None, own: list[str]
) -> None:
    """And nothing that is not a command of harness, as run.json may be a foreign one."""
    found = commands({**run, "command": command}, tmp_path)
    assert found[:-1] == [*own, f"harness prune {tmp_path} --best"]


def test_no_command_leads_out_of_the_run_directory(run: dict[str, Any], tmp_path: Path) -> None:
    text = json.dumps(run).replace('"selective-best-0.5"', '"../../../x"')
    assert choice(json.loads(text)).variant["name"] == "../../../x"  # type: ignore[union-attr]
    assert commands(json.loads(text), tmp_path) == []


def test_the_server_has_the_gpus_and_the_options_that_the_runs_engines_had(run: dict[str, Any], tmp_path: Path) -> None:
    options = {"block_size": 32, "enforce_eager": True, "async_scheduling": False}
    run["engine"] = {"tensor_parallel": 2, "options": options}
    flags = "--tensor-parallel-size 2 --block-size 32 --enforce-eager --no-async-scheduling"
    assert commands(run, tmp_path)[-1] == f"vllm serve {tmp_path}/arms/selective-best-0.5/checkpoint {flags}"


def test_a_single_model_is_told_by_what_was_measured() -> None:
    assert verdict(copy.deepcopy(RUN)) == [] and choice(RUN) is None and commands(RUN, Path()) == []


def reach(run: dict[str, Any], **ratios: float) -> None:
    """Up to which ratio each arm holds on the target; S: selective-S, and so on."""
    for threshold in run["sweep"]["thresholds"]:
        threshold["non_inferior"] = ratios.get(threshold["arm"].removeprefix("selective-"), 0.0)


def test_another_arm_that_goes_farther_is_exploratory_and_not_recommended(run: dict[str, Any], tmp_path: Path) -> None:
    reach(run, best=0.2, S=0.35, random=0.1)
    far, more, *_ = verdict(run)
    assert far.startswith("Target only: 20.0 % of the FFN neurons") and " by selective-best, shown" in far
    known = "Only selective-best was to be recommended, as was fixed before looking: "
    assert more == f"{known}selective-S goes to 35.0 % on the target, exploratory."
    assert "arms/selective-best-0.2/checkpoint" in commands(run, tmp_path)[-1]
    for threshold in run["sweep"]["thresholds"]:
        threshold["everywhere"] = 0.15 if threshold["arm"] == "selective-S" else 0.0
    assert "selective-S goes to 15.0 % on every task, exploratory; selective-S goes to 35.0 % on" in verdict(run)[1]


def test_what_is_recommended_does_not_depend_on_what_other_arms_reach(run: dict[str, Any]) -> None:
    """So a false recommendation is as rare as that of one arm: of 2^3 outcomes of the others none changes it."""
    names = ("S", "random", "reverse-S")
    for own, shown in ((0.0, False), (0.2, True)):
        for others in itertools.product((0.0, 0.5), repeat=len(names)):
            reach(run, best=own, **dict(zip(names, others, strict=True)))
            chosen = choice(run)
            assert chosen is not None and chosen.shown == shown
            assert chosen.variant["name"] == ("selective-best-0.2" if shown else "selective-best-0.05")


@pytest.mark.parametrize(
    ("arms", "expected"),
    [
        (("random", "selective-rms", "selective-best-global", "selective-S"), "selective-best-global"),
        (("selective-best-rec", "selective-best"), "selective-best"),
        (("kv_group-selective-S", "kv_group-selective-best-rec"), "kv_group-selective-best-rec"),
        (("random", "selective-S-refit", "selective-rms"), "selective-S-refit"),
        (("selective-rms-rec", "selective-S"), "selective-rms-rec"),
        (("random",), "random"),
    ],
)
def test_the_arm_is_fixed_by_the_methods_alone(arms: tuple[str, ...], expected: str) -> None:
    points = [{"arm": arm, "variants": [arm]} for arm in arms]
    assert (
        fixed_arm(points, {arm: {"method": "random" if arm == "random" else "selective"} for arm in arms}) == expected
    )


def test_of_two_points_at_the_largest_ratio_the_better_one_is_named(run: dict[str, Any]) -> None:
    points = run["sweep"]["points"]
    last = next(p for p in points if p["variants"] == ["selective-best-0.5"] and p["task"] == run["task"])
    variant = next(v for v in run["variants"] if v["name"] == "selective-best-0.5")
    for name, value in (("worse", 0.96), ("better", 0.999)):
        run["variants"].append({**copy.deepcopy(variant), "name": name})
        points.insert(0 if name == "worse" else len(points), {**last, "variants": [name], "value": value})
    assert choice(run).variant["name"] == "better"  # type: ignore[union-attr]


def test_where_nothing_is_shown_the_smallest_ratio_of_that_arm_is_told(run: dict[str, Any]) -> None:
    reach(run, S=0.15)
    chosen = choice(run)
    assert chosen is not None and not chosen.shown and chosen.variant["name"] == "selective-best-0.05"
    assert "selective-S goes to 15.0 % on the target, exploratory" in verdict(run)[1]


@pytest.mark.parametrize(
    ("name", "metric", "compensated"),
    [
        ("selective-best-0.5", "obs", True),
        ("selective-obs-0.5", "obs", False),
        ("selective-obs-sequential-0.5", "obs", True),
        ("selective-S-refit-0.5", "smd", True),
    ],
)
def test_the_verdict_names_metric_and_refitting(run: dict[str, Any], name: str, metric: str, compensated: bool) -> None:
    v = next(v for v in run["variants"] if v["name"] == "selective-best-0.5")
    points = [p for p in run["sweep"]["points"] if p["variants"] == [v["name"]]]
    v |= {"name": name, "metric": metric, "compensated": compensated}
    for point in points:
        point["variants"] = [name]
    for comparison in (c for c in run["comparisons"] if c["variant"] == "selective-best-0.5"):
        comparison["variant"] = name
    assert f" by {name.removesuffix('-0.5')}, shown" in verdict(run)[0]
