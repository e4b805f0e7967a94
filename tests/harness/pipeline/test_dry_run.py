from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from harness.config.settings import load_config
from harness.core import memory
from harness.core.errors import MeasurementError
from harness.core.types.pruning import NeuronScores
from harness.models.registry import find_model
from harness.pipeline import dry_run
from harness.pipeline.cpu_time import time_text
from harness.pipeline.dry_run import Change, SecondMoments, forecast, forecast_table
from harness.pipeline.resolve import resolve
from pruning.checkpoint import open_model
from pruning.export import export
from pruning.families import shape_of
from pruning.plan import make_plan
from pruning.structures import STRUCTURES
from reports.figures import count_text, short_count
from tests.support.models import TINY_MATH, build_model


def test_the_forecast_of_the_embedded_model_is_what_its_files_hold() -> None:
    found, real = forecast(resolve(load_config(None, {}))), open_model(TINY_MATH)
    assert found.parameters.dense == real.parameters
    assert found.weight_bytes.dense == TINY_MATH.joinpath("model.safetensors").stat().st_size
    assert found.intermediate_size == Change(dense=640, pruned=512)
    assert len(found.cells) == 2 * 3
    assert found.seconds is not None and found.seconds > 0


@pytest.mark.parametrize(("structure", "ratio"), [("neuron", 0.3), ("kv_group", 0.5), ("layer", 0.25)])
def test_the_forecast_of_a_checkpoint_is_its_files_to_the_byte(structure: str, ratio: float, tmp_path: Path) -> None:
    """The model's config.json names no dtype, which would be taken for 16 bits."""
    folder = build_model("qwen3", tmp_path / "model", dtype="float32", num_key_value_heads=2)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if k != "dtype"}))
    settings = {"model": str(folder), "task": "mini_math", "structure": structure, "ratio": ratio, "metric": "rms"}
    spec = resolve(load_config(None, {**settings, "align": 1}))
    found, model = forecast(spec), open_model(folder)
    rng, shape = np.random.default_rng(1), model.shape
    table = rng.random((shape.num_hidden_layers, STRUCTURES[structure].units(shape))).astype(np.float32)
    scores = NeuronScores(
        {"rms": table},
        "m",
        model.fingerprint,
        "all",
        "",
        structure=spec.structure,
        intermediate_size=shape.intermediate_size,
    )
    export(model, make_plan(scores, spec.arms[0].request), tmp_path / "out")
    written = sum(file.stat().st_size for file in (tmp_path / "out").glob("*.safetensors"))
    assert found.weight_bytes == Change(model.weight_bytes, written)


def test_a_7b_model_within_24_gb(monkeypatch: pytest.MonkeyPatch) -> None:
    """18944 wide: 1.44 GB a layer of second moments in FP32, 40.2 GB for 28 of them; FP32 weights one layer at a
    time.
    """
    monkeypatch.setattr(memory, "available_bytes", lambda: 24 * 10**9)
    found = forecast(resolve(load_config(None, {"model": "qwen-7b", "task": "mini_math"})))
    assert found.second_moments == SecondMoments(disk_bytes=28 * 4 * 18944**2, memory_bytes=4 * 18944**2)
    assert found.scoring and found.scoring.source == "layers"
    rows = dict(forecast_table(found).rows)
    assert rows["scoring"] == "layer by layer from the shards: 889.0 MiB in float32 at a time"
    plain = forecast(resolve(load_config(None, {"model": "qwen-7b", "task": "mini_math", "metric": "rms"})))
    assert plain.second_moments is None
    monkeypatch.setattr(memory, "available_bytes", lambda: 12 * 10**9)
    with pytest.raises(MeasurementError, match=r"taylor needs gradients of the whole model, 14\.2 GiB"):
        forecast(resolve(load_config(None, {"model": "qwen-7b", "task": "mini_math", "metric": "taylor"})))


def test_a_reconstruction_without_room_is_refused_before_the_scoring(monkeypatch: pytest.MonkeyPatch) -> None:
    """The FFN of a 7B layer has 3 * 3584 * 18944 numbers, 26 bytes each while Adam optimises them: 5.3 GB, where H of a
    scoring takes 1.4.
    """
    monkeypatch.setattr(memory, "available_bytes", lambda: 8 * 10**9)
    config = {"model": "qwen-7b", "task": "mini_math"}
    found = forecast(resolve(load_config(None, config)))
    assert found.scoring and found.scoring.source == "layers"
    with pytest.raises(MeasurementError, match="one layer needs about"):
        forecast(resolve(load_config(None, {**config, "reconstruct": True})))
    monkeypatch.setattr(memory, "available_bytes", lambda: 12 * 10**9)
    assert forecast(resolve(load_config(None, {**config, "reconstruct": True}))).scoring


