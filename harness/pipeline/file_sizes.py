"""Bytes of the weight files that a run would write, to the byte, where the model is on this machine."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from harness.core.types.pruning import NeuronScores
from harness.models import registry
from harness.pipeline.resolve import ResolvedRun
from pruning.checkpoint import ModelFolder
from pruning.export import predict_size
from pruning.plan import make_plan
from pruning.structures import STRUCTURES


def file_sizes(spec: ResolvedRun) -> tuple[int, int] | None:
    """Of the model's files before and after the first arm, from the headers of its shards.

    Which units go does not matter where every layer loses as many, so a random choice stands for the arm's. Of
    attention blocks the file's header may differ by some bytes, for the digits of the layers' numbers.

    Returns:
        None where the model is not in a folder here, nothing is pruned, or widths differ by what is measured.
    """
    model = registry.found_here(spec.config.model) if spec.arms else None
    if model is None or spec.arms[0].request.allocation != "uniform":
        return None
    request = replace(spec.arms[0].request, method="random", metric=None, protect=0.0)
    return model.weight_bytes, predict_size(model, make_plan(_scores(model, spec), request)).weight_bytes


def _scores(model: ModelFolder, spec: ResolvedRun) -> NeuronScores:
    """All alike."""
    shape, row = model.shape, STRUCTURES[spec.structure]
    return NeuronScores(
        scores={"rms": np.zeros((shape.num_hidden_layers, row.units(shape)), dtype=np.float32)},
        model=spec.model,
        model_hash=model.fingerprint,
        tokens="all",
        calibration_hash="",
        structure=spec.structure,
        intermediate_size=0 if spec.structure == "neuron" else shape.intermediate_size,
    )
