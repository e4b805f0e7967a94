"""What a run would do, from the model's config alone: widths, sizes, disk, cells, time."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from harness.memory import loading_bytes, moments_memory
from harness.pipeline import DENSE, RunSpec
from pruning.scores import OBS
from pruning.second_moments import layer_bytes, layers_per_pass, passes

_TOKENS_PER_PROMPT = 150  # a word problem with its solution; calibration prompts are capped at 1024
_START_SECONDS = 30.0  # imports and two engines, about; the rest is counted in FLOPs


def forecast(spec: RunSpec) -> dict[str, Any]:
    """All sizes in bytes. `seconds` is an upper bound from FLOPs at this CPU's matrix speed, None where a GPU would be used."""
    shape = spec.shape
    widths = (spec.width,) * shape.num_hidden_layers
    pruned = shape.pruned_parameters(widths)
    cells = [f"{name} x {task.name}" for name in (DENSE, spec.variant) for task in spec.tasks]
    return {
        "model": spec.model,
        "task": spec.target.name,
        "variant": spec.variant,
        "alignment": spec.alignment,
        "ratio_requested": spec.config.ratio,
        "ratio_neurons": 1 - spec.width / shape.intermediate_size,
        "ratio_parameters": 1 - pruned / shape.parameters,
        "intermediate_size": {"dense": shape.intermediate_size, "pruned": spec.width},
        "parameters": {"dense": shape.parameters, "pruned": pruned},
        "weight_bytes": {"dense": shape.parameters * shape.dtype_bytes, "pruned": pruned * shape.dtype_bytes},
        "kv_bytes_per_token": shape.kv_bytes_per_token,
        "disk_bytes": pruned * shape.dtype_bytes,
        "scoring_bytes": loading_bytes(spec.shape.parameters),
        "second_moments": _second_moments(spec),
        "cells": cells,
        "seconds": _seconds(spec),
    }


def _second_moments(spec: RunSpec) -> dict[str, int] | None:
    """What `obs` and re-fitting need for a time: a [width, width] matrix per layer, on disk; None where they are not used."""
    if not (spec.compensated or spec.metric == OBS):
        return None
    layers, width = spec.shape.num_hidden_layers, spec.shape.intermediate_size
    free = moments_memory(loading_bytes(spec.shape.parameters))
    return {
        "disk_bytes": layers * layer_bytes(width),
        "passes": passes(layers, width, free),
        "memory_bytes": (layers_per_pass(layers, width, free) + 1) * layer_bytes(width),
    }


def _seconds(spec: RunSpec) -> float | None:
    """2 FLOPs per parameter and token: scoring forward, and every answer at its full length."""
    import importlib.util

    if importlib.util.find_spec("torch"):
        import torch

        if torch.cuda.is_available():
            return None
    scored = 3 * spec.config.calibration_samples * _TOKENS_PER_PROMPT
    items = {task.name: min(task.items, spec.config.limit or task.items) for task in spec.tasks}
    answered = 2 * sum(items[task.name] * (task.max_new_tokens + _TOKENS_PER_PROMPT) for task in spec.tasks)
    flops = 2 * spec.shape.parameters * (scored + answered) + _second_moment_flops(spec)
    return _START_SECONDS + flops / _flops_per_second()


def _second_moment_flops(spec: RunSpec) -> float:
    """H over the target's tokens (2 F^2 each); in FP64, at half the speed, an inverse and a removal order of about 2 F^3 and a re-fit."""
    if not (spec.compensated or spec.metric == OBS):
        return 0.0
    width, tokens = spec.shape.intermediate_size, spec.config.calibration_samples * _TOKENS_PER_PROMPT
    order = 2 * 2 * width**3 if spec.metric == OBS else 0
    return spec.shape.num_hidden_layers * (2 * width**2 * tokens + order + 2 * spec.width**3)


def _flops_per_second(size: int = 1024, repeats: int = 3) -> float:
    """FP32 matrix products on this CPU; the best of a few, as the machine may be busy."""
    a = np.ones((size, size), dtype=np.float32)
    best = float("inf")
    for _ in range(repeats):
        started = time.perf_counter()
        a @ a
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best
