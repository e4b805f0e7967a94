"""One registered pure function per metric: statistics in, float32 [layers, intermediate_size] out, higher = keep.

A new metric is one function with its source in the docstring, decorated with @metric("name").
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from harness.errors import UsageError
from harness.types import ActivationStats, FloatArray

Metric = Callable[[ActivationStats], FloatArray]
METRICS: dict[str, Metric] = {}
_EPSILON = 1e-6


def metric(name: str) -> Callable[[Metric], Metric]:
    def register(function: Metric) -> Metric:
        METRICS[name] = function
        return function

    return register


def score(stats: ActivationStats, names: tuple[str, ...] | None = None) -> dict[str, FloatArray]:
    """The named metrics (all by default) as float32; raises UsageError for an unknown name."""
    wanted = names or tuple(METRICS)
    return {name: find_metric(name)(stats).astype(np.float32) for name in wanted}


def find_metric(name: str) -> Metric:
    if name not in METRICS:
        raise UsageError(f"unknown metric {name!r}; known are {', '.join(sorted(METRICS))}")
    return METRICS[name]


@metric("smd")
def standardised_mean_difference(stats: ActivationStats) -> FloatArray:
    """S_j = (mu_T - mu_D) / (sigma_all + 1e-6), sigma_all over all scored prompts (arXiv 2604.27115).

    Which neurons are specific to the task; the paper's score and the one for reverse pruning.
    """
    target, distractor = stats.target, stats.distractor
    n = target.count + distractor.count
    difference = target.mean - distractor.mean
    between = difference**2 * (target.count * distractor.count / n)
    sigma_all = np.sqrt((target.m2 + distractor.m2 + between) / n)
    return difference / (sigma_all + _EPSILON)


@metric("rms")
def root_mean_square_contribution(stats: ActivationStats) -> FloatArray:
    """sqrt(E h_j^2) * ||W_down[:, j]||_2 over the target's tokens.

    The root mean square of what neuron j writes into the residual stream: Wanda's |W| * ||X|| (arXiv 2306.11695), taken over
    a whole column. Which neurons the task needs; the score for compression.
    """
    return np.sqrt(stats.second_moment) * stats.down_norm
