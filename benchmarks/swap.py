"""Seconds of a live swap, and resident memory over many: `benchmarks/swap.py --model smollm2-135m`.

Aims: at most 0.5 s for SmolLM2-135M on two cores, no growth. Neurons go at random; the first swap also takes the
model's hash.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path

import click
import numpy as np
import psutil

from harness.core.types.pruning import PruningPlan
from harness.engine.library_settings import prepare_environment
from harness.engine.memory_budget import EngineSettings, with_kv_cache
from harness.engine.vllm_engine import engine
from harness.engine.weight_swap import restore, swap
from harness.models import registry
from pruning.checkpoint import ModelFolder
from pruning.plan_file import save_plan

_WIDTHS = (0.5, 0.8)


@click.command()
@click.option("--model", default="smollm2-135m")
@click.option("--threads", type=int, default=2)
@click.option("--swaps", type=int, default=200)
def main(model: str, threads: int, swaps: int) -> None:
    prepare_environment(threads)
    path = registry.locate(model, "math")
    with (
        tempfile.TemporaryDirectory() as name,
        engine(path, with_kv_cache(path, EngineSettings(max_model_len=512, max_num_seqs=8, threads=threads))) as llm,
    ):
        plans = [random_plan(path, share, Path(name) / f"{share}.safetensors") for share in _WIDTHS]
        seconds, resident = [], []
        for i in range(swaps):
            started = time.perf_counter()
            swap(llm, plans[i % len(plans)])
            seconds.append(time.perf_counter() - started)
            resident.append(psutil.Process().memory_info().rss)
        started = time.perf_counter()
        restore(llm)
        found = {
            "first_s": seconds[0],
            "median_s": float(np.median(seconds[1:])),
            "longest_s": max(seconds[1:]),
            "restore_s": time.perf_counter() - started,
            "resident_mib": [round(resident[i] / 2**20) for i in (swaps // 5, swaps // 2, -1)],
        }
    click.echo(json.dumps({"model": model, "threads": threads, "swaps": swaps, **found}, indent=1))


def random_plan(model: ModelFolder, share: float, file: Path) -> Path:
    shape, draw = model.shape, np.random.default_rng(0)
    width, layers = round(shape.intermediate_size * share), range(shape.num_hidden_layers)
    keep = tuple(np.sort(draw.choice(shape.intermediate_size, width, replace=False)).astype(np.int32) for _ in layers)
    save_plan(
        PruningPlan(
            keep=keep,
            intermediate_size=shape.intermediate_size,
            method="random",
            metric=None,
            ratio=1 - share,
            seed=0,
            alignment=1,
            model=model.path.name,
            model_hash=model.fingerprint,
            scores_hash="",
            tokens="all",
        ),
        file,
    )
    return file


if __name__ == "__main__":
    main()
