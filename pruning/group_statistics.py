"""Statistics of groups of prompts, put together: S of any target against any distractors from one pass over each."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from harness.core.types.arrays import FloatArray
from harness.core.types.pruning import ActivationStats, GroupStats, Moments
from pruning.scores import score

_TOKEN_MEANS = ("mean_abs", "mean", "mean_square", "positive")


def merged(groups: Sequence[GroupStats]) -> GroupStats:
    """The statistics of all prompts of several groups (Chan, Golub and LeVeque 1979); `sample` holds all samples."""
    total = groups[0]
    for group in groups[1:]:
        total = _merged(total, group)
    return total


def _merged(a: GroupStats, b: GroupStats) -> GroupStats:
    tokens = a.tokens + b.tokens
    means = {
        name: (getattr(a, name) * a.tokens + getattr(b, name) * b.tokens) / max(tokens, 1) for name in _TOKEN_MEANS
    }
    count = a.prompts.count + b.prompts.count
    delta = b.prompts.mean - a.prompts.mean
    prompts = Moments(
        count,
        a.prompts.mean + delta * (b.prompts.count / count),
        a.prompts.m2 + b.prompts.m2 + delta**2 * (a.prompts.count * b.prompts.count / count),
    )
    return GroupStats(prompts, tokens, **means, gate_open=None, sample=np.concatenate([a.sample, b.sample]))


def side_by_side(parts: Sequence[ActivationStats]) -> ActivationStats:
    """The statistics of the same prompts and layers in several blocks, as units of one layer after the other."""
    if len(parts) == 1:
        return parts[0]
    groups = [_together([getattr(part, side) for part in parts]) for side in ("target", "distractor")]
    norms: FloatArray = np.concatenate([part.down_norm for part in parts], axis=1)
    return replace(parts[0], target=groups[0], distractor=groups[1], down_norm=norms)


def _together(groups: Sequence[GroupStats]) -> GroupStats:
    def joined(read: Callable[[GroupStats], FloatArray]) -> FloatArray:
        found: FloatArray = np.concatenate([read(group) for group in groups], axis=-1)
        return found

    prompts = Moments(
        groups[0].prompts.count, joined(lambda group: group.prompts.mean), joined(lambda group: group.prompts.m2)
    )
    means: dict[str, Any] = {name: joined(operator.attrgetter(name)) for name in _TOKEN_MEANS}
    return replace(groups[0], prompts=prompts, sample=joined(lambda group: group.sample), **means)


def some_prompts(group: GroupStats, count: int, seed: int) -> GroupStats:
    """The group as if it had `count` prompts, drawn at random from its sample; only its moments over prompts change."""
    rows = np.random.default_rng(seed).permutation(len(group.sample))[:count]
    chosen = group.sample[rows].astype(np.float64)
    mean: FloatArray = chosen.mean(axis=0)
    return replace(group, prompts=Moments(len(rows), mean, ((chosen - mean) ** 2).sum(axis=0)))


def specificity_scores(target: GroupStats, distractors: Sequence[GroupStats], down_norm: FloatArray) -> FloatArray:
    """S of the target's prompts against those of all distractors, float32 [layers, intermediate_size]."""
    stats = ActivationStats(target, merged(distractors), down_norm, saliency=None, calibration_hash="")
    return score(stats, ["smd"])["smd"]


def contribution(group: GroupStats, down_norm: FloatArray) -> FloatArray:
    """E|h_j| * ||W_j|| on the group's prompts, float64 [layers, intermediate_size]."""
    return group.mean_abs * down_norm


def largest_contribution(group: GroupStats, down_norm: FloatArray) -> FloatArray:
    """The largest of single prompts' means of |h_j| * ||W_j||, float64 [layers, intermediate_size]."""
    found: FloatArray = group.sample.max(axis=0) * down_norm
    return found