def test_the_table_says_what_rounding_makes_of_the_ratio_and_where_the_run_would_go() -> None:
    """SmolLM2: 20 % of 1536 leaves 1228, and the nearest multiple of 128 is 1280, 16.67 % less."""
    config = load_config(None, {"model": "smollm2-135m", "task": "mini_math", "seed": 3, "method": "random"})
    rows = dict(forecast_table(forecast(resolve(config))).rows)
    assert rows["ratio"].startswith("asked 20.0 %, doing 16.67 % of neurons") and "multiples of 128" in rows["ratio"]
    assert rows["would write to"] == "runs/smollm2-135m-mini_math-random-0.167-seed3"
    exact = dict(forecast_table(forecast(resolve(load_config(None, {})), Path("x"))).rows)
    assert "--align" not in exact["ratio"] and exact["would write to"] == "x"


def test_numbers_and_words_agree() -> None:
    assert [time_text(seconds) for seconds in (None, 20, 89, 91, 7100, 7300, 1e6)] == [
        "not estimated for a GPU",
        *("at most about 1 minute on this CPU",) * 2,
        "at most about 2 minutes on this CPU",
        "at most about 118 minutes on this CPU",
        "at most about 2 hours on this CPU",
        "days on this CPU; use a GPU",
    ]
    assert [count_text(n, "pass", "passes") for n in (0, 1, 2000)] == ["0 passes", "1 pass", "2,000 passes"]
    assert [short_count(n) for n in (7_615_616_512, 1_321_088, 512)] == ["7.62 B", "1.32 M", "512"]


def test_a_limit_shortens_the_forecast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dry_run, "flops_per_second", lambda: 1e10)
    short, whole = (forecast(resolve(load_config(None, {"limit": limit}))).seconds for limit in (2, None))
    assert short and whole and short < whole


@pytest.mark.parametrize("recover", [False, True])
def test_disk_is_for_the_pruned_checkpoint_and_for_every_recovered_one(recover: bool) -> None:
    """640 -> 512 in 4 layers of hidden size 128; recovered are the pruned model and dense, which stays as large."""
    found, dense = forecast(resolve(load_config(None, {"recover": recover}))), open_model(TINY_MATH)
    pruned = dense.parameters - 4 * 3 * 128 * 128
    assert found.parameters == Change(dense=dense.parameters, pruned=pruned)
    written = [pruned, pruned, dense.parameters] if recover else [pruned]
    assert 0 < found.disk_bytes - 2 * sum(written) < len(written) * 10_000, "and the headers of the files"
    assert found.ratio_neurons == pytest.approx(0.2) and found.ratio_parameters == 1 - pruned / dense.parameters


def test_the_time_is_two_operations_for_every_parameter_and_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock of a million million operations a second: 2 variants, 10 items of each task, 160 + 320 prompts."""
    monkeypatch.setattr(dry_run, "flops_per_second", lambda: 1e12)
    spec = resolve(load_config(None, {"metric": "rms", "limit": 10, "calibration_samples": 160}))
    answers = sum(10 * (task.max_new_tokens + 150) for task in spec.tasks)
    flops = 2 * spec.shape.parameters * (3 * 160 * 150 + 2 * answers)
    assert forecast(spec).seconds == pytest.approx(30 + flops / 1e12, rel=1e-9)


def test_second_moments_and_their_inverses_take_time_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """4 layers of 640: H over the target's tokens, an inverse and a removal order at half the speed, one re-fit."""
    monkeypatch.setattr(dry_run, "flops_per_second", lambda: 1e9)
    plain, best = (
        forecast(resolve(load_config(None, {"metric": metric, "limit": 1}))).seconds for metric in ("rms", "best")
    )
    assert plain is not None and best is not None
    more = 4 * (2 * 640**2 * 160 * 150 + 2 * 2 * 640**3 + 2 * 640**3)
    assert best - plain == pytest.approx(more / 1e9, rel=1e-6)


@pytest.mark.parametrize(
    ("structure", "kept"),
    [
        ("kv_group", {"num_attention_heads": 6, "num_key_value_heads": 2}),
        ("layer", {"num_hidden_layers": 20}),
    ],
)
def test_the_forecast_of_other_structures(structure: str, kept: dict[str, int]) -> None:
    """SmolLM2-135M: 9 query heads on 3 KV heads in 30 layers. The parameters are those of a config with fewer."""
    model_of = {"model": "smollm2-135m", "task": ["mini_math"], "structure": structure}
    config = load_config(None, {**model_of, "ratio": 1 / 3})
    spec = resolve(config)
    found, model = forecast(spec), find_model("smollm2-135m")
    assert model is not None and model.config is not None
    fewer = shape_of({**model.config, "head_dim": 64, **kept})
    assert found.parameters.pruned == fewer.parameters
    assert found.pruned_kv_bytes_per_token == fewer.kv_bytes_per_token == found.kv_bytes_per_token * 2 // 3
    rows = dict(forecast_table(found).rows)
    assert rows["KV cache"] == f"{found.kv_bytes_per_token:,} -> {fewer.kv_bytes_per_token:,} bytes per token"
    assert rows["would write to"].startswith(f"runs/smollm2-135m-mini_math-{structure}-selective-")
    assert found.intermediate_size == Change(1536, 1536) and spec.rounded is None
    again = resolve(load_config(None, {**model_of, "ratio": 0.1}))
    said = {"kv_group": "asked 10 %, doing 33.3 %: a layer has 3 KV groups", "layer": None}
    assert again.rounded == said[structure]
