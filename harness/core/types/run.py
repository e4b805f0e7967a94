"""The result of a run: its variants and everything measured on them, as written to run.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from harness.core.run_rows import HEAD, rows
from harness.core.types.chat import ChatSummary
from harness.core.types.dissociation import Dissociation
from harness.core.types.engine import EngineFacts
from harness.core.types.evaluation import Comparison, EvalResult, GroupResult
from harness.core.types.goal import GoalOutcome
from harness.core.types.model import ModelKind
from harness.core.types.serving import ServingResult, SpeedRatio
from harness.core.types.sweep import Claim, SweepSummary
from harness.core.types.training import Recovery, TrainingResult


@dataclass(frozen=True)
class Variant:
    """One row of a run: the dense model, or a model pruned from it. Field names are the contract of run.json.

    Attributes:
        method: dense, selective, random or reverse.
        metric: The metric as files call it; smd is the paper's S.
        tokens: Tokens that were scored: prompt, completion or all.
        alignment: Widths are multiples of it.
        allocation: uniform, the same width in every layer, global, one ranking over all layers, or search, widths by
            measured KL to the dense model.
        compensated: Whether the remaining down_proj columns were re-fitted.
        recovered: Whether the variant was fine-tuned.
        ratio_requested: The share of FFN neurons to remove.
        ratio_neurons: The share of FFN neurons removed.
        ratio_parameters: The share of all parameters removed.
        intermediate_sizes: FFN width of every layer.
        checkpoint: Path relative to run.json; None where no checkpoint was written.
        groups: Groups of lm-eval's tasks by name.
        structure: What the ratios that were requested are of: neuron, kv_group, layer or joint; None of a dense model.
    """

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
    groups: Mapping[str, GroupResult] = field(default_factory=dict)
    serving: ServingResult | None = None
    training: TrainingResult | None = None
    structure: str | None = None


@dataclass(frozen=True)
class RunResult:
    """Everything a run found, with where, when and by which command.

    Attributes:
        model: Hub id, absolute path or alias of the model that was pruned; `model_kind` says which.
        task: Name of the target task, a key of every variant's `eval`.
        command: The command line; None for a call from Python.
        model_hash: Fingerprint of the model folder that was pruned.
        neurons: Distribution of the scored neurons over layers, agreement between metrics, stability (see
            pruning/inspection.py).
        chat: How prompts were put into the chat template; None where the model has none.
        engine: How the engine of the evaluation computed, or where nothing was evaluated that of the first timed
            variant.
    """

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
    model_kind: ModelKind = "unknown"
    model_hash: str | None = None  # the fingerprint of the folder that was pruned
    neurons: Mapping[str, Any] | None = None  # pruning/inspection.py: where they sit, agreement of metrics, stability
    chat: ChatSummary | None = None
    engine: EngineFacts | None = None
    dissociation: Dissociation | None = None
    goal: GoalOutcome | None = None
    folder: Path = Path()  # the run directory; not in run.json, which may be moved

    def to_rows(self) -> list[dict[str, Any]]:
        """Every figure as one flat row: what pandas.DataFrame takes, and what report.csv holds.

        Returns:
            Dicts with the keys variant, method, metric, ratio_neurons, task, quantity, value, ci_low, ci_high and n;
            a value is None where it was not measured.
        """
        return [dict(zip(HEAD, row, strict=True)) for row in rows(asdict(self))]
