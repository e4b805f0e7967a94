"""A metric and a family of another package: `--metric example-peak`, and checkpoints of Helium."""

from __future__ import annotations

from harness.core.types.arrays import FloatArray
from harness.core.types.pruning import ActivationStats
from pruning.families import Family

HELIUM = Family("helium", "HeliumForCausalLM", supports_nonuniform_widths=False)


def peak(stats: ActivationStats) -> FloatArray:
    """E|h_j| over the task's tokens."""
    return stats.target.mean_abs
