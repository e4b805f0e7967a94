"""What a stage that was done before is done again for."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

import harness
from harness.config.settings import load_config
from harness.core.errors import MeasurementError
from harness.core.files import save_arrays
from harness.core.hashing import digest
from harness.core.memory import FreeMemory
from harness.core.run_directory import RunDirectory
from harness.core.types.pruning import NeuronScores
from harness.pipeline import scoring, stages
from harness.pipeline.resolve import resolve
from harness.pipeline.run_context import RunContext
from harness.pipeline.run_files import plan_file, scores_file
from pruning import score_file
from pruning.checkpoint import open_model
from pruning.plan import make_plan, real_ratio
from pruning.plan_file import load_plan, save_plan
from tests.support.models import TINY_MATH


def test_a_plan_that_was_rounded_down_before_is_not_taken_for_the_one_of_now(tmp_path: Path) -> None:
    """29 % of 640 leaves 454.4; at alignment 4 that was 452 and is 456, and the variant has the same name."""
    spec = resolve(load_config(None, {"ratio": 0.29, "align": 4, "method": "random"}))
    arm, model, directory = spec.arms[0], open_model(TINY_MATH), RunDirectory(tmp_path)
    assert arm.name == "random-0.29-seed0"
    directory.open({}, fresh=False)
    table = np.random.default_rng(0).random((4, 640), dtype=np.float32)
    arrays = {f"layers.{layer}.rms": table[layer] for layer in range(4)}
    known = {"model": "tiny-math", "model_kind": "alias", "model_hash": model.fingerprint, "tokens": "all"}
    counts = {"layers": "4", "general_weight": "0.0", "n_target": "1", "n_distractor": "1"}
    save_arrays(scores_file(tmp_path), arrays, {**known, **counts, "calibration_hash": "calibration"})
    scores = score_file.load(scores_file(tmp_path))
    directory.finish("score", "inputs", [scores_file(tmp_path)])
    file = plan_file(tmp_path, spec, arm)
    save_plan(make_plan(scores, replace(arm.request, ratio=1 - 452 / 640)), file)
    before = digest([directory.output_hash("score"), asdict(arm.request)])
    directory.finish(f"plan {arm.name}", before, [file])

    run = RunContext(spec, model, directory)
    assert stages.plan(run, arm).checkpoint.widths == (456,) * 4 and load_plan(file).widths == (456,) * 4
    assert real_ratio(arm.request, 640) == 1 - 456 / 640
    written = file.stat().st_mtime_ns
    stages.plan(run, arm)
    assert file.stat().st_mtime_ns == written, "and that is not made again"


@pytest.mark.parametrize(
    ("ratio", "said"), [(0.2, "asked 20 %, doing 16.7 %: widths are multiples of 128"), (0.25, "")]
)
def test_a_plan_says_what_alignment_makes_of_its_ratio(
    ratio: float, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = NeuronScores(
        {"rms": np.ones((1, 1536), dtype=np.float32)}, "m", "weights", "all", "calibration", file_hash="file"
    )
    harness.plan(scores, ratio, method="random", out=tmp_path / "plan.safetensors")
    told = " ".join(capsys.readouterr().err.split())
    assert (said in told) if said else "asked" not in told


def test_a_reconstruction_without_room_ends_a_run_before_the_scoring(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 98 MB that are free 78.4 are used. A batch of tiny-math takes 69.2 and its statistics 4.5; the 1.6 of second
    moments have room beside them, the 6.4 of Adam have not.
    """
    monkeypatch.setattr(scoring, "free_memory", lambda: FreeMemory(98_000_000))
    monkeypatch.setattr(scoring, "calibrate", lambda *_: pytest.fail("prompts are made"))
    directory = RunDirectory(tmp_path)
    directory.open({}, fresh=False)
    run = RunContext(resolve(load_config(None, {"reconstruct": True})), open_model(TINY_MATH), directory)
    assert scoring.placement_of(run.model.shape, 160, run.spec.score_request.needs).source == "layers"
    with pytest.raises(MeasurementError, match="one layer needs about"):
        stages.score(run)


def test_a_scoring_that_was_killed_does_not_gather_its_prompts_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = resolve(load_config(None, {"calibration_samples": 2, "metric": "rms"}))
    directory, file = RunDirectory(tmp_path / "run"), tmp_path / "fresh.safetensors"
    directory.path.mkdir()
    directory.open({}, fresh=False)
    run = RunContext(spec, open_model(TINY_MATH), directory)
    prompts = scoring.calibrate(run.model, spec.model, spec.target, spec.calibration_request)
    scoring.score_model(run.model, prompts, spec.score_request, file)
    with monkeypatch.context() as killed:
        killed.setattr(scoring, "score_model", _killed)
        with pytest.raises(KeyboardInterrupt):
            stages.score(run)
    monkeypatch.setattr(scoring, "calibrate", lambda *_: pytest.fail("prompts are gathered again"))
    stages.score(run)
    found, expected = (score_file.load(each).scores["rms"] for each in (scores_file(run.path), file))
    assert np.array_equal(found, expected), "the prompts that were gathered before it"


def _killed(*_arguments: object) -> None:
    raise KeyboardInterrupt
