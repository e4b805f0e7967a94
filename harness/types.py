"""The values that pass between the stages: frozen, saved, and carrying the hash of what they came from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from harness.serving_types import ServingResult, SpeedRatio
from harness.sweep_types import Claim, SweepSummary

Method = Literal["selective", "random", "reverse"]
TokenScope = Literal["question", "answer", "both"]
Allocation = Literal["uniform", "global"]
FloatArray = npt.NDArray[np.floating[Any]]
IndexArray = npt.NDArray[np.int32]
UNEXPLAINED = "unexplained"  # in wrong_by_kind: an answer that is not right, with no kind seen


def digest(value: object) -> str:
    """The first 16 hex digits of the SHA-256 of `value` as canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class ModelShape:
    """The numbers of a decoder that decide its size. `neuron_parameters`: weights that one FFN neuron takes, biases aside."""

    model_type: str
    hidden_size: int
    num_hidden_layers: int
    intermediate_size: int
    num_key_value_heads: int
    head_dim: int
    max_position_embeddings: int
    parameters: int
    neuron_parameters: int
    dtype_bytes: int
    vocab_size: int
    num_attention_heads: int
    tied: bool  # the embedding is the LM head as well

    def pruned_parameters(self, widths: tuple[int, ...]) -> int:
        return self.parameters - self.neuron_parameters * sum(self.intermediate_size - width for width in widths)

    @property
    def kv_bytes_per_token(self) -> int:
        """2 (key and value) * layers * KV heads * head_dim * bytes; FFN pruning never changes it."""
        return 2 * self.num_hidden_layers * self.num_key_value_heads * self.head_dim * self.dtype_bytes


@dataclass(frozen=True)
class Example:
    """A task item as text: the question in the task's own frame, the worked answer, the system message where the task has one."""

    prompt: str
    answer: str
    system: str = ""


@dataclass(frozen=True)
class CalibrationItem:
    """`token_ids` of one prompt; statistics are taken over positions [start, stop)."""

    target: bool
    token_ids: tuple[int, ...]
    start: int
    stop: int


@dataclass(frozen=True)
class CalibrationSet:
    """`model_hash`: the fingerprint of the folder that is scored."""

    model: str
    model_hash: str
    target_source: str
    distractor_sources: tuple[str, ...]
    tokens: TokenScope
    items: tuple[CalibrationItem, ...]

    @property
    def hash(self) -> str:
        items = [(item.target, item.token_ids, item.start, item.stop) for item in self.items]
        return digest([self.model, self.model_hash, self.target_source, self.distractor_sources, self.tokens, items])

    def count(self, target: bool) -> int:
        return sum(item.target is target for item in self.items)


@dataclass(frozen=True)
class Moments:
    """Count, mean and sum of squared deviations of one statistic per neuron; float64 [layers, intermediate_size]."""

    count: int
    mean: FloatArray
    m2: FloatArray


@dataclass(frozen=True)
class GroupStats:
    """One group of calibration prompts; float64 [layers, intermediate_size] but for `sample`.

    prompts: moments over prompts of m_ij = mean over tokens of |h_j|. Means over all scored tokens: mean_abs |h|, mean h,
    mean_square h^2, positive h > 0, gate_open gate > 0 (None where not asked for). sample: m_ij of at most 256 prompts,
    float32 [prompts, layers, intermediate_size].
    """

    prompts: Moments
    tokens: int
    mean_abs: FloatArray
    mean: FloatArray
    mean_square: FloatArray
    positive: FloatArray
    gate_open: FloatArray | None
    sample: FloatArray

    @property
    def variance(self) -> FloatArray:
        """Of h over tokens."""
        return np.maximum(self.mean_square - self.mean**2, 0.0)


@dataclass(frozen=True)
class ActivationStats:
    """Streaming statistics of a model's FFN activations h (the input of down_proj) over a calibration set.

    down_norm: Euclidean norm of down_proj's column j. saliency: |h dL/dh| (None where not asked for).
    Both float64 [layers, intermediate_size].
    """

    target: GroupStats
    distractor: GroupStats
    down_norm: FloatArray
    saliency: FloatArray | None
    calibration_hash: str


@dataclass(frozen=True)
class NeuronScores:
    """metric -> float32 [layers, intermediate_size]; higher means more worth keeping for the task."""

    scores: Mapping[str, FloatArray]
    model: str
    model_hash: str
    tokens: TokenScope
    calibration_hash: str
    file_hash: str = ""
    retain: float = 0.0  # the share of general tokens in the second moments


