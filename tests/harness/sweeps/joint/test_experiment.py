"""A joint search on the embedded model with real engines: costs, three arms beside each other, and a resumed run."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import harness as package
from pruning.checkpoint import open_model
from pruning.plan_file import load_plan
from tests.support.cli import invoke

pytestmark = [pytest.mark.slow, pytest.mark.long]
SHORT = ["--limit", "32", "--align", "128", "--calibration-samples", "24", "--concurrency", "4", "--repeats", "2"]
SEARCH = ["run", "-m", "tiny-math", "--task", "mini_math,mini_facts", *SHORT, "--output-tokens", "8", "--json"]
JOINT = [*SEARCH, "--structure", "joint", "--params", "1000K", "--speedup", "1.05"]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The command fails where this machine does not reach the speed, which is not what is tested."""
    from tests.support.cli import harness

    folder, before = tmp_path_factory.mktemp("joint") / "run", os.environ.get("HARNESS_CACHE_DIR")
    os.environ["HARNESS_CACHE_DIR"] = str(folder.parent / "cache")
    ended = harness(*JOINT, "--out", str(folder))
    assert ended.returncode in (0, 1) and ended.stdout, ended.stderr[-2000:]
    yield folder, json.loads(ended.stdout)
    os.environ.pop("HARNESS_CACHE_DIR")
    if before is not None:
        os.environ["HARNESS_CACHE_DIR"] = before


def test_every_arm_is_a_checkpoint_of_its_own_kind_that_was_evaluated_and_timed(
    found: tuple[Path, dict[str, Any]],
) -> None:
    folder, run = found
    jsonschema.validate(run, json.loads((Path(package.__path__[0]) / "run.schema.json").read_text()))
    goal, variants = run["goal"], {v["name"]: v for v in run["variants"]}
    arms = {candidate["arm"]: candidate for candidate in goal["candidates"]}
    assert {"joint", "depth-only"} <= set(arms) | set(goal["joint"]["unreachable"])
    for arm, candidate in arms.items():
        variant = variants[candidate["variant"]]
        made = open_model(folder / str(variant["checkpoint"]))
        plan = load_plan(folder / "arms" / candidate["variant"] / "plan.safetensors")
        assert made.widths == tuple(variant["intermediate_sizes"]) and len(made.widths) == candidate["layers"]
        assert made.shape.attention_layers == candidate["attention"]
        assert plan.structure == variant["structure"] == "joint"
        if arm == "ffn-only":
            assert not plan.skip_ffn and not plan.skip_attention
        if arm == "depth-only":
            assert set(made.widths) == {640} and plan.skip_ffn == plan.skip_attention
        limits = {c["quantity"]: c for c in candidate["conditions"]}
        assert limits["right"]["value"] == round(32 * variant["eval"]["mini_math"]["value"])
        assert limits["params"]["met"] and limits["params"]["value"] == made.parameters
        assert variant["eval"]["mini_math"]["n"] == 32 and variant["serving"]
        assert candidate["nats"] > 0 and candidate["predicted_speedup"] > 1.0499
    assert {r["variant"] for r in run["speed_ratios"]} == {"dense-again", *(c["variant"] for c in arms.values())}
    assert {file.parent.name for file in folder.glob("arms/*/checkpoint")} == {c["variant"] for c in arms.values()}
    shares = goal["joint"]["time_shares"]
    assert sum(shares.values()) == pytest.approx(1) and min(shares.values()) >= 0
    assert "Arms planned for the same goal" in (folder / "report.md").read_text()


def test_it_resumes_with_the_costs_that_were_measured(found: tuple[Path, dict[str, Any]]) -> None:
    folder, run = found
    assert len(list((folder.parent / "cache" / "costs").glob("*.json"))) == 1
    from tests.support.cli import harness

    again = harness(*JOINT, "--out", str(folder))
    assert json.loads(again.stdout)["goal"] == run["goal"] and "Starting vLLM" not in again.stderr


def test_a_size_alone_needs_no_timing_of_structures(tmp_path: Path) -> None:
    out = tmp_path / "sized"
    asked = ("--params", "1250K", "--vocabulary", "640")  # the task's texts stay as short, and little else has to go
    run, said = invoke(*SEARCH, "--structure", "joint", *asked, "--out", str(out))
    values = {v["name"]: v["eval"]["mini_math"]["value"] for v in run["variants"]}
    assert values["joint"] >= values["ffn-only"] - 0.1 and values["joint"] > 0.85
    assert open_model(out / "arms" / "joint" / "checkpoint").shape.vocab_size == 640
    assert run["goal"]["found"] and run["goal"]["joint"]["device"] is None and "half the FFN" not in said
    chosen = next(v for v in run["variants"] if v["name"] == run["goal"]["found"])
    assert chosen["parameters"] <= 1_250_000


def test_the_joint_arm_may_have_a_smaller_vocabulary_and_is_repaired_and_timed_on_the_same_texts(
    tmp_path: Path,
) -> None:
    """Requests in the whole vocabulary would be refused by the smaller model's engine. The limit is a size: for a
    speed, which varies, the smaller vocabulary may be enough, or a whole layer go.
    """
    from tests.support.cli import harness

    out, goal = tmp_path / "trimmed", ("--params", "1100K", "--vocabulary", "320", "--reconstruct")
    ended = harness(*SEARCH, "--structure", "joint", *goal, "--out", str(out))
    assert ended.returncode in (0, 1) and ended.stdout, ended.stderr[-2000:]
    assert "vocabulary 1088 -> 320; tokens per text: task" in ended.stderr
    run = json.loads(ended.stdout)
    found = {candidate["arm"]: candidate for candidate in run["goal"]["candidates"]}
    made = {arm: open_model(out / "arms" / each["variant"] / "checkpoint") for arm, each in found.items()}
    assert made.pop("joint").shape.vocab_size == found["joint"]["vocabulary"] == 320
    assert made and {model.shape.vocab_size for model in made.values()} == {1088}
    variant = next(v for v in run["variants"] if v["name"] == found["joint"]["variant"])
    plan = load_plan(out / "arms" / variant["name"] / "plan.safetensors")
    assert variant["name"].endswith("+rec") and plan.reconstructed and plan.vocabulary is not None
    assert not any(c["variant"].endswith("+rec") for c in run["goal"]["candidates"] if c["arm"] == "depth-only")
    assert variant["serving"] and variant["eval"]["mini_math"]["n"] == 32
