"""Sets of neurons, as boolean arrays [layers, intermediate_size]: True is in the set. Pure functions."""

from __future__ import annotations

import numpy as np

from harness.core.errors import UsageError
from harness.core.types.arrays import BoolArray, FloatArray

_NEIGHBOURS = 5  # of which one is taken at random


def top(scores: FloatArray, count: int) -> BoolArray:
    """The `count` highest scores of every layer, as reverse pruning removes them: of equal ones the last."""
    order = np.argsort(scores, axis=1, kind="stable")[:, scores.shape[1] - count :]
    found = np.zeros(scores.shape, dtype=bool)
    np.put_along_axis(found, order, True, axis=1)
    return found


def largest(values: FloatArray, count: int, among: BoolArray) -> BoolArray:
    """The `count` largest values over all layers among the neurons of a set."""
    inside = np.where(among, values, -np.inf).ravel()
    found = np.zeros(values.size, dtype=bool)
    found[np.argsort(-inside, kind="stable")[: min(count, int(among.sum()))]] = True
    return found.reshape(values.shape)


def random_set(shape: tuple[int, int], count: int, seed: int) -> BoolArray:
    """`count` neurons of every layer at random."""
    rng = np.random.default_rng([seed, count])
    return top(rng.random(shape), count)


def difference(important: FloatArray, elsewhere: FloatArray, count: int) -> BoolArray:
    """At most `count` neurons of every layer that are important here and not elsewhere.

    The n most important ones here without the n most important ones elsewhere (the set difference of MathNeuro: Christ
    et al., arXiv 2410.16930), for the smallest n that leaves `count`, or the n that leaves most; of those the most
    important ones.

    Args:
        important: [layers, intermediate_size].
        elsewhere: The same for what should not be hit.
    """
    return np.stack([_difference(*row, count) for row in zip(important, elsewhere, strict=True)])


def _difference(important: FloatArray, elsewhere: FloatArray, count: int) -> BoolArray:
    here, there = (np.argsort(np.argsort(-values, kind="stable")) for values in (important, elsewhere))
    sizes = [int(((here < n) & (there >= n)).sum()) for n in range(len(here))]
    n = next((n for n, size in enumerate(sizes) if size >= count), int(np.argmax(sizes)))
    inside = np.flatnonzero((here < n) & (there >= n))
    found = np.zeros(len(here), dtype=bool)
    found[inside[np.argsort(here[inside])[:count]]] = True
    return found


def matched(chosen: BoolArray, values: FloatArray, seed: int, by_layer: bool) -> BoolArray:
    """A random set that is matched with another one, neuron for neuron, and shares none with it.

    Each neuron's match is one of the five nearest by value that are neither in the set nor taken, at random; the
    largest values choose first.

    Args:
        chosen: The set.
        values: What they are matched on, [layers, intermediate_size].
        by_layer: Every match is of the same layer; else of any.

    Raises:
        UsageError: The set holds more than half of the neurons, so that not every one has a match.
    """
    if 2 * chosen.sum(axis=1).max() > chosen.shape[1]:
        raise UsageError("a set of more than half of the neurons has no matched set; lower --ratio")
    rng = np.random.default_rng(seed)
    if by_layer:
        return np.stack([_matched(*row, rng) for row in zip(chosen, values, strict=True)])
    return _matched(chosen.ravel(), values.ravel(), rng).reshape(chosen.shape)


def _matched(chosen: BoolArray, values: FloatArray, rng: np.random.Generator) -> BoolArray:
    """Of one row. The candidates lie in ascending order, so that the nearest ones are neighbours."""
    candidates, wanted = np.flatnonzero(~chosen), np.flatnonzero(chosen)
    candidates = candidates[np.argsort(values[candidates], kind="stable")]
    left, found = values[candidates], np.zeros(len(chosen), dtype=bool)
    for neuron in wanted[np.argsort(-values[wanted], kind="stable")]:
        place = int(np.searchsorted(left, values[neuron]))
        near = np.arange(max(0, place - _NEIGHBOURS), min(len(left), place + _NEIGHBOURS))
        pick = int(rng.choice(near[np.argsort(np.abs(left[near] - values[neuron]), kind="stable")[:_NEIGHBOURS]]))
        found[candidates[pick]] = True
        candidates, left = np.delete(candidates, pick), np.delete(left, pick)
    return found
