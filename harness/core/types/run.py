"""The values that pass between the stages: frozen, saved, and carrying the hash of what they came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.core.types.evaluation import Comparison, EvalResult
from harness.core.types.serving import ServingResult, SpeedRatio
from harness.core.types.sweep import Claim, SweepSummary
from harness.core.types.training import Recovery, TrainingResult


@dataclass(frozen=True)
class Variant:
    """One row of a run: the dense model or one pruned from it. Field names are the contract of run.json."""

    name: str
    method: str
    metric: str | None
    tokens: str | None
    alignment: int | None
    allocation: str | None
    compensated: bool
    seed: int | None
    recovered: bool
    ratio_requested: float
    ratio_neurons: float
    ratio_parameters: float
    intermediate_sizes: tuple[int, ...]
    parameters: int
    weight_bytes: int
    checkpoint: str | None
    eval: Mapping[str, EvalResult] = field(default_factory=dict)
    serving: ServingResult | None = None
    training: TrainingResult | None = None


@dataclass(frozen=True)
class RunResult:
    schema_version: int
    model: str
    task: str
    created: str
    versions: Mapping[str, str]
    hardware: Mapping[str, Any]
    command: str | None  # None where Python code called
    seeds: tuple[int, ...]
    calibration: Mapping[str, Any]
    variants: tuple[Variant, ...]
    comparisons: tuple[Comparison, ...]
    recoveries: tuple[Recovery, ...] = ()
    speed_ratios: tuple[SpeedRatio, ...] = ()
    claims: tuple[Claim, ...] = ()
    sweep: SweepSummary | None = None
    model_hash: str | None = None  # the fingerprint of the folder that was pruned
    neurons: Mapping[str, Any] | None = None  # pruning/inspection.py: where they sit, agreement of metrics, stability
