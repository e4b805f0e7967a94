"""Scoring against the bare forward pass on the same batches, and against the naive way, interleaved: `make
bench-scoring`.

Aims: at most 1.05 times the bare pass for SmolLM2-135M and 1.15 for tiny-math, whose layers are small; and at least 3
times as fast as a hook on the FFN that runs gate_proj and up_proj again, on all prompts padded to the longest, through
the LM head. The second moments of every layer are timed beside it.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from harness.core.types.calibration import CalibrationSet
from harness.models import registry
from harness.pipeline import scoring
from pruning.activations import pad
from pruning.calibration import batches
from pruning.collect import collect
from pruning.layer_source import InMemory
from pruning.second_moments import SecondMoments
from tasks.registry import find_task

_NAIVE_BATCH = 8


def bare(model: Any, calibration: CalibrationSet) -> None:
    """The body over the same batches, with nothing watching."""
    import torch

    with torch.inference_mode():
        for batch in batches(calibration.items):
            ids, attention, _ = pad(batch, model.device)
            model.model(input_ids=ids, attention_mask=attention, use_cache=False)


def naive(model: Any, calibration: CalibrationSet) -> dict[int, list[Any]]:
    """Per-prompt means of |h| the way the paper's scripts take them."""
    import torch

    found: dict[int, list[Any]] = {}
    longest = max(calibration.items, key=lambda item: len(item.token_ids))
    with torch.inference_mode():
        for start in range(0, len(calibration.items), _NAIVE_BATCH):
            ids, attention, mask = pad([*calibration.items[start : start + _NAIVE_BATCH], longest], model.device)
            ids, attention, mask = ids[:-1], attention[:-1], mask[:-1]

            def watch(ffn: Any, inputs: Any, _output: Any, layer: int, mask: Any = mask) -> None:
                h = ffn.act_fn(ffn.gate_proj(inputs[0])) * ffn.up_proj(inputs[0])
                found.setdefault(layer, []).append((h.abs() * mask[..., None]).sum(1) / mask.sum(1, keepdim=True))

            hooks = [
                layer.mlp.register_forward_hook(lambda ffn, inputs, output, i=i: watch(ffn, inputs, output, i))
                for i, layer in enumerate(model.model.layers)
            ]
            model(input_ids=ids, attention_mask=attention)
            for hook in hooks:
                hook.remove()
    return found


def seconds(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


@click.command()
@click.option("--model", default="tiny-math", show_default=True)
@click.option("--task", default="mini_math", show_default=True)
@click.option("--samples", default=400, show_default=True)
@click.option("--repeats", default=7, show_default=True)
@click.option("--threads", default=2, show_default=True)
def main(model: str, task: str, samples: int, repeats: int, threads: int) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(threads)
    folder = registry.locate(model, "math")
    calibration = scoring.calibrate(folder, model, find_task(task), scoring.CalibrationRequest(samples))
    loaded = AutoModelForCausalLM.from_pretrained(folder.path, dtype=torch.float32).eval()

    source = InMemory(loaded, folder.family)

    def with_moments() -> None:
        with tempfile.TemporaryDirectory() as scratch:
            collect(source, calibration, moments=SecondMoments(calibration, 0.0, Path(scratch)))

    ways: dict[str, Callable[[], Any]] = {
        "scoring": lambda: collect(source, calibration),
        "naive": lambda: naive(loaded, calibration),
        "with second moments": with_moments,
    }
    click.echo(f"{model}, {len(calibration.items)} prompts, {threads} threads, medians of {repeats}:")
    found = {name: _against(lambda: bare(loaded, calibration), way, repeats) for name, way in ways.items()}
    for name, pairs in found.items():
        ratios = sorted(way / alone for alone, way in pairs)
        typical, alone = (statistics.median(pair[number] for pair in pairs) for number in (1, 0))
        click.echo(
            f"{name}: {typical:.2f} s, bare {alone:.2f} s, {statistics.median(ratios):.3f} of bare "
            f"({ratios[0]:.3f} to {ratios[-1]:.3f})"
        )


def _against(alone: Callable[[], Any], way: Callable[[], Any], repeats: int) -> list[tuple[float, float]]:
    """Seconds of both, one after the other. Each way in rounds of its own: what one allocates slows the next."""
    alone(), way()
    return [(seconds(alone), seconds(way)) for _ in range(repeats)]


if __name__ == "__main__":
    main()