@dataclass(frozen=True)
class PruningPlan:
    """Which neurons stay: one sorted array of unique indices per layer. The whole truth of what is removed."""

    keep: tuple[IndexArray, ...]
    intermediate_size: int  # before pruning
    method: Method
    metric: str | None
    ratio: float
    seed: int
    alignment: int
    model: str
    model_hash: str
    scores_hash: str
    tokens: TokenScope
    allocation: Allocation = "uniform"
    protect: float = 0.0
    compensated: bool = False  # re-fitted down_proj columns lie beside the plan
    sequential: bool = False  # re-fitted layer by layer, each on what the layers before it give once pruned
    retain: float = 0.0

    @property
    def widths(self) -> tuple[int, ...]:
        return tuple(len(indices) for indices in self.keep)


@dataclass(frozen=True)
class Checkpoint:
    """A model folder on disk and what it weighs."""

    path: Path
    intermediate_sizes: tuple[int, ...]
    parameters: int
    weight_bytes: int


@dataclass(frozen=True)
class SampleRecord:
    """One answered item. `failures` holds every kind seen, `failure` the first by precedence, both without judging accuracy.

    `unknown`: kinds that nobody could see, as truncation where no finish_reason came along. doc_id None: not of the test split.

    Where a text was scored instead: `correct` None, `nll` its negative log likelihood in nats, `units` its tokens or bytes.
    """

    doc_id: int | None
    prompt: str
    text: str
    correct: bool | None
    prediction: str | None
    failure: str | None
    failures: tuple[str, ...]
    finish_reason: str | None
    n_tokens: int | None
    nll: float | None = None
    units: int | None = None
    unknown: tuple[str, ...] = ()
    score: float | None = None  # how alike the answer is to the dense model's, for the task similarity


@dataclass(frozen=True)
class EvalResult:
    """Accuracy with a 95 % Wilson interval, and how often each failure kind was seen (multi-label; None where unknown).

    metric perplexity or bits_per_byte: lower is better, the interval is over texts, no failure is known.

    `samples`: path relative to the run directory. trap_rate: the paper's own "trap", answers of at least 1024 tokens.
    wrong_by_kind: the first kind by precedence of every answer that is not right; with `value` these shares sum to 1.
    failure_low, failure_high: Wilson's interval of failure_rate.
    """

    n: int
    metric: str
    value: float
    ci_low: float | None  # None: lm-eval gives no standard error for this metric
    ci_high: float | None
    failures: Mapping[str, float | None]
    failure_rate: float | None
    tokens_per_answer: float | None
    seconds: float
    samples: str
    trap_rate: float | None = None
    wrong_by_kind: Mapping[str, float] = field(default_factory=dict)
    failure_low: float | None = None
    failure_high: float | None = None


@dataclass(frozen=True)
class LossPoint:
    """After `step` optimiser steps and `tokens` tokens (prompts included); loss in nats per answer token."""

    step: int
    tokens: int
    loss: float
    grad_norm: float
    learning_rate: float


@dataclass(frozen=True)
class CurvePoint:
    """The target's accuracy before, on the way or after, on the first `n` items, its 95 % interval and the rate of generation failures."""

    step: int
    tokens: int
    n: int
    value: float
    ci_low: float | None
    ci_high: float | None
    failure_rate: float | None


@dataclass(frozen=True)
class TrainingResult:
    """How a variant was fine-tuned. `recipe`: every setting; `expected`: the forecast of tokens, bytes and FLOPs made before it."""

    source: str
    examples: int
    left_out: int
    answer_tokens: int
    tokens: int
    steps: int
    seconds: float
    recipe: Mapping[str, Any]
    expected: Mapping[str, float]
    loss: tuple[LossPoint, ...]
    curve: tuple[CurvePoint, ...]


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
class Comparison:
    """Pruned minus dense on the same items of one task, with a 95 % interval and both flip counts.

    `difference`: of the accuracy; for perplexity of the nats per token (its logarithm), for bits_per_byte of the bits. Flips and
    test are None there.
    """

    variant: str
    baseline: str
    task: str
    n: int
    difference: float
    ci_low: float
    ci_high: float
    lost: int | None  # right before, wrong after
    gained: int | None
    mcnemar_p: float | None
    metric: str


@dataclass(frozen=True)
class Recovery:
    """What fine-tuning brought back of one task, beside the control, the base model fine-tuned the same way; shares of right answers.

    share: (fine-tuned - before) / (control - before), None where the control is not clearly better than before (95 %).
    beyond_half: fine-tuned minus the mean of the two others, with its 95 % interval: above 0 where at least half was brought back.
    """

    variant: str
    before: str
    control: str
    task: str
    n: int
    share: float | None
    beyond_half: float
    ci_low: float
    ci_high: float


@dataclass(frozen=True)
class RunResult:
    schema_version: int
    model: str
    task: str
    created: str
    versions: Mapping[str, str]
    hardware: Mapping[str, Any]
    command: str
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
