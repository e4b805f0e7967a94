"""The tables of speed and memory say what run.json says, and say so where the machine was noisy or nothing was
measured.
"""

from __future__ import annotations

import contextlib
import copy
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from harness.pipeline import stages
from reports.sections.serving import (
    _range_of_five,
    capacity_table,
    is_noisy,
    memory_table,
    per_right_answer,
    serving_sentences,
    serving_tables,
    speed_table,
)
from reports.sections.summary import summary_table
from tests.support.runs import EXAMPLE, RUN, VARIANT

LATENCY = {"p50": 1.0, "p90": 2.0, "p99": 3.25}
ROW = {
    "concurrency": 8,
    "output_tok_s": 100.0,
    "output_tok_s_repeats": [98.0, 100.0, 104.0],
    "ttft_ms": LATENCY,
    "tpot_ms": LATENCY,
    "itl_ms": LATENCY,
    "repeats": 3,
    "total_tok_s": 150.0,
    "output_tok_cpu_s": 90.0,
    "output_tok_cpu_s_repeats": [90.0] * 3,
    "answers_s_repeats": [1.0] * 3,
    "requests": 8,
    "tokens_per_answer": 31.5,
    "spread": 0.06,
}
SERVING = {
    "concurrency": [ROW],
    "weight_bytes": 4 << 20,
    "kv_bytes_per_token": 1024,
    "kv_capacity_tokens": 6784,
    "device": "cpu",
    "dtype": "float32",
    "output_tokens": 32,
    "kv_blocks": 53,
    "mode": "offline",
    "prompts": "mini_math",
    "stop_at_eos": False,
    "forecast": {"weight_bytes": 3 << 20, "kv_bytes_per_token": 1024, "kv_capacity_tokens": 6700},
    "engine_weight_bytes": None,
    "resident_bytes": 500 << 20,
    "peak_bytes": None,
}
RATIO = {
    "variant": "pruned",
    "baseline": "dense",
    "concurrency": 8,
    "quantity": "output_tok_s",
    "pairs": 3,
    "ratio": 1.25,
    "ci_low": 1.2,
    "ci_high": 1.3,
    "ideal_flops": 1.4,
    "ideal_bytes": 1.5,
}
AGAIN = {**RATIO, "variant": "dense-again", "ratio": 1.0, "ci_low": 0.98, "ci_high": 1.02}
AGAIN |= {"ideal_flops": 1.0, "ideal_bytes": 1.0}


def run_of(*rows: dict[str, Any]) -> dict[str, Any]:
    run = copy.deepcopy(RUN)
    names = ("dense", "pruned")
    servings = [{**copy.deepcopy(SERVING), "concurrency": [row]} for row in rows]
    run["variants"] = [
        {**VARIANT, "name": name, "serving": serving} for name, serving in zip(names, servings, strict=False)
    ]
    run["speed_ratios"] = [RATIO, {**RATIO, "quantity": "output_tok_cpu_s"}, AGAIN]
    return run


def test_every_figure_is_in_a_table() -> None:
    run = run_of(ROW, ROW)
    run["variants"][1]["parameters"] = RUN["variants"][0]["parameters"] - 512
    text = "\n".join(" | ".join(row) for table in serving_tables(run) for row in table.rows)
    for figure in (
        "98 to 104",
        "150",
        "90",
        "31.5",
        "1.00 / 2.00 / 3.25",
        "1.250",
        "1.200 to 1.300",
        "1.40 / 1.50",
        "83 %",
        "50 %",
    ):
        assert figure in text
    for figure in ("4.00 MiB", "3.00 MiB", "500.00 MiB", "1,024", "53", "6,784", "6,700"):
        assert figure in text
    assert capacity_table(run).rows[1][-1] == "2"  # 512 parameters of 4 bytes, in FP32, instead of 1024 a token
    assert "not measured" in memory_table(run).rows[0]


@pytest.mark.parametrize(("spread", "said"), [(0.06, False), (0.34, True)])
def test_noise_is_said_and_not_averaged_away(spread: float, said: bool) -> None:
    note = serving_tables(run_of({**ROW, "spread": spread}))[0].note
    assert ("The machine was noisy" in note and "dense at 8 (34 %)" in note) == said
    assert "Not measured on a GPU." in note


def test_more_repeats_are_not_noisier_by_their_number() -> None:
    """Of normal values the range of five is 2.326 standard deviations, and that of fifteen 3.47."""
    draws = np.random.default_rng(0).normal(100, 3, (2000, 15))
    five = np.mean([np.ptp(row[:5]) / np.median(row[:5]) for row in draws])
    found = np.mean([_range_of_five(row.tolist()) for row in draws])
    assert found == pytest.approx(five, rel=0.03) and found < 0.8 * np.mean(np.ptp(draws, axis=1) / 100)


@pytest.mark.parametrize(("wide", "noisy"), [(4.0, False), (20.0, True)])
def test_noise_of_a_ratio_is_that_of_its_own_passes(wide: float, noisy: bool) -> None:
    """Also where the dense model was timed beside other variants at a worse moment."""
    run = run_of({**ROW, "spread": 0.5}, ROW)
    ratio = {
        **RATIO,
        "quantity": "output_tok_s",
        "baseline_passes": [100.0, 101.0],
        "variant_passes": [120, 120 + wide],
    }
    assert is_noisy(run, ratio) is noisy
    assert is_noisy(run, {**ratio, "baseline_passes": [], "variant_passes": []})


