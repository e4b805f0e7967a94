"""The grid of a sweep: the paper's widths, names, and what is refused before any work."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.config.settings import load_config, preset_summaries, preset_text, presets
from harness.core.errors import UsageError
from harness.pipeline.dry_run import recovery_cost
from harness.sweeps.dry_run import forecast_sweep, grid_table
from harness.sweeps.grid import grid_rows, near, resolve_sweep

PAPER_WIDTHS = {  # the table of the protocol (arXiv 2604.27115)
    "qwen-7b": [17920, 17024, 16000, 15104, 14208, 13184, 12288],
    "qwen-1.5b": [8448, 8064, 7552, 7168, 6656, 6272, 5760],
}


def spec(**options: Any) -> Any:
    """Off target without data of the Hub, unless a preset says what."""
    preset = options.pop("preset", None)
    options |= {} if preset else {"off_target": ("mini_facts",)}
    return resolve_sweep(load_config(None, options, preset))


@pytest.mark.parametrize("model", PAPER_WIDTHS)
def test_preset_paper_has_the_papers_widths_seeds_and_controls(model: str) -> None:
    found = spec(preset="paper", model=model)
    assert [row.intermediate_size for row in grid_rows(found)] == PAPER_WIDTHS[model]
    assert {arm.request.seed for arm in found.arms if arm.kind == "random"} == {33, 42, 7}
    assert len(found.arms) == 7 * (1 + 1 + 3 + 1 + 1)
    assert [task.name for task in found.tasks] == ["gsm8k_boxed", "bbh_general", "wikitext"]
    assert (
        found.config.score_tokens == "prompt"
        and found.config.prompt_format == "plain"
        and found.config.calibration_samples == 800
        and found.calibration_request.paper_rows
        and not spec(model=model).calibration_request.paper_rows
    )
    at = {"qwen-7b": "0.30405", "qwen-1.5b": "0.3"}[model]
    assert found.recovered == (f"selective-S-{at}", f"random-{at}-seed33", "dense")


def test_every_seed_of_fine_tuning_is_a_variant_of_its_own() -> None:
    asked = {"task": "mini_math", "methods": "S", "ratios": "0.3", "align": 1, "recovered": "S,dense"}
    once, found = spec(**asked), spec(**asked, recovery_seeds=3)
    first = ("selective-S-0.3-recovered", "dense-recovered")
    assert once.variants == ("dense", "selective-S-0.3", *first)
    assert found.variants == (*once.variants, *(f"{name}-{seed}" for seed in (2, 3) for name in first))
    assert forecast_sweep(found, Path("nowhere")).fine_tuned == found.variants[2:]
    costs = [recovery_cost(each) for each in (once, found)]
    assert [cost and cost.variants for cost in costs] == [2, 6]
    assert spec(preset="laptop").recovery_seeds == 3, "what claim 6 needs"


def test_further_masks_are_for_the_ratios_of_the_claim_and_the_target_alone() -> None:
    found = spec(methods="S,random", ratios="0.05,0.1,0.35,0.5", seeds="1,3", masks=5, align=1)
    assert [arm.name for arm in found.masks] == [
        f"random-{ratio}-seed{seed}" for ratio in ("0.1", "0.35") for seed in (0, 2, 4)
    ]
    assert {arm.request.seed for arm in found.arms if arm.kind == "random"} == {1, 3}
    assert forecast_sweep(found, Path("nowhere")).masks == 6
    assert not spec(methods="S,random", ratios="0.1", seeds="1,3", align=1).masks
    assert not spec(methods="S", ratios="0.1", masks=30, align=1).masks, "no random arm, no masks"


@pytest.mark.parametrize("name", ["laptop", "quick", "paper"])
def test_presets_have_the_masks_that_a_verdict_needs(name: str) -> None:
    found = spec(preset=name, **({"model": "qwen-1.5b"} if name == "paper" else {}))
    for ratio in {arm.request.ratio for arm in found.masks}:
        seeds = {a.request.seed for a in (*found.arms, *found.masks) if a.kind == "random" and a.request.ratio == ratio}
        assert len(seeds) == 20


def test_the_papers_other_half_is_one_option_away() -> None:
    found = spec(preset="paper", model="qwen-1.5b", task=("humaneval",))
    assert found.model == "Qwen/Qwen2.5-Coder-1.5B-Instruct" and found.target.name == "humaneval_instruct"


def test_methods_are_metrics_random_and_reverse() -> None:
    found = spec(methods="smd,best,rms+refit,random,reverse", ratios="0.3,0.1", seeds="1,2")
    assert [arm.name for arm in found.arms] == [
        "selective-S-0.1",
        "selective-S-0.3",
        "selective-best-0.1",
        "selective-best-0.3",
        "selective-rms-refit-0.1",
        "selective-rms-refit-0.3",
        "random-0.1-seed1",
        "random-0.1-seed2",
        "random-0.3-seed1",
        "random-0.3-seed2",
        "reverse-S-0.1",
        "reverse-S-0.3",
    ]
    assert [arm.request.compensated for arm in found.arms[:6:2]] == [False, True, True]
    assert found.served == ("dense", "selective-S-0.1", "selective-S-0.3") and found.exported == ("selective-S-0.3",)
    assert {arm.request.metric for arm in found.arms if arm.kind == "reverse-S"} == {"smd"}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"methods": "smd,smdd"}, "unknown metric 'smdd'; did you mean S"),
        ({"methods": "smd+fit"}, r"re-fitted is S\+refit"),
        ({"ratios": "0"}, "ratio above 0"),
        ({"ratios": "1.2"}, "outside"),
        ({"recovered": "best", "methods": "smd"}, "not among the methods"),
        ({"recovered": "smd", "ratios": "0.1"}, "not among the ratios"),
        ({"seeds": "a"}, "seeds"),
        ({"preset": "papre"}, "did you mean paper"),
        ({"limit": 1}, "one item leaves no interval"),
    ],
)
def test_what_is_wrong_is_said_before_any_work(options: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        spec(**options)


def test_a_grid_may_grow_in_the_same_directory_and_an_exam_may_not() -> None:
    settings = spec(ratios="0.1").settings
    assert settings == spec(ratios="0.1,0.2", methods="smd", seeds="5", workers=2, threads=1).settings
    assert (
        settings != spec(ratios="0.1", limit=5).settings
        and settings != spec(ratios="0.1", score_tokens="prompt").settings
    )


def test_items_are_the_targets_own(tmp_path: Path) -> None:
    file = tmp_path / "items.json"
    file.write_text(json.dumps([7, 3, 3]))
    assert spec(items=file).items == (3, 7)
    for wrong in ("[500]", "[-1]", "[true]", "{}", "[]", "[1.5]", "x"):
        file.write_text(wrong)
        with pytest.raises(UsageError, match=r"items\.json"):
            spec(items=file)


def test_the_papers_items_have_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """200 of GSM8K's, and of no other task."""
    found = spec(preset="paper", model="qwen-1.5b", items="paper")
    assert len(found.items) == 200 and found.items[:3] == (1, 6, 13) and found.items[-1] == 1316
    assert found.items == spec(model="qwen-1.5b", task=("gsm8k_cot",), items="paper").items
    assert found.settings["items"] != spec(preset="paper", model="qwen-1.5b").settings["items"]
    monkeypatch.setenv("HARNESS_ITEMS", "paper")
    for task in ("gsm8k_platinum", "mini_math", "humaneval"):
        with pytest.raises(UsageError, match=f"--items paper is a list of items of gsm8k, not of {task}"):
            spec(model="qwen-1.5b", task=(task,))


