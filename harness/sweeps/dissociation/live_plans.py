"""Writes what a running engine needs for each intervention: a plan, factors, a constant, re-fitted columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from harness.core.hashing import digest
from harness.core.safetensors_stream import data_hash
from harness.core.types.arrays import FloatArray
from harness.core.types.calibration import CalibrationSet
from harness.core.types.pruning import PruningPlan
from harness.pipeline import scoring
from harness.sweeps.dissociation.sets import ChosenSet
from harness.sweeps.dissociation.sources import Statistics
from pruning.adjustments import Adjustment, adjustments_file, save_adjustments
from pruning.checkpoint import ModelFolder, down_projection
from pruning.compensation import columns_file
from pruning.plan_file import save_plan


@dataclass(frozen=True)
class PlanWriter:
    """What all plans share.

    Attributes:
        general: General text, on which columns are re-fitted.
        folder: Of the plans.
    """

    model: ModelFolder
    general: CalibrationSet
    folder: Path
    threads: int | None

    def write(self, chosen: ChosenSet, found: Statistics) -> None:
        """`found`: of the draw that the set comes from."""
        file = plan_file(self.folder, chosen.name)
        save_plan(_plan(self.general, chosen), file)
        if chosen.mean:
            save_adjustments(file, list(self._means(chosen, found.groups[chosen.mean].mean)))
        elif chosen.factor:
            factors = np.where(chosen.neurons, chosen.factor, 1.0)
            save_adjustments(file, [Adjustment(factors=row) for row in factors])
        if chosen.refitted:
            request = scoring.ScoreRequest(moments=True, threads=self.threads)
            scoring.compensate_plan(self.model, self.general, request, self.folder / "general", file)

    def _means(self, chosen: ChosenSet, mean: FloatArray) -> Iterator[Adjustment]:
        """What the set writes on average, of every layer."""
        for layer, removed in enumerate(chosen.neurons):
            columns = down_projection(self.model, layer)[:, removed.nonzero()[0]].double().numpy()
            yield Adjustment(offset=columns @ mean[layer, removed])


def plan_file(folder: Path, name: str) -> Path:
    return folder / f"{name}.safetensors"


def identity(model: ModelFolder, folder: Path, name: str) -> str:
    """A hash of what the weights of an intervention are made from."""
    file = plan_file(folder, name)
    parts: Sequence[Path] = (file, adjustments_file(file), columns_file(file))
    return digest([model.fingerprint, *(data_hash(part) if part.exists() else None for part in parts)])


def _plan(calibration: CalibrationSet, chosen: ChosenSet) -> PruningPlan:
    """Removes the set, or keeps everything where neurons are scaled."""
    layers, size = chosen.neurons.shape
    kept = np.ones((layers, size), dtype=bool) if chosen.factor else ~chosen.neurons
    plan = PruningPlan(
        keep=tuple(np.flatnonzero(row).astype(np.int32) for row in kept),
        intermediate_size=size,
        method="chosen",
        metric="smd" if chosen.distractors else None,
        ratio=float(1 - kept.mean()),
        seed=chosen.number,
        alignment=1,
        model=calibration.model,
        model_hash=calibration.model_hash,
        scores_hash="",
        tokens=calibration.tokens,
    )
    return replace(plan, compensated=chosen.refitted, model_kind=calibration.model_kind)
