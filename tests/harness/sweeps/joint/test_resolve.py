"""What a joint search refuses before any work, by a run and its dry run alike, and what its dry run says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.config.settings import load_config
from harness.core.errors import MeasurementError, UsageError
from harness.engine import memory_budget
from harness.pipeline.dry_run import SecondMoments
from harness.pipeline.resolve import resolve
from harness.sweeps.goal.resolve import resolve_goal
from harness.sweeps.joint.dry_run import forecast_joint, joint_table
from harness.sweeps.joint.resolve import resolve_joint
from pruning.checkpoint import open_model
from tests.support.cli import harness
from tests.support.models import TINY_MATH, build_model


def spec(**options: Any) -> Any:
    return resolve_joint(load_config(None, {"model": "tiny-math", "structure": "joint", **options}))


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"speedup": 1.2, "ratio": 0.2}, "in the settings file) contradicts --speedup"),
    ({"max_loss": 3}, "least damage at a speed or size"),
    ({"speedup": 1.2, "off_target_loss": 3}, "least damage at a speed or size"),
    ({"speedup": 1.2, "metrics": "S,rms"}, "give one --metric"),
    ({"speedup": 1.2, "compensate": False}, "leave out --no-compensate"),
    ({"speedup": 1.2, "allocation": "global"}, "leave out --allocation global"),
    ({"speedup": 1.2, "sequential": True}, "--sequential re-fits each layer"),
    ({"speedup": 1.2, "protect": 0.1}, "--protect keeps neurons"),
    ({"speedup": 1.2, "repeats": 1}, "--repeats 1 gives none"),
    ({"speedup": 1.2, "align": 640}, "--align 640 leaves no FFN width below 640"),
    ({"speedup": 1.2, "align": 16, "min_width": 600}, "--align 16 with --min-width 600 leaves no FFN width below 640"),
    ({"speedup": 1.2, "vocabulary": 1025}, "--vocabulary 1025 is not below the 1088 entries of tiny-math"),
    ({"speedup": 1.2, "vocabulary": 3}, "64"),
    ({"vocabulary": 320}, "--vocabulary alone is no goal"),
    ({"speedup": 1.2, "vocabulary": 320, "structure": "neuron"}, "--vocabulary belongs to --structure joint"),
    ({"params": "1K"}, "no plan of tiny-math meets --params 1K: one layer of"),
    ({"params": "1B"}, "meets --params 1B as it is"),
    ({"speedup": 100, "device": "A100-80"}, "is too much beside what is in no layer"),
]


@pytest.mark.parametrize(("options", "message"), REFUSED, ids=lambda value: str(value)[:40])
def test_what_cannot_be_searched_is_refused_in_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as refused:
        spec(**options)
    assert message in str(refused.value) and "\n" not in str(refused.value)


def test_a_model_that_cannot_is_refused_by_name(tmp_path: Path) -> None:
    one = build_model("llama", tmp_path / "one", num_hidden_layers=1)
    gpt2 = build_model("gpt2", tmp_path / "gpt2")
    slides = build_model("qwen2", tmp_path / "slides", use_sliding_window=True, sliding_window=64, max_window_layers=2)
    for folder, message in (
        (one, "the model has one layer"),
        (gpt2, "gpt2"),
        (slides, "with use_sliding_window tells layers apart"),
    ):
        with pytest.raises(UsageError, match=message):
            spec(model=str(folder), speedup=1.2, task="mini_math")


@pytest.mark.parametrize("resolver", [resolve_joint, resolve_goal])
def test_a_speed_that_cannot_be_measured_is_refused_before_any_work(
    resolver: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU that holds one engine on the model, and not two."""
    joint = {"structure": "joint"} if resolver is resolve_joint else {}

    def resolved(**options: Any) -> Any:
        return resolver(load_config(None, {"model": "smollm2-135m", "task": "mini_math", **joint, **options}))

    monkeypatch.setattr(memory_budget, "device_name", lambda: "cuda")
    monkeypatch.setattr(memory_budget, "device_bytes", lambda: 9 << 30)
    with pytest.raises(MeasurementError, match="does not fit twice on this device; give --device"):
        resolved(speedup=1.2)
    assert resolved(speedup=1.05, device="A100-80").goal.device == "A100-80"


