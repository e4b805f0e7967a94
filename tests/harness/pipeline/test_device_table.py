"""The table before anything runs: by the formulas, and beside it what runs at hand measured."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from harness.cli.main import cli
from harness.config.settings import load_config
from harness.core.errors import UsageError
from harness.core.types.goal import Goal
from harness.models import registry
from harness.pipeline.device_table import IdealSpeedup, device_table, on_device
from harness.serving.cost_table import roofline_table
from harness.serving.roofline import decode_work, find_device
from harness.sweeps.goal.conditions import shape_conditions
from harness.sweeps.joint.arms import goal_shares
from pruning.checkpoint import open_model
from pruning.search.choices import LayerChoice
from tests.support.models import TINY_MATH
from tests.support.runs import RUN, VARIANT

SERVING = {
    "concurrency": [],
    "weight_bytes": 1,
    "kv_bytes_per_token": 1,
    "kv_capacity_tokens": 1,
    "device": "cpu",
    "dtype": "float32",
    "output_tokens": 1,
}

TINY = load_config(None, {"model": "tiny-math"})


def test_the_dense_row_is_the_model_and_the_others_follow_its_alignment() -> None:
    found = on_device(TINY, None, "1GiB", None)
    assert found.context == 512  # all that the model can take
    assert [row.intermediate_size for row in found.rows] == [640, 576, 512, 448, 384, 320]
    assert found.rows[0].parameters == open_model(TINY_MATH).parameters
    assert found.rows[0].ideal["1"] == IdealSpeedup(flops=1.0, bytes=1.0, roofline=None)
    assert not any(row.measured for row in found.rows)


def test_known_speeds_give_a_roofline_between_the_two_bounds() -> None:
    for row in on_device(load_config(None, {"model": "qwen-7b"}), None, "H100", 4096).rows:
        for ideal in row.ideal.values():
            assert (
                ideal.roofline is not None
                and min(ideal.flops, ideal.bytes) - 1e-9 <= ideal.roofline <= max(ideal.flops, ideal.bytes) + 1e-9
            )


@pytest.mark.parametrize("context", [None, 1000, 4096])
def test_requests_are_whole_contexts_that_the_cache_holds(context: int | None) -> None:
    for row in on_device(load_config(None, {"model": "qwen-7b"}), None, "24GiB", context).rows:
        length = context or 2048
        assert row.requests * length <= row.kv_capacity_tokens < (row.requests + 1) * length
        assert row.kv_capacity_tokens > 10_000


def test_a_model_that_is_stored_in_float32_takes_16_bits_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """As vLLM's "auto" loads it; 30 GB of files go on a GPU of 24 GiB."""
    seven, config = registry.shape("qwen-7b", "math"), load_config(None, {"model": "qwen-7b"})
    half, goal = on_device(config, None, "24GiB", None), Goal(fits="24GiB", context=2048, requests=4)
    monkeypatch.setattr(registry, "shape", lambda *_: replace(seven, dtype_bytes=4))
    assert on_device(config, None, "24GiB", None) == half
    stored = replace(seven, dtype_bytes=4)
    assert shape_conditions(goal, stored, stored) == shape_conditions(goal, seven, seven)
    choices = (LayerChoice(0, attention=False), LayerChoice(9472), LayerChoice(18944, attention=False))
    shares = [goal_shares(goal, shape, None, 1.0, choices, shape.vocab_size) for shape in (seven, stored)]
    np.testing.assert_allclose(*shares)
    tables = [roofline_table(shape, find_device("A100-80"), (1, 8), 2048) for shape in (seven, stored)]
    assert tables[0].costs == tables[1].costs


def test_more_gpus_than_kv_heads_hold_copies() -> None:
    """Qwen2.5-1.5B has 2 KV heads: 28 layers * 2 * 128 numbers of 2 bytes for keys and as much for values."""
    config = load_config(None, {"model": "qwen-1.5b"})
    bytes_of = {n: on_device(config, 0.2, f"{n}xH100-80", None).kv_bytes_per_token for n in (1, 2, 4)}
    assert bytes_of == {1: 28_672, 2: 28_672, 4: 2 * 28_672}
    shape = registry.shape("qwen-1.5b", "math")
    works = [decode_work(shape, 8, 1024, 2, gpus) for gpus in (2, 4)]
    assert works[1].read_bytes - works[0].read_bytes == 8 * 1024 * 28_672 and works[1].flops == works[0].flops


