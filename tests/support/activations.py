"""Activation statistics by their definition."""

from __future__ import annotations

import numpy as np

from harness.core.types.pruning import ActivationStats, GroupStats, Moments


def moments_of(values: np.ndarray) -> Moments:
    """Moments over the first axis of [prompts, layers, intermediate_size], in float64."""
    exact = values.astype(np.float64)
    return Moments(len(exact), exact.mean(axis=0), exact.var(axis=0) * len(exact))


def group_of(prompts: np.ndarray, tokens: np.ndarray, gates: np.ndarray | None = None) -> GroupStats:
    """From per-prompt means [prompts, layers, neurons] and token activations [tokens, layers, neurons], by
    definition.
    """
    return GroupStats(
        prompts=moments_of(prompts),
        tokens=len(tokens),
        mean_abs=np.abs(tokens).mean(0),
        mean=tokens.mean(0),
        mean_square=(tokens**2).mean(0),
        positive=(tokens > 0).mean(0),
        gate_open=(tokens > 0.2).mean(0) if gates is None else (gates > 0).mean(0),
        sample=prompts.astype(np.float32),
    )


def stats_of(
    target: np.ndarray, distractor: np.ndarray, norm: np.ndarray | None = None, seed: int = 0
) -> ActivationStats:
    rng = np.random.default_rng(seed)
    shape = target.shape[1:]
    tokens = [rng.standard_normal((11, *shape)), rng.standard_normal((13, *shape))]
    groups = [group_of(prompts, h) for prompts, h in zip((target, distractor), tokens, strict=True)]
    return ActivationStats(
        target=groups[0],
        distractor=groups[1],
        down_norm=np.ones(shape) if norm is None else norm,
        saliency=rng.random(shape),
        calibration_hash="hash",
    )


def random_stats(seed: int = 0, width: int = 7) -> ActivationStats:
    rng = np.random.default_rng(seed)
    return stats_of(rng.random((5, 2, width)), rng.random((9, 2, width)), rng.random((2, width)), seed)
