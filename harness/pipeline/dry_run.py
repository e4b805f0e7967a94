"""What a run would do, from the model's config alone: widths, sizes, disk, cells, time."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

import numpy as np

from harness.core.memory import loading_bytes, moments_memory
from harness.pipeline.resolve import ResolvedRun
from harness.pipeline.run_context import defaults_of
from harness.training.fine_tuning import available_examples, make_recipe
from pruning.scores import OBS
from pruning.second_moments import layer_bytes, layers_per_pass, passes
from recovery.cost import cost
from reports.figures import mebibytes, percent
from reports.parts import Table

_TOKENS_PER_PROMPT = 150  # a word problem with its solution; calibration prompts are capped at 1024
_START_SECONDS = 30.0  # imports and two engines, about; the rest is counted in FLOPs


def forecast(spec: ResolvedRun) -> dict[str, Any]:
    """All sizes in bytes. `seconds` is an upper bound from FLOPs at this CPU's matrix speed, None where a GPU would be
    used.
    """
    shape = spec.shape
    widths = (spec.width,) * shape.num_hidden_layers
    pruned = shape.pruned_parameters(widths)
    cells = [f"{name} x {task.name}" for name in spec.variants for task in spec.tasks]
    return {
        "model": spec.model,
        "task": spec.target.name,
        "variants": spec.variants,
        "alignment": spec.arms[0].request.alignment if spec.arms else None,
        "ratio_requested": spec.config.ratio if spec.arms else 0.0,
        "ratio_neurons": 1 - spec.width / shape.intermediate_size,
        "ratio_parameters": 1 - pruned / shape.parameters,
        "intermediate_size": {"dense": shape.intermediate_size, "pruned": spec.width},
        "parameters": {"dense": shape.parameters, "pruned": pruned},
        "weight_bytes": {"dense": shape.parameters * shape.dtype_bytes, "pruned": pruned * shape.dtype_bytes},
        "kv_bytes_per_token": shape.kv_bytes_per_token,
        "disk_bytes": (len(spec.arms) + len(spec.recovered)) * pruned * shape.dtype_bytes,
        "scoring_bytes": loading_bytes(spec.shape.parameters),
        "second_moments": _second_moments(spec),
        "recovery": recovery_cost(spec),
        "cells": cells,
        "seconds": estimated_seconds(spec),
    }


def _second_moments(spec: ResolvedRun) -> dict[str, int] | None:
    """What `obs` and re-fitting need for a time: a [width, width] matrix per layer, on disk; None where they are not
    used.
    """
    if "second moments" not in spec.score_request.needs:
        return None
    layers, width = spec.shape.num_hidden_layers, spec.shape.intermediate_size
    free = moments_memory(loading_bytes(spec.shape.parameters))
    return {
        "disk_bytes": layers * layer_bytes(width),
        "passes": passes(layers, width, free),
        "memory_bytes": (layers_per_pass(layers, width, free) + 1) * layer_bytes(width),
    }


def recovery_cost(spec: ResolvedRun) -> dict[str, Any] | None:
    """Of one fine-tuned variant, the widest; None where nothing is fine-tuned."""
    if not spec.recovered:
        return None
    defaults = defaults_of(spec)
    examples = available_examples(spec.config.recovery, defaults, spec.target)
    recipe = make_recipe(spec.config.recovery, defaults, examples)
    expected = cost(spec.shape, recipe, _TOKENS_PER_PROMPT)
    return {
        "variants": len(spec.recovered),
        "tuning": recipe.tuning,
        "examples": examples,
        **asdict(expected),
        "memory_bytes": expected.memory_bytes,
    }


def estimated_seconds(spec: ResolvedRun) -> float | None:
    """2 FLOPs per parameter and token: scoring forward, and every answer at its full length."""
    import importlib.util

    if importlib.util.find_spec("torch"):
        import torch

        if torch.cuda.is_available():
            return None
    scored = 3 * spec.config.calibration_samples * _TOKENS_PER_PROMPT if spec.arms else 0
    items = {task.name: min(task.items, spec.config.limit or task.items) for task in spec.tasks}
    answered = len(spec.variants) * sum(
        items[task.name] * (task.max_new_tokens + _TOKENS_PER_PROMPT) for task in spec.tasks
    )
    training = len(spec.recovered) * float((recovery_cost(spec) or {"flops": 0.0})["flops"])
    flops = 2 * spec.shape.parameters * (scored + answered) + _second_moment_flops(spec) + training
    return _START_SECONDS + flops / _flops_per_second()


def _second_moment_flops(spec: ResolvedRun) -> float:
    """H over the target's tokens (2 F^2 each); in FP64, at half the speed, an inverse and a removal order of about 2
    F^3 and a re-fit.
    """
    if "second moments" not in spec.score_request.needs:
        return 0.0
    width, tokens = spec.shape.intermediate_size, spec.config.calibration_samples * _TOKENS_PER_PROMPT
    order = 2 * 2 * width**3 if OBS in spec.score_request.metrics else 0
    refits = sum(arm.request.compensated for arm in spec.arms)
    return spec.shape.num_hidden_layers * (2 * width**2 * tokens + order + refits * 2 * width**3)


def _flops_per_second(size: int = 1024, repeats: int = 3) -> float:
    """FP32 matrix products on this CPU; the best of a few, as the machine may be busy."""
    a = np.ones((size, size), dtype=np.float32)
    best = float("inf")
    for _ in range(repeats):
        started = time.perf_counter()
        a @ a
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best


def forecast_table(found: dict[str, Any]) -> Table:

    seconds = (
        "not estimated for a GPU"
        if found["seconds"] is None
        else f"at most about {duration_text(found['seconds'])} on this CPU"
    )
    width, parameters, weights = found["intermediate_size"], found["parameters"], found["weight_bytes"]
    ratios = (
        percent(found["ratio_requested"]),
        percent(found["ratio_neurons"], 2),
        percent(found["ratio_parameters"], 2),
    )
    sizes = {name: (mebibytes(value), f"{value:,} bytes") for name, value in weights.items()}
    rows = (
        ("model", found["model"]),
        (
            "FFN width",
            f"{width['dense']} -> {width['pruned']} in every layer (alignment {found['alignment'] or 'none'})",
        ),
        ("ratio", "{} asked, {} of neurons, {} of parameters".format(*ratios)),
        ("parameters", f"{parameters['dense']:,} -> {parameters['pruned']:,}"),
        ("weights", "{} ({}) -> {} ({})".format(*sizes["dense"], *sizes["pruned"])),
        ("KV cache", f"{found['kv_bytes_per_token']:,} bytes per token, unchanged by pruning"),
        ("disk needed", f"{mebibytes(found['disk_bytes'])} for checkpoints"),
        ("memory for scoring", f"{mebibytes(found['scoring_bytes'])} for the model's weights"),
        *_second_moment_rows(found["second_moments"]),
        *recovery_rows(found["recovery"]),
        ("evaluations", ", ".join(found["cells"])),
        ("time", seconds),
    )
    return Table("What this run would do", ("what", "value"), rows)


def _second_moment_rows(found: dict[str, int] | None) -> list[tuple[str, str]]:

    if found is None:
        return []
    sizes = f"{mebibytes(found['disk_bytes'])} on disk for a time, {mebibytes(found['memory_bytes'])} in memory"
    return [("second moments", f"{sizes}, {found['passes']} passes over the calibration prompts")]


def recovery_rows(found: dict[str, Any] | None) -> list[tuple[str, str]]:

    if found is None:
        return []
    parts = ", ".join(
        f"{mebibytes(found[f'{name}_bytes'])} {name}" for name in ("weights", "gradient", "optimiser", "activation")
    )
    return [
        (
            "fine-tuning",
            f"{found['variants']} times {found['tuning']}, {found['steps']} steps, about {found['tokens']:,} tokens each",
        ),
        ("trained parameters", f"{found['trained_parameters']:,}"),
        ("memory for training", f"about {mebibytes(found['memory_bytes'])}: {parts}"),
        ("disk for training", f"{mebibytes(found['disk_bytes'])} for a time"),
    ]


def duration_text(seconds: float) -> str:
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.0f} hours"
