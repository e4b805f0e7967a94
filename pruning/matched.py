"""Neurons that are matched with others: controls of the same size of contribution, one for each."""

from __future__ import annotations

import numpy as np

from harness.core.errors import UsageError
from harness.core.types.arrays import FloatArray, IndexArray


def matched_keep(others: IndexArray, contribution: FloatArray) -> IndexArray:
    """What stays of a layer when, for each neuron that another plan removes, its nearest by contribution goes instead.

    Nearest neighbours without replacement, the largest contribution first; none is removed by both plans. Equal
    distances fall to the lower index.

    Args:
        others: What the other plan keeps, the candidates.
        contribution: E|h_j| * ||W_j|| of every neuron, [intermediate_size].

    Returns:
        Sorted indices that stay, as many as in `others`.

    Raises:
        UsageError: The other plan removes more than half, so that not every neuron has a control.
    """
    size = len(contribution)
    removed = np.setdiff1d(np.arange(size), others)
    if len(removed) > len(others):
        raise UsageError(
            f"{len(removed)} of {size} neurons would be removed, and each needs another one as its match; "
            "use matched at ratios of at most 0.5"
        )
    left, values = np.asarray(others), contribution.astype(np.float64)
    for neuron in removed[np.argsort(-values[removed], kind="stable")]:
        left = np.delete(left, np.argmin(np.abs(values[left] - values[neuron])))
    return np.union1d(left, removed).astype(np.int32)