def test_one_pair_has_no_interval() -> None:
    run = run_of(ROW, ROW)
    run["speed_ratios"] = [{**RATIO, "pairs": 1, "ci_low": None, "ci_high": None}]
    assert speed_table(run).rows[0][5] == "unknown, one pair"
    assert serving_sentences(run) == [
        "Output tokens per second of pruned against dense: 1.25x at 8 concurrent requests."
    ]


def test_without_dense_against_itself_a_gain_has_no_share() -> None:
    run = run_of(ROW, ROW)
    assert speed_table(run).rows[0][-1] == "50 %"  # of the ideal 1.5 reached 1.25
    run["speed_ratios"].remove(AGAIN)
    assert speed_table(run).rows[0][-2:] == ("83 %", "")


def test_a_run_times_its_first_variant_again_on_its_own_engine_and_keeps_that_ratio(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No second copy of the model: both names ask the same engine."""
    saved, asked = {}, {}

    def results(targets: dict[str, Any], passes: dict[str, Any], *_: Any) -> tuple[dict[str, Any], list[str]]:
        asked.update(passes)
        return dict(targets), [name for name in targets if name != next(iter(targets))]

    def save(variants: dict[str, Any], ratios: list[str], _: Path) -> None:
        saved.update(variants=list(variants), ratios=ratios)

    monkeypatch.setattr(stages, "offline_targets", lambda _, loads: {n: SimpleNamespace(round=f"{n}'s") for n in loads})
    monkeypatch.setattr(stages, "interleaved", lambda runners, *_: runners)
    monkeypatch.setattr(stages, "results", results)
    monkeypatch.setattr(stages, "save_serving", save)
    config = SimpleNamespace(concurrency=(1,), repeats=3)
    directory = SimpleNamespace(stage=lambda *_: contextlib.nullcontext(True))
    run: Any = SimpleNamespace(path=tmp_path, config=config, workload=None, directory=directory)
    states: list[Any] = [SimpleNamespace(name=name, identity=name) for name in ("dense", "pruned")]
    stages.serve(run, states, {})  # type: ignore[arg-type]
    assert asked == {"dense": "dense's", "pruned": "pruned's", "dense-again": "dense's"}
    assert saved == {"variants": ["dense", "pruned"], "ratios": ["pruned", "dense-again"]}
    stages.serve(run, states[:1], {})  # type: ignore[arg-type]
    assert saved == {"variants": ["dense"], "ratios": []}


def test_nothing_served_says_nothing() -> None:
    assert serving_tables(RUN) == [] == serving_sentences(RUN)


def test_a_run_from_before_the_figures_were_added_still_renders() -> None:
    """run.json fields are added, never taken away: what an old one lacks was not measured."""
    run = run_of(
        {
            key: ROW[key]
            for key in ("concurrency", "output_tok_s", "output_tok_s_repeats", "ttft_ms", "tpot_ms", "repeats")
        }
    )
    old = (
        "concurrency",
        "weight_bytes",
        "kv_bytes_per_token",
        "kv_capacity_tokens",
        "device",
        "dtype",
        "output_tokens",
    )
    run["variants"][0]["serving"] = {key: run["variants"][0]["serving"][key] for key in old}
    del run["speed_ratios"]
    text = "\n".join(" | ".join(row) for table in serving_tables(run) for row in table.rows)
    assert "98 to 104 | not measured" in text and "1.00 / 2.00 / 3.25 | not measured" in text


def test_requests_that_do_not_fit_the_cache_are_not_called_at_a_time() -> None:
    run = run_of(ROW)
    run["variants"][0]["serving"]["context_tokens"] = 1000  # 6 of them in 6784 tokens
    assert "some may wait: dense 6." in serving_tables(run)[0].note
    run["variants"][0]["serving"]["context_tokens"] = 800
    assert "may wait" not in serving_tables(run)[0].note


def test_where_no_gain_was_to_be_had_none_is_shared_out() -> None:
    run = run_of(ROW, ROW)
    run["speed_ratios"] = [{**RATIO, "ratio": 1.01, "ideal_flops": 1.0, "ideal_bytes": 1.0}]
    assert speed_table(run).rows[0][-2:] == ("", "")


def test_a_gain_that_is_not_shown_has_no_share_and_the_summary_names_the_same_ratio() -> None:
    run = json.loads(EXAMPLE.read_text(encoding="utf-8"))
    run["speed_ratios"].append({**AGAIN, "concurrency": 32, "ci_low": 1.0, "ci_high": 1.0})
    head = list(speed_table(run).head)
    rows = {row[0]: row for row in speed_table(run).rows if row[3] == "output tokens per second"}
    for ratio in (r for r in run["speed_ratios"] if r["quantity"] == "output_tok_s"):
        share = rows[ratio["variant"]][head.index("of its gain")]
        assert not share or not ratio["ci_low"] <= 1 <= ratio["ci_high"]
    assert any(row[head.index("of its gain")] for row in rows.values())
    tokens = (r for r in run["speed_ratios"] if r["quantity"] == "output_tok_s")
    first = next(r for r in tokens if r["variant"] == "selective-S-0.05")
    shown = next(row for row in summary_table(run).rows if row[0].startswith("output tok/s"))
    assert shown[-1] == f"{first['ratio']:.2f}x ({first['ci_low']:.2f} to {first['ci_high']:.2f})"


@pytest.mark.parametrize(("metric", "known"), [("exact_match", True), ("mean f1", False), ("perplexity", False)])
def test_tokens_for_each_right_answer_need_right_answers(metric: str, known: bool) -> None:
    v = {**VARIANT, "eval": {"mini_math": {"metric": metric, "value": 0.5, "tokens_per_answer": 20.0}}}
    assert per_right_answer({**RUN, "variants": [v]}, v) == ((40.0, None) if known else None)
