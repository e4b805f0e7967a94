"""In this process or launched, and what is left beside a training to do the same by other means."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from harness.core.errors import MeasurementError
from harness.training import launch


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which way each training took; none is really done."""
    taken: list[str] = []
    monkeypatch.setattr(launch, "_train", lambda job, _: taken.append("here") or job.folder)
    monkeypatch.setattr(launch, "_launch", lambda *_: taken.append("launched"))
    monkeypatch.setattr(launch.trainer, "last_state", lambda job: job.folder / f"checkpoint-{job.recipe.steps}")
    return taken


@pytest.mark.parametrize(
    ("processes", "gpus", "config", "way"),
    [
        (1, 0, None, "here"),
        (1, 1, None, "here"),
        (1, 2, None, "launched"),
        (2, 0, None, "launched"),
        (1, 0, Path("mine.yaml"), "launched"),
    ],
)
def test_one_process_that_sees_at_most_one_gpu_trains_here(
    processes: int, gpus: int, config: Path | None, way: str, ways: list[str], make_job: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(launch, "gpus", lambda: gpus)
    job = make_job(processes=processes, micro_batch=2)
    launch.run_job(job, 1, config)
    assert ways == [way] and (job.folder / "launch.sh").exists() == (way == "launched")


def test_a_launch_that_ends_early_is_said(make_job: Any, ways: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    job = make_job(processes=2, micro_batch=2)
    for last in (None, job.folder / "checkpoint-5"):
        monkeypatch.setattr(launch.trainer, "last_state", lambda _, last=last: last)
        with pytest.raises(MeasurementError, match="training ended before step 6; run the same command again"):
            launch.run_job(job, 1)
    assert ways == ["launched"] * 2


def test_what_lies_beside_a_training_says_how_to_repeat_it(make_job: Any, random_model: Path) -> None:
    job = make_job(processes=2, micro_batch=2, distill=0.25, teacher=random_model)
    text = launch._reproduction(job)
    assert f"# accelerate launch --num_processes 2 -m trl.scripts.sft --config {job.folder / 'sft.yaml'}" in text
    assert "Without the distillation term" in text and "25%" in text
    settings = yaml.safe_load(text)
    assert (settings["max_steps"], settings["learning_rate"]) == (job.recipe.steps, job.recipe.learning_rate)
    alone = launch._reproduction(make_job("my job"))
    assert f"# trl sft --config {shlex.quote(str(job.folder.parent / 'my job' / 'sft.yaml'))}" in alone
    assert "distillation" not in alone


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_a_launch_takes_a_free_port(tuning: str, make_job: Any) -> None:
    """Without one in its configuration accelerate takes 29500, for every training of the machine."""
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils.launch import prepare_multi_gpu_env

    _, _, _, *typed = launch.launch_command(make_job(tuning=tuning, processes=2, micro_batch=2), None)
    arguments, _, _ = _validate_launch_command(launch_command_parser().parse_args(typed))
    prepare_multi_gpu_env(arguments)
    assert int(arguments.master_port) not in (0, 29500)


@pytest.mark.parametrize(("threads", "each"), [(8, "4"), (3, "1"), (1, "1")])
def test_launched_processes_share_the_threads(
    threads: int, each: str, make_job: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(subprocess, "run", lambda *_, **o: seen.append(o["env"]) or SimpleNamespace(returncode=0))
    launch._launch(make_job(processes=2, micro_batch=2), ["x"], threads)
    assert seen[0]["OMP_NUM_THREADS"] == each


def test_an_old_error_is_not_told_of_a_new_failure(make_job: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    job = make_job(processes=2, micro_batch=2)
    job.folder.mkdir()
    (job.folder / "error.txt").write_text("of yesterday")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: SimpleNamespace(returncode=1))
    with pytest.raises(MeasurementError, match="its processes' messages stand above"):
        launch._launch(job, ["x"], 1)
