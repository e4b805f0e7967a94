"""From activations to a checkpoint: model shape, statistics, scores, plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from harness.core.types.arrays import FloatArray, IndexArray
from harness.core.types.calibration import TokenScope
from harness.core.types.model import ModelKind

Method = Literal["selective", "random", "reverse", "matched", "chosen"]  # chosen: a set that was given
StructureName = Literal["neuron", "kv_group", "attention", "ffn", "layer", "joint"]  # rows of pruning/structures.py


Allocation = Literal["uniform", "global", "search"]


@dataclass(frozen=True)
class ModelShape:
    """The numbers of a decoder that determine its size.

    Attributes:
        parameters: All parameters.
        neuron_parameters: Weights per FFN neuron, biases not counted.
        dtype_bytes: Bytes per parameter.
        tied: Whether the embedding is also the LM head.
        uniform: Whether every layer has the same FFN width.
        dtype: torch's name of the number type of the weights.
        group_parameters: Parameters of one KV group in every layer, biases too; 0 where none can be removed.
        group_bias_parameters: What a checkpoint with fewer KV groups has besides, biases of zeros.
        layer_parameters: Parameters of one layer.
        skipped_attention: Layers that have no attention, which then cache nothing.
        attention_parameters: Parameters of one layer's attention with its norm; 0 where it cannot be left out.
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
    tied: bool
    uniform: bool = True
    dtype: str = "bfloat16"
    group_parameters: int = 0
    group_bias_parameters: int = 0
    layer_parameters: int = 0
    skipped_attention: int = 0
    attention_parameters: int = 0

    @property
    def query_heads_per_group(self) -> int:
        return self.num_attention_heads // self.num_key_value_heads

    @property
    def attention_layers(self) -> int:
        return self.num_hidden_layers - self.skipped_attention

    def pruned_parameters(self, widths: tuple[int, ...]) -> int:
        return self.parameters - self.neuron_parameters * sum(self.intermediate_size - width for width in widths)

    def narrowed(self, width: int) -> ModelShape:
        """The shape with this FFN width in every layer."""
        left = self.pruned_parameters((width,) * self.num_hidden_layers)
        return replace(self, parameters=left, intermediate_size=width)

    @property
    def kv_bytes_per_token(self) -> int:
        """2 (key and value) * layers with attention * KV heads * head_dim * bytes; removing FFN neurons never changes
        it.
        """
        return 2 * self.attention_layers * self.num_key_value_heads * self.head_dim * self.dtype_bytes


@dataclass(frozen=True)
class Moments:
    """Count, mean and sum of squared deviations of one statistic per neuron; float64 [layers, intermediate_size]."""

    count: int
    mean: FloatArray
    m2: FloatArray


@dataclass(frozen=True)
class GroupStats:
    """Statistics of one group of calibration prompts; float64 [layers, intermediate_size] except `sample`.

    Attributes:
        prompts: Moments over prompts of m_ij, the mean over tokens of |h_j|.
        tokens: Scored tokens.
        mean_abs: Mean of |h| over scored tokens.
        mean: Mean of h.
        mean_square: Mean of h^2.
        positive: Share of tokens with h > 0.
        gate_open: Share of tokens with gate > 0; None where it was not measured.
        sample: m_ij of at most 256 prompts, float32 [prompts, layers, intermediate_size].
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
        """Variance of h over tokens."""
        return np.maximum(self.mean_square - self.mean**2, 0.0)


@dataclass(frozen=True)
class ActivationStats:
    """Streaming statistics of a model's FFN activations h (the input of down_proj) over a calibration set.

    Attributes:
        down_norm: Euclidean norm of column j of down_proj; float64 [layers, intermediate_size].
        saliency: |h dL/dh|, float64 [layers, intermediate_size]; None where it was not measured.
    """

    target: GroupStats
    distractor: GroupStats
    down_norm: FloatArray
    saliency: FloatArray | None
    calibration_hash: str


@dataclass(frozen=True)
class NeuronScores:
    """Metric -> float32 [layers, units]; a higher score means more worth keeping for the task. Units of a layer are its
    FFN neurons, its KV groups, or the one block that it has of a kind.

    Attributes:
        general_weight: Share of general tokens in the second moments.
        structure: What is scored.
        intermediate_size: FFN width, which the tables do not show where something else is scored; 0 in scores of
            neurons.
    """

    scores: Mapping[str, FloatArray]
    model: str
    model_hash: str
    tokens: TokenScope
    calibration_hash: str
    file_hash: str = ""
    general_weight: float = 0.0  # the share of general tokens in the second moments
    n_target: int = 0  # prompts of the task that were scored
    n_distractor: int = 0
    model_kind: ModelKind = "unknown"  # what `model` is
    path: Path | None = None  # their file; calibration and second moments lie beside it
    structure: StructureName = "neuron"
    intermediate_size: int = 0


@dataclass(frozen=True)
class PruningPlan:
    """What stays of a model. It fully determines what is removed.

    Attributes:
        keep: FFN neurons of each layer, sorted unique indices.
        intermediate_size: Width before pruning.
        compensated: Whether re-fitted columns of the output projections lie beside the plan.
        sequential: Whether each layer was re-fitted on the output of the pruned layers before it.
        reconstructed: Whether all matrices of the FFNs lie beside the plan, optimised after the re-fit.
        vocabulary: Rows of the embedding that stay, sorted; None for all.
        vocab_size: Rows before, where `vocabulary` is given.
        structure: What ratio, method and metric are about.
        kv_keep: KV groups of each layer, sorted unique indices; () where all stay.
        num_key_value_heads: KV groups of a layer before pruning; 0 where the plan says nothing of them.
        skip_attention: Layers without their attention block, sorted.
        skip_ffn: Layers without their FFN block, sorted.
    """

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
    reconstructed: bool = False
    general_weight: float = 0.0
    model_kind: ModelKind = "unknown"  # what `model` is
    path: Path | None = None  # its file; re-fitted columns lie beside it
    vocabulary: IndexArray | None = None
    vocab_size: int | None = None
    structure: StructureName = "neuron"
    kv_keep: tuple[IndexArray, ...] = ()
    num_key_value_heads: int = 0
    skip_attention: tuple[int, ...] = ()
    skip_ffn: tuple[int, ...] = ()

    @property
    def kv_heads(self) -> tuple[int, ...]:
        """KV groups that stay in each layer; () where the plan says nothing of them."""
        return tuple(len(groups) for groups in self.kv_keep)

    @property
    def widths(self) -> tuple[int, ...]:
        return tuple(len(indices) for indices in self.keep)


@dataclass(frozen=True)
class PredictedCheckpoint:
    """The sizes of a pruned variant that is not on disk, by formula; one that is on disk is a ModelFolder.

    widths: intermediate_size of every layer. record: what pruning would write beside the weights.
    """

    widths: tuple[int, ...]
    parameters: int
    weight_bytes: int
    record: Mapping[str, Any]