def test_another_vocabulary_is_another_run() -> None:
    whole, small, smaller = (spec(speedup=1.2, vocabulary=rows) for rows in (None, 640, 320))
    assert "vocabulary" not in whole.settings  # older run directories stay what they are
    assert small.settings != smaller.settings and small.settings["vocabulary"] == 640
    assert str(whole.default_out) == "runs/joint-tiny-math-mini_math-speedup-1.2"
    assert str(smaller.default_out) == "runs/joint-tiny-math-mini_math-speedup-1.2-vocabulary-320"


def test_without_a_goal_joint_is_refused_by_a_run_and_a_scoring() -> None:
    config = load_config(None, {"model": "tiny-math", "structure": "joint"})
    with pytest.raises(UsageError, match="joint is searched for a goal"):
        resolve(config)


def test_a_dry_run_says_what_is_timed_measured_and_planned(tmp_path: Path) -> None:
    found = forecast_joint(spec(speedup=1.2, align=128), tmp_path / "run")
    assert found.arms == ("joint", "ffn-only", "depth-only") and found.widths == (128, 256, 384, 512, 640)
    halves = ("half the FFN", "half the layers", "a quarter of the vocabulary", "half the attention")
    assert found.probes == ("dense", *halves, "mixed")
    assert found.vocabulary == 1088 and forecast_joint(spec(speedup=1.2, vocabulary=300)).vocabulary == 320
    assert found.roofline is None and found.looks == 24
    headers = 3 * open_model(TINY_MATH).weight_bytes - found.disk_bytes  # three checkpoints, of which each is smaller
    assert 0 < headers < 3 * 16_384 and "one of each arm at a time" in dict(joint_table(found).rows)["disk needed"]
    rows = dict(joint_table(found).rows)
    assert (
        "timed here once on dense, half the FFN" in rows["costs"]
        and "with attention or without, or removed" in rows["choices"]
    )
    elsewhere = forecast_joint(spec(speedup=1.2, device="A100-80"), tmp_path / "run")
    assert elsewhere.probes == () and dict(joint_table(elsewhere).rows)["costs"] == "by the roofline of A100-80"
    sized = forecast_joint(spec(params="1000K"), tmp_path / "run")
    assert dict(joint_table(sized).rows)["costs"] == "parameters and bytes, by formula"


def test_a_dry_run_says_what_a_re_fit_and_own_answers_take(tmp_path: Path) -> None:
    """H of 4 layers of width 640 in FP32; 24 prompts of the task and twice as many others."""
    found = forecast_joint(spec(speedup=1.2, completions="generated", calibration_samples=24), tmp_path / "run")
    assert found.second_moments == SecondMoments(disk_bytes=4 * 4 * 640**2, memory_bytes=4 * 640**2)
    rows = dict(joint_table(found).rows)
    assert "temporary disk" in rows["second moments"] and rows["own answers"].startswith("at most 72 generated")
    assert "own answers" not in dict(joint_table(forecast_joint(spec(speedup=1.2), tmp_path / "run")).rows)


@pytest.mark.slow
def test_a_run_and_its_dry_run_refuse_the_same(tmp_path: Path) -> None:
    typed = ("run", "-m", "tiny-math", "--structure", "joint", "--max-loss", "3", "--out", str(tmp_path / "run"))
    whole, dry = harness(*typed), harness(*typed, "--dry-run")
    assert whole.returncode == dry.returncode == 2 and whole.stderr == dry.stderr
    shown = harness("run", "-m", "tiny-math", "--structure", "joint", "--speedup", "1.2", "--dry-run", "--json")
    assert json.loads(shown.stdout)["arms"] == ["joint", "ffn-only", "depth-only"]
