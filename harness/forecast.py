"""What a run would do, from the model's config alone: widths, sizes, disk, cells, time."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

import numpy as np

from harness.fine_tuning import available_examples, make_recipe
from harness.memory import loading_bytes, moments_memory
from harness.pipeline import defaults_of
from harness.spec import RunSpec
from harness.sweeps.grid import grid_rows
from pruning.scores import OBS
from pruning.second_moments import layer_bytes, layers_per_pass, passes
from recovery.cost import cost

_TOKENS_PER_PROMPT = 150  # a word problem with its solution; calibration prompts are capped at 1024
_START_SECONDS = 30.0  # imports and two engines, about; the rest is counted in FLOPs


def forecast(spec: RunSpec) -> dict[str, Any]:
    """All sizes in bytes. `seconds` is an upper bound from FLOPs at this CPU's matrix speed, None where a GPU would be used."""
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
        "recovery": _recovery(spec),
        "cells": cells,
        "seconds": _seconds(spec),
    }


def forecast_sweep(spec: RunSpec) -> dict[str, Any]:
    """Widths and cells of a sweep; `seconds` as above, with one engine at a time."""
    methods = {arm.kind: len({a.request.seed for a in spec.arms if a.kind == arm.kind}) for arm in spec.arms}
    return {
        "model": spec.model, "task": [task.name for task in spec.tasks], "methods": methods, "grid": grid_rows(spec),
        "variants": 1 + len(spec.arms), "recovered": spec.recovered, "parameters": spec.shape.parameters,
        "intermediate_size": spec.shape.intermediate_size, "recovery": _recovery(spec), "seconds": _seconds(spec),
    }  # fmt: skip


def _second_moments(spec: RunSpec) -> dict[str, int] | None:
    """What `obs` and re-fitting need for a time: a [width, width] matrix per layer, on disk; None where they are not used."""
    if "second moments" not in spec.score_request.needs:
        return None
    layers, width = spec.shape.num_hidden_layers, spec.shape.intermediate_size
    free = moments_memory(loading_bytes(spec.shape.parameters))
    return {
        "disk_bytes": layers * layer_bytes(width),
        "passes": passes(layers, width, free),
        "memory_bytes": (layers_per_pass(layers, width, free) + 1) * layer_bytes(width),
    }


def _recovery(spec: RunSpec) -> dict[str, Any] | None:
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


def _seconds(spec: RunSpec) -> float | None:
    """2 FLOPs per parameter and token: scoring forward, and every answer at its full length."""
    import importlib.util

    if importlib.util.find_spec("torch"):
        import torch

        if torch.cuda.is_available():
            return None
    scored = 3 * spec.config.calibration_samples * _TOKENS_PER_PROMPT if spec.arms else 0
    items = {task.name: min(task.items, spec.config.limit or task.items) for task in spec.tasks}
    answered = len(spec.variants) * sum(items[task.name] * (task.max_new_tokens + _TOKENS_PER_PROMPT) for task in spec.tasks)
    training = len(spec.recovered) * float((_recovery(spec) or {"flops": 0.0})["flops"])
    flops = 2 * spec.shape.parameters * (scored + answered) + _second_moment_flops(spec) + training
    return _START_SECONDS + flops / _flops_per_second()


def _second_moment_flops(spec: RunSpec) -> float:
    """H over the target's tokens (2 F^2 each); in FP64, at half the speed, an inverse and a removal order of about 2 F^3 and a re-fit."""
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