def test_matched_neurons_need_their_contribution_and_half_of_the_others() -> None:
    found = spec(methods="reverse,matched", ratios="0.1,0.5,0.6", align=1)
    assert [arm.name for arm in found.arms if arm.kind == "matched"] == ["matched-0.1", "matched-0.5"]
    assert found.score_request.metrics == ("contrib", "smd")
    assert spec(methods="reverse", ratios="0.1").score_request.metrics == ("smd",)


def test_one_width_is_one_model() -> None:
    """SmolLM2's 1536 neurons at alignment 128: 15 and 20 % both leave 1280."""
    with pytest.raises(UsageError, match=r"ratios 0\.15, 0\.2 all leave a width of 1280 at alignment 128.*--align"):
        spec(model="smollm2-135m", ratios="0.1,0.15,0.2,0.3")
    merged = spec(model="smollm2-135m")
    widths = [row.intermediate_size for row in grid_rows(merged)]
    assert len(set(widths)) == len(widths) and 1280 in widths, "the default ratios are merged"
    assert spec(model="smollm2-135m", ratios="0.1,0.15", align=1).arms


def test_names_say_the_ratio_that_is_done_and_the_table_the_one_that_was_asked() -> None:
    """SmolLM2's 1536 neurons at alignment 128: 20 % is 1280 of them, 16.7 %, and 25 % is 1152."""
    options = {"task": "mini_math", "methods": "S,random", "seeds": "1", "recovered": "S"}
    found = spec(model="smollm2-135m", ratios="0.2,0.25", recovery_ratios="0.2", **options)
    assert [arm.name for arm in found.arms][:2] == ["selective-S-0.167", "selective-S-0.25"]
    assert found.arms[2].name == "random-0.167-seed1" and found.arms[0].request.ratio == 0.2
    assert found.recovered == ("selective-S-0.167",) and found.rounded
    assert found.rounded.startswith("asked 20 %, doing 16.7 %: widths are multiples of 128")
    rows = {row[0]: row[1] for row in grid_table(forecast_sweep(found)).rows}
    assert rows["16.67 %"].endswith("; asked 20 %") and "asked" not in rows["25.00 %"]
    real = spec(model="smollm2-135m", ratios="0.2,0.25", recovery_ratios="0.167", **options)
    assert real.recovered == found.recovered, "the name's ratio is understood as well"
    assert spec(ratios="0.1,0.3", align=1).rounded is None


