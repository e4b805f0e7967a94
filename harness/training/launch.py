"""The training of one job, in this process or in several that accelerate launches: `python -m harness.training.launch
JOB`.
"""

from __future__ import annotations

import gc
import json
import os
import shlex
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from harness.core.bounded_read import read_json_object
from harness.core.errors import HarnessError, MeasurementError
from harness.core.files import write_json, write_text
from harness.core.processes import end_with_parent
from harness.core.progress import progress_bar
from harness.engine.devices import gpus
from harness.engine.library_settings import library_settings
from pruning.checkpoint import open_model, read_config
from pruning.loader import load_pruned
from pruning.vocabulary_files import rows_in
from recovery import trainer
from recovery.recipe import Recipe, load_dtype, trl_command
from recovery.trainer import Job, Teacher

CONFIGS = Path(trainer.__file__).parent / "configs"
_JOB, _ERROR = "job.json", "error.txt"


def run_job(job: Job, threads: int | None, accelerate_config: Path | None = None) -> Path:
    """Trains and returns the final state's folder; what it takes to do the same with `trl sft` and with accelerate lies
    beside it.
    """
    save_job(job)
    write_text(job.folder / "sft.yaml", _reproduction(job))
    if (
        job.recipe.processes == 1 and gpus() <= 1 and accelerate_config is None
    ):  # TRL refuses one process that sees several GPUs
        with library_settings(threads):
            return _train(job, threads)
    command = launch_command(job, accelerate_config)
    write_text(job.folder / "launch.sh", "\n".join(("#!/bin/sh", shlex.join(command), "")))
    _launch(job, command, threads)
    final = trainer.last_state(job)
    if final is None or trainer.step_of(final) < job.recipe.steps:
        raise MeasurementError(f"training ended before step {job.recipe.steps}; run the same command again to go on")
    return final


def _reproduction(job: Job) -> str:
    """TRL's YAML, with the command that takes it and what it does not cover."""
    import yaml

    lines = [f"# trl sft --config {shlex.quote(str(job.folder / 'sft.yaml'))}"]
    if job.recipe.processes > 1:
        lines = [
            (
                f"# accelerate launch --num_processes {job.recipe.processes} -m "
                f"trl.scripts.sft --config {job.folder / 'sft.yaml'}"
            )
        ]
    if "intermediate_sizes" in read_config(job.model):
        lines.append("# Not with trl: the layers of this model differ, and only pruning.loader.load_pruned loads it.")
    if job.teacher:
        lines.append(f"# Without the distillation term, which trl does not have: {job.recipe.distill:.0%} of the loss.")
    settings = trl_command(job.recipe, job.model, job.data, job.folder / "trl")
    return "\n".join((*lines, str(yaml.safe_dump(settings, sort_keys=False))))


def launch_command(job: Job, accelerate_config: Path | None) -> list[str]:
    """FSDP2 where all weights are trained, plain data parallelism for LoRA, unless a configuration is given."""
    chosen = accelerate_config or CONFIGS / ("fsdp2.yaml" if job.recipe.tuning == "full" else "ddp.yaml")
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(chosen)]
    return [
        *launcher,
        "--num_processes",
        str(job.recipe.processes),
        "-m",
        "harness.training.launch",
        str(job.folder / _JOB),
    ]


def _launch(job: Job, command: list[str], threads: int | None) -> None:
    error = job.folder / _ERROR
    error.unlink(missing_ok=True)
    each = max(1, (threads or os.cpu_count() or 1) // job.recipe.processes)
    done = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": str(each)}, preexec_fn=end_with_parent)
    if done.returncode:
        said = error.read_text(encoding="utf-8") if error.exists() else "its processes' messages stand above"
        raise MeasurementError(f"the launched training failed: {said}")


def _train(job: Job, threads: int | None) -> Path:
    import torch

    torch.set_num_threads(threads or os.cpu_count() or 1)
    gc.collect()
    torch.cuda.empty_cache()  # of an arm or an engine before; does nothing without a GPU
    dtype = getattr(torch, load_dtype(job.recipe))
    teacher = _teacher(job, job.teacher, dtype) if job.teacher else None
    with progress_bar(f"Training {job.folder.name} for {job.recipe.steps} steps", job.recipe.steps) as advance:
        return trainer.train(job, load_pruned(job.model, dtype).train(), _tokenizer(job.model), teacher, advance)


def _teacher(job: Job, dense: Path, dtype: Any) -> Teacher:
    import torch

    device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if torch.cuda.is_available() else "cpu"
    rows = rows_in(open_model(job.model), open_model(dense))
    model = load_pruned(dense, dtype).requires_grad_(False).to(device)
    return Teacher(model, None if rows is None else torch.from_numpy(rows).to(device))


def _tokenizer(model: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(model)


def save_job(job: Job) -> None:
    write_json(job.folder / _JOB, json.loads(json.dumps(asdict(job), default=str)))


def load_job(path: Path) -> Job:
    raw = read_json_object(path)
    teacher = Path(raw["teacher"]) if raw["teacher"] else None
    return Job(
        folder=Path(raw["folder"]),
        model=Path(raw["model"]),
        data=Path(raw["data"]),
        recipe=Recipe(**raw["recipe"]),
        teacher=teacher,
    )


def main(path: Path) -> None:
    """What every launched process runs."""
    job, threads = load_job(path), int(os.environ.get("OMP_NUM_THREADS", "1"))
    try:
        with library_settings(threads):
            _train(job, threads)
    except HarnessError as error:
        write_text(job.folder / _ERROR, str(error))
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
