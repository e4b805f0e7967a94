"""What is refused before any work, by a run and by its dry run alike; the widths and looks that are left."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.config.goal_settings import parse_count
from harness.config.settings import RunConfig, config_yaml, load_config
from harness.core.errors import UsageError
from harness.core.types.goal import Goal
from harness.pipeline import dry_run
from harness.pipeline.dry_run import SecondMoments, forecast
from harness.pipeline.python_arguments import settings_from
from harness.pipeline.resolve import resolve
from harness.sweeps.goal.conditions import size_conditions
from harness.sweeps.goal.dry_run import forecast_search, search_table
from harness.sweeps.goal.resolve import arm_at, ratio_for, resolve_goal, search_space
from pruning.plan import pruned_width, uniform_width
from tests.support.cli import harness


def spec(**options: Any) -> Any:
    return resolve_goal(load_config(None, {"model": "tiny-math", **options}))


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"max_loss": 3, "ratio": 0.2}, "in the settings file) contradicts --max-loss, which searches"),
    ({"max_loss": 3, "method": "random"}, "--method random is a control"),
    ({"max_loss": 3, "recover": True}, "run `harness recover` on the model that is found"),
    ({"max_loss": 3, "structure": "layer"}, "--structure layer is not searched; use neuron or joint"),
    ({"max_loss": 3, "metrics": "rms,S,rms"}, "--metrics names selective-rms twice"),
    ({"max_loss": 3, "metrics": "best,obs+refit"}, "--metrics names selective-best twice"),
    ({"speedup": "inf"}, "--speedup: 'inf' is not a finite number"),
    ({"context": 100}, "--context alone is no goal"),
    ({"max_loss": 3, "context": 100}, "--context belongs to --fits or --device"),
    ({"max_loss": 3, "device": "H100"}, "--device belongs to --speedup"),
    ({"speedup": 1.1, "device": "24GiB"}, "says nothing of its speed"),
    ({"fits": "much"}, "unknown device 'much'"),
    ({"speedup": 1.1, "repeats": 1}, "--repeats 1 gives none"),
    ({"fits": "24GiB", "context": 4096}, "more than the 512 tokens that tiny-math can take"),
    ({"max_loss": 3, "metrics": "S,random"}, "--metrics random is a control"),
    ({"max_loss": 3, "metrics": "S", "metric": "rms"}, "leave out --metric, --compensate and"),
    ({"max_loss": 3, "metrics": "S", "reconstruct": True}, "leave out --metric, --compensate and"),
    ({"max_loss": 3, "limit": 20}, "ask 158 or more"),
    ({"max_loss": 3, "task": "wikitext"}, "choose a task"),
    ({"off_target_loss": 3, "task": "mini_math,wikitext"}, "add one with --task"),
    ({"params": "1K"}, "the nearest, 16 of 640, has 362,624 parameters (limit 1,000)"),
    ({"fits": "1GiB"}, "room for 0 tokens"),
    ({"params": "1B"}, "meets --params 1B as it is"),
]


@pytest.mark.parametrize(("options", "message"), REFUSED, ids=lambda value: str(value)[:40])
def test_what_cannot_be_searched_is_refused_in_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as refused:
        spec(**options)
    assert message in str(refused.value) and "\n" not in str(refused.value)


def test_a_run_and_its_dry_run_refuse_the_same(tmp_path: Path) -> None:
    typed = ("run", "-m", "tiny-math", "--max-loss", "3", "--ratio", "0.2", "--out", str(tmp_path / "run"))
    whole, dry = harness(*typed), harness(*typed, "--dry-run")
    assert whole.returncode == dry.returncode == 2 and whole.stderr == dry.stderr
    assert whole.stderr == (
        "error: a ratio (--ratio, HARNESS_RATIO or `ratio:` in the settings file) contradicts --max-loss, which "
        "searches the ratio; remove one of them\n"
    )
    assert not (tmp_path / "run").exists()


def test_a_dry_run_says_cells_bounds_and_time() -> None:
    typed = ("run", "-m", "tiny-math", "--max-loss", "3", "--params", "1M", "--metrics", "best,rms+refit", "--dry-run")
    found = json.loads(harness(*typed, "--json").stdout)
    assert found["ways"] == ["selective-best", "selective-rms-refit"] and found["goal"] == [
        "--max-loss 3",
        "--params 1M",
    ]
    assert (found["lowest"], found["widths"]) == (16, found["highest"] // 16)
    assert found["parameters"][1] <= 10**6 < found["parameters"][1] + 4 * 16 * 3 * 128
    assert found["variants"] == 1 + found["looks"] and found["level"] == pytest.approx(0.05 / found["looks"])
    text = harness(*typed).stdout
    assert f"at most {found['variants']} variants on every task" in text and "on this CPU" in text


def test_a_dry_run_says_what_a_re_fit_and_own_answers_take(tmp_path: Path) -> None:
    """H of 4 layers of width 640 in FP32; 24 prompts of the task and twice as many others."""
    asked = spec(params="1M", completions="generated", calibration_samples=24)
    found = forecast_search(asked, tmp_path / "run")
    assert found.second_moments == SecondMoments(disk_bytes=4 * 4 * 640**2, memory_bytes=4 * 640**2)
    rows = dict(search_table(found).rows)
    assert "temporary disk" in rows["second moments"] and rows["own answers"].startswith("at most 72 generated")
    plain = dict(search_table(forecast_search(spec(params="1M", metric="rms"), tmp_path / "run")).rows)
    assert "second moments" not in plain and "own answers" not in plain


def test_the_time_is_that_of_the_dearest_way_whichever_is_named_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """All looks but one, which the other way has, are reconstructed: each takes what it adds to a run at that width."""
    monkeypatch.setattr(dry_run, "flops_per_second", lambda: 1e9)
    first, last, without = (
        forecast_search(spec(max_loss=3, metrics=ways)) for ways in ("best+rec,S", "S,best+rec", "S,best")
    )
    run = {"model": "tiny-math", "ratio": ratio_for(640, last.highest, 16), "align": 16}
    repaired, plain = (
        forecast(resolve(load_config(None, {**run, "reconstruct": reconstruct}))).seconds or 0.0
        for reconstruct in (True, False)
    )
    assert first.seconds and last.seconds and without.seconds and repaired > plain
    assert first.seconds == pytest.approx(last.seconds, rel=1e-9)
    added = (last.looks - 1) * (repaired - plain)
    assert last.seconds - without.seconds == pytest.approx(added, rel=1e-6)


def test_the_widths_are_all_aligned_ones_whose_sizes_meet_the_goal() -> None:
    found = spec(params="900K", max_loss=3, align=32)
    space = search_space(found)
    every = range(32, 640, 32)
    assert space.widths == tuple(w for w in every if size_conditions(found.goal, found.shape, w)[0].met)
    assert space.widths[-1] < 608 and space.looks == len(space.widths).bit_length()
    assert spec(speedup=1.05).config.repeats > 1 and search_space(spec(speedup=1.05)).looks == 0


@pytest.mark.parametrize("allocation", ["global", "search"])
def test_layers_that_differ_are_searched_down_to_the_least_mean_width_that_they_can_have(allocation: str) -> None:
    """An eighth of 640 is 80; at 64 the arm itself is refused."""
    found = search_space(spec(speedup=1.6, allocation=allocation))
    assert found.widths[0] == 80 and found.widths[0] < search_space(spec(speedup=1.6)).widths[-1]
    assert search_space(spec(speedup=1.6)).widths[0] == 16


@given(st.integers(2, 20000), st.data())
def test_a_ratio_gives_back_its_width(whole: int, data: st.DataObject) -> None:
    alignment = data.draw(st.integers(1, whole - 1))
    width = alignment * data.draw(st.integers(1, (whole - 1) // alignment))
    assert pruned_width(whole, ratio_for(whole, width, alignment), alignment) == width


def test_an_arm_has_the_width_and_the_way_that_was_asked_for() -> None:
    found = spec(max_loss=3)
    for way, kind in ((None, "selective-best"), ("S", "selective-S"), ("rms+refit", "selective-rms-refit")):
        arm = arm_at(found.config, way, 208, found.shape)
        assert (uniform_width(arm.request, 640), arm.kind, arm.name) == (208, kind, f"{kind}-0.675")


def test_requests_are_the_goals_with_fits_and_the_timed_repeats_without() -> None:
    held = spec(fits="1.3GiB", max_loss=3, requests=7, context=100)
    assert (held.goal.requests, held.goal.context, held.config.requests) == (7, 100, None)
    assert spec(max_loss=3, requests=7).config.requests == 7


def test_counts_are_read_as_they_are_written() -> None:
    assert [parse_count(text) for text in ("6B", "1.5b", "135M", "20k", "512", 7)] == [
        6 * 10**9,
        15 * 10**8,
        135 * 10**6,
        20000,
        512,
        7,
    ]
    with pytest.raises(UsageError, match="--params: 'six' is not a parameter count"):
        load_config(None, {"params": "six"})


def test_a_directory_is_named_by_its_goal_and_bound_to_it() -> None:
    goal = Goal(max_loss=0.01, params=1_500_000_000, fits="24GiB", speedup=1.3)
    assert goal.label == "max-loss-1-params-1.5B-fits-24GiB-speedup-1.3"
    one, other = spec(max_loss=3), spec(max_loss=4)
    assert str(one.default_out) == "runs/goal-tiny-math-mini_math-max-loss-3"
    assert one.settings != other.settings and one.settings == spec(max_loss=3).settings


def test_the_settings_of_a_search_give_it_again(tmp_path: Path) -> None:
    config = load_config(None, {"max_loss": 3, "params": "1M"})
    (tmp_path / "config.yaml").write_text(config_yaml(config))
    again = load_config(tmp_path / "config.yaml", {})
    assert again == config and resolve_goal(again).settings == resolve_goal(config).settings
    assert settings_from(RunConfig(), {"max_loss": 3}).goal.max_loss == 3
    assert resolve_goal(settings_from(RunConfig(), {"max_loss": 3})).goal is not None
    with pytest.raises(UsageError, match=r"a ratio .* contradicts --max-loss"):
        resolve_goal(settings_from(RunConfig(ratio=0.3), {"max_loss": 3}))
