"""Scoring against the bare forward pass on the same batches, in turns: `make bench-scoring`. Aim: a ratio of at most 1.10."""

from __future__ import annotations

import statistics
import time
from typing import Any

import click

from harness import models, scoring
from harness.types import CalibrationSet
from pruning.activations import collect, pad
from pruning.calibration import batches
from pruning.checkpoint import read_config
from pruning.families import family_of
from tasks.registry import find_task


def bare(model: Any, calibration: CalibrationSet) -> None:
    """The body over the same batches, with nothing watching."""
    import torch

    with torch.inference_mode():
        for batch in batches(calibration.items):
            ids, attention, _ = pad(batch, model.device)
            model.model(input_ids=ids, attention_mask=attention, use_cache=False)


@click.command()
@click.option("--model", default="tiny-math", show_default=True)
@click.option("--samples", default=400, show_default=True)
@click.option("--repeats", default=7, show_default=True)
@click.option("--threads", default=2, show_default=True)
def main(model: str, samples: int, repeats: int, threads: int) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(threads)
    path = models.locate(model, "math")
    calibration = scoring.calibrate(path, model, find_task("mini_math"), scoring.CalibrationRequest(samples, "both"))
    loaded = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    family = family_of(read_config(path))
    bare(loaded, calibration), collect(loaded, family, calibration)
    pairs = []
    for _ in range(repeats):
        started = time.perf_counter()
        bare(loaded, calibration)
        middle = time.perf_counter()
        collect(loaded, family, calibration)
        pairs.append((middle - started, time.perf_counter() - middle))
    ratios = sorted(scored / plain for plain, scored in pairs)
    plain, scored = (statistics.median(column) for column in zip(*pairs, strict=True))
    click.echo(
        f"{model}, {len(calibration.items)} prompts, {threads} threads: bare {plain:.2f} s, scoring {scored:.2f} s (medians of {repeats})"
    )
    click.echo(f"ratio: median {statistics.median(ratios):.3f}, least {ratios[0]:.3f}, most {ratios[-1]:.3f}")


if __name__ == "__main__":
    main()
