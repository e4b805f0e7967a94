"""A few LoRA steps on a pruned checkpoint by the project's own trainer: seconds, memory against the forecast, merge."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gpu_check.subjects import RATIOS, Subject
from benchmarks.gpu_check.timing import timed
from harness.core.errors import MeasurementError
from harness.engine.devices import device_name
from harness.training.launch import run_job
from recovery import trainer
from recovery.cost import cost
from recovery.data import FILE
from recovery.merge import merge
from recovery.recipe import Recipe, check

_ROWS, _BATCH, _MICRO_BATCH = 64, 8, 2


def recovery(subject: Subject) -> dict[str, Any]:
    """Raises MeasurementError where a loss is not finite or a step is missing."""
    model, folder = subject.checkpoint(RATIOS[-1]), subject.folder / "recovery"
    shutil.rmtree(folder, ignore_errors=True)
    tokens, recipe = 2 * subject.amount.prompt_tokens, recipe_of(subject)
    write_rows(folder / "data", tokens, model.shape.vocab_size)
    job = trainer.Job(folder / "job", model.path, folder / "data", recipe)
    trained = timed(lambda: run_job(job, subject.amount.threads))
    history = trainer.history(trained.result)
    if len(history) < recipe.steps:
        raise MeasurementError(f"{len(history)} of {recipe.steps} steps were logged; see {job.folder}")
    merged = folder / "merged"
    merged.mkdir()
    merging = timed(lambda: merge([shard.path for shard in model.shards], trained.result, merged))
    shutil.rmtree(merged)
    return {
        "steps": recipe.steps,
        "seconds": trained.seconds,
        "training_seconds": trainer.seconds(job),
        "forecast_bytes": cost(model.shape, recipe, tokens).memory_bytes,
        "peak_bytes": trained.peak_bytes,
        "loss": [entry["loss"] for entry in history],
        "merge_seconds": merging.seconds,
    }


def recipe_of(subject: Subject) -> Recipe:
    on_gpu = device_name() == "cuda"
    return check(
        Recipe(
            tuning="lora",
            learning_rate=1e-4,
            steps=subject.amount.steps,
            batch=_BATCH,
            micro_batch=_MICRO_BATCH,
            max_length=2 * subject.amount.prompt_tokens,
            lora_rank=16,
            lora_alpha=32,
            lora_dropout=0.05,
            distill=0.0,
            packing=False,
            gradient_checkpointing=on_gpu,
            precision="bfloat16" if on_gpu else "float32",
            curve=0,
            seed=0,
        )
    )


def write_rows(folder: Path, tokens: int, vocabulary: int) -> None:
    """Random rows of `tokens` tokens; the second half of each is trained on."""
    folder.mkdir(parents=True)
    draw = np.random.default_rng(0)
    drawn = (draw.integers(2, vocabulary, tokens).tolist() for _ in range(_ROWS))
    rows = ({"input_ids": ids, "labels": [-100] * (tokens // 2) + ids[tokens // 2 :]} for ids in drawn)
    (folder / FILE).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
