"""Plans for the random models, and what a pruned model has to be equal to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from harness.core.types.pruning import PruningPlan
from pruning import compensation, second_moments
from pruning.checkpoint import open_model
from pruning.families import FAMILIES, submodule
from pruning.fitting import Fit, Schedule
from pruning.layer_source import InMemory
from pruning.loader import load_pruned
from pruning.plan_file import load_plan, save_plan
from pruning.reconstruct import LayerReconstruction
from pruning.structures import kept_layers
from tests.support.calibration import CALIBRATION, LARGER
from tests.support.models import build_model, plain


def plan_keeping(model: Path, keep: Sequence[np.ndarray], size: int = 96, **changes: Any) -> PruningPlan:
    """A plan for a random model that keeps these neurons of every layer."""
    plan = PruningPlan(
        keep=tuple(np.sort(indices).astype(np.int32) for indices in keep),
        intermediate_size=size,
        method="random",
        metric=None,
        ratio=0.4,
        seed=0,
        alignment=1,
        model="m",
        model_hash=open_model(model).fingerprint,
        scores_hash="hash",
        tokens="all",
    )
    return replace(plan, **changes)


def plan_for(model: Path, width: int = 60, layers: int = 3, size: int = 96, seed: int = 1) -> PruningPlan:
    """One width in every layer."""
    rng = np.random.default_rng(seed)
    keep = [rng.permutation(size)[:width] for _ in range(layers)]
    return plan_keeping(model, keep, size, ratio=1 - width / size, seed=seed)


def ragged_plan(model: Path) -> PruningPlan:
    """A width of its own in every layer."""
    keep = [np.random.default_rng(i).permutation(96)[:width] for i, width in enumerate((70, 33, 51))]
    return plan_keeping(model, keep, allocation="global")


WIDTHS = {"uniform": (64, 64, 64), "ragged": (64, 48, 33)}


def plan_of(model: Path, widths: tuple[int, ...]) -> PruningPlan:
    """These widths in the layers."""
    rng = np.random.default_rng(1)
    return plan_keeping(model, [rng.permutation(96)[:width] for width in widths])


def masked_logits(folder: Path, plan: PruningPlan, ids: torch.Tensor) -> torch.Tensor:
    model = plain(folder, dtype=torch.float32, attn_implementation="eager")
    family = FAMILIES[model.config.model_type]
    for layer, keep in zip(submodule(model, family.layers), plan.keep, strict=True):
        mask = torch.zeros(plan.intermediate_size)
        mask[torch.from_numpy(keep).long()] = 1
        submodule(layer, family.down).register_forward_pre_hook(lambda _, args, mask=mask: (args[0] * mask,))
    with torch.no_grad():
        return model(ids).logits


def compensated(
    model_type: str, root: Path, width: int = 60, removed: tuple[int, ...] = (), bare: tuple[int, ...] = ()
) -> tuple[Path, PruningPlan, Path]:
    """Dense folder, plan and plan file with the re-fitted columns beside it. removed: layers that go as a whole. bare:
    layers whose attention goes.
    """
    dense = build_model(model_type, root / "dense", tie=True)
    plan = replace(plan_for(dense, width=width), compensated=True)
    if removed or bare:
        plan = replace(plan, structure="joint", skip_attention=tuple(sorted({*removed, *bare})), skip_ffn=removed)
    plan_file = root / "plan.safetensors"
    save_plan(plan, plan_file)
    model = load_pruned(dense, torch.float32)
    moments = second_moments.SecondMoments(CALIBRATION, 0.0, root / "moments")
    second_moments.measure(InMemory(model, FAMILIES[model_type]), moments)
    compensation.compensate(
        open_model(dense), plan, plan_file, lambda layer: second_moments.load(root / "moments", layer)
    )
    return dense, load_plan(plan_file), plan_file


def reconstructed(
    model_type: str,
    root: Path,
    width: int = 60,
    schedule: Schedule = Schedule(epochs=6, rates=(0.02,)),
    removed: tuple[int, ...] = (),
    bare: tuple[int, ...] = (),
) -> tuple[Path, PruningPlan, Path, list[Fit]]:
    """What `compensated` makes, then every layer optimised on more prompts; and how each layer's optimisation went."""
    dense, plan, plan_file = compensated(model_type, root, width, removed, bare)
    model = open_model(dense)
    start = compensation.load_layers(model, plan, plan_file)
    moments = second_moments.SecondMoments(LARGER, 0.0, root / "moments")
    left = kept_layers(plan)
    source = InMemory(load_pruned(dense, torch.float32), model.family)
    walk = LayerReconstruction(source, left, moments, schedule, no_attention=plan.skip_attention)
    fits = [walk.fit(layer, plan.keep[layer], start(layer)) for layer in left]
    plan = replace(plan, reconstructed=True)
    save_plan(plan, plan_file)
    compensation.save(plan, plan_file, model, lambda layer: fits[left.index(layer)].tensors)
    return dense, load_plan(plan_file), plan_file, fits