def test_matched_neurons_go_by_the_ratio_that_is_done() -> None:
    """52 % of 1536 at alignment 128 is 50 %, where every neuron has another one as its match."""
    found = spec(model="smollm2-135m", methods="reverse,matched", ratios="0.52")
    assert [arm.name for arm in found.arms] == ["reverse-S-0.5", "matched-0.5"]


def test_near_takes_the_papers_ratios_for_its_round_ones() -> None:
    assert near(0.1, [0.05405, 0.10135, 0.1554]) == 0.10135 and near(0.3, [0.25, 0.30405]) == 0.30405
    assert near(0.3, [0.25, 0.35]) is None and near(0.3, []) is None


@pytest.mark.parametrize("name", presets())
def test_every_preset_resolves_and_says_what_it_is(name: str) -> None:
    model = {"model": "qwen-1.5b"} if name == "paper" else {}
    assert spec(preset=name, **model).arms and preset_summaries()[name] in preset_text(name)


def test_a_preset_is_overridden_piece_by_piece(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("preset: laptop\nsweep: {ratios: [0.4]}\nrecovery: {steps: 7}\n")
    config = load_config(file, {"seeds": "1"})
    assert config.sweep.ratios == (0.4,) and config.sweep.seeds == (1,) and config.sweep.workers == 2
    assert config.recovery.steps == 7 and config.recovery.curve == 0 and config.concurrency == (32,)


def test_a_dry_run_says_what_the_disk_has_to_hold() -> None:
    options = {
        "model": "smollm2-135m",
        "task": "mini_math",
        "methods": "best,random",
        "seeds": "1",
        "ratios": "0.25,0.5",
    }
    expected = forecast_sweep(spec(recovered="best,dense", recovery_ratios="0.25", **options))
    assert expected.second_moments and expected.second_moments.disk_bytes == 30 * 1536**2 * 4
    exports, fine_tuned = 2, 2  # the arm to be fine-tuned and the timed one; dense and the arm fine-tuned
    assert expected.disk_bytes == (exports + fine_tuned) * 2 * 134_515_008
    rows = dict(grid_table(expected).rows)
    assert "second moments" in rows and "disk needed" in rows
    without = forecast_sweep(spec(**{**options, "methods": "rms,random"}))
    assert without.second_moments is None and "second moments" not in dict(grid_table(without).rows)
