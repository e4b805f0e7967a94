"""From activations to a checkpoint: shapes, statistics, scores, plans."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from harness.core.types.arrays import FloatArray, IndexArray
from harness.core.types.calibration import TokenScope

Method = Literal["selective", "random", "reverse"]


Allocation = Literal["uniform", "global"]


@dataclass(frozen=True)
class ModelShape:
    """The numbers of a decoder that decide its size. `neuron_parameters`: weights that one FFN neuron takes, biases
    aside.
    """

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
class Moments:
    """Count, mean and sum of squared deviations of one statistic per neuron; float64 [layers, intermediate_size]."""

    count: int
    mean: FloatArray
    m2: FloatArray


@dataclass(frozen=True)
class GroupStats:
    """One group of calibration prompts; float64 [layers, intermediate_size] but for `sample`.

    prompts: moments over prompts of m_ij = mean over tokens of |h_j|. Means over all scored tokens: mean_abs |h|, mean
    h, mean_square h^2, positive h > 0, gate_open gate > 0 (None where not asked for). sample: m_ij of at most 256
    prompts, float32 [prompts, layers, intermediate_size]."""

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
    general_weight: float = 0.0  # the share of general tokens in the second moments


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
    general_weight: float = 0.0

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
