"""Where a run keeps its files, below its run directory."""

from __future__ import annotations

from pathlib import Path

from harness.pipeline.arms import Arm
from harness.pipeline.resolve import ResolvedRun


def scores_file(run: Path) -> Path:
    return run / "scores.safetensors"


def calibration_file(run: Path) -> Path:
    return run / "calibration.json"


def arm_folder(run: Path, spec: ResolvedRun, arm: Arm) -> Path:
    """The folder of an arm's plan and checkpoint: the run directory itself where no other arm can be in it."""
    alone = len(spec.arms) == 1 and not (spec.sweep or spec.goal)
    return run if alone else run / "arms" / arm.name


def plan_file(run: Path, spec: ResolvedRun, arm: Arm) -> Path:
    return arm_folder(run, spec, arm) / "plan.safetensors"


def eval_file(run: Path, variant: str) -> Path:
    return run / "eval" / f"{variant}.json"


def samples_folder(run: Path, variant: str) -> Path:
    return run / "samples" / variant


def engine_file(run: Path) -> Path:
    """How the engines of the evaluation compute."""
    return run / "engine.json"


def serving_file(run: Path) -> Path:
    return run / "serving.json"


def training_data_folder(run: Path) -> Path:
    return run / "recovery" / "data"


def training_folder(run: Path, variant: str) -> Path:
    """What the fine-tuning of `variant` writes: training.json, curve.json, checkpoints to resume from."""
    return run / "recovery" / variant