def run_of(parameters: int, width: int, left: int | None = None) -> dict[str, Any]:
    """left: parameters of the pruned variant, where more than FFN neurons went."""
    narrowed = open_model(TINY_MATH).shape.narrowed(320).parameters

    def variant(name: str, width: int, parameters: int) -> dict[str, Any]:
        sizes = {"parameters": parameters, "intermediate_sizes": [width] * 4}
        return {**VARIANT, **sizes, "name": name, "serving": SERVING}

    ratio = {
        "variant": "pruned",
        "baseline": "dense",
        "concurrency": 8,
        "pairs": 5,
        "ratio": 1.25,
        "ci_low": 1.2,
        "ci_high": 1.3,
        "ideal_flops": 1.4,
        "ideal_bytes": 1.4,
    }
    ratios = [{**ratio, "quantity": quantity} for quantity in ("output_tok_s", "output_tok_cpu_s")]
    variants = [variant("dense", width, parameters), variant("pruned", 320, left or narrowed)]
    again = {**ratios[0], "variant": "dense-again"}  # no variant: the dense model timed against itself, listed first
    return {**RUN, "variants": variants, "speed_ratios": [again, *ratios]}


def test_runs_at_hand_stand_beside_the_forecast(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layers = len(open_model(TINY_MATH).widths)
    assert layers == 4
    runs = {
        "fits": run_of(open_model(TINY_MATH).parameters, 640),
        "other-model": run_of(7, 640),
        "without-attention": run_of(open_model(TINY_MATH).parameters, 640, left=1_000_000),
        "damaged": {"variants": 3},
    }
    for name, run in runs.items():
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "run.json").write_text(json.dumps(run))
    (tmp_path / "runs" / "damaged" / "run.json").write_text("{")
    monkeypatch.chdir(tmp_path)
    rows = on_device(TINY, None, "24GiB", 256).rows
    assert [row.measured for row in rows if row.measured] == [("1.25x (1.20 to 1.30) at 8 on cpu, fits",)]
    assert rows[-1].measured


def test_two_gpus_hold_more_than_twice_the_cache_of_one_and_widths_divide() -> None:
    qwen = load_config(None, {"model": "qwen-7b"})
    one, two = (on_device(qwen, 0.25, device, None) for device in ("H100-80", "2xH100-80"))
    assert two.rows[0].kv_capacity_tokens > 2 * one.rows[0].kv_capacity_tokens > 0
    assert [row.intermediate_size % 256 for row in two.rows[1:]] == [0]
    assert "each, by tensor parallelism" in device_table(two).title and "each" not in device_table(one).title


@pytest.mark.parametrize("device", ["3xH100-80", "8xH100-80"])
def test_gpus_that_cannot_divide_the_heads_are_refused(device: str) -> None:
    """Qwen2.5-7B has 28 attention heads."""
    with pytest.raises(UsageError, match=f"over {device[0]} GPUs cannot divide the 28 attention heads of qwen-7b"):
        on_device(load_config(None, {"model": "qwen-7b"}), None, device, None)


def test_a_context_that_the_model_cannot_take_is_refused() -> None:
    with pytest.raises(UsageError, match="--context 1000 is more than the 512 tokens"):
        on_device(TINY, None, "24GiB", 1000)


def test_the_command_needs_no_scores_and_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = CliRunner().invoke(cli, ["plan", "qwen-1.5b", "--device", "L4", "--ratio", "0.25", "--json"])
    found = json.loads(made.stdout)
    assert [row["ratio_requested"] for row in found["rows"]] == [0.0, 0.25]
    assert not list(tmp_path.iterdir())
    table = device_table(on_device(load_config(None, {"model": "qwen-1.5b"}), 0.25, "L4", None))
    assert "L4 (22.49 GiB)" in table.title
    assert len(table.rows[0]) == len(table.head)


def test_without_a_device_a_plan_needs_somewhere_to_go() -> None:
    assert "--out is missing" in CliRunner().invoke(cli, ["plan", "scores.safetensors"]).output
