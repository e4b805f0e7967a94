"""The streaming moments: the same for every split into batches, and those of a naive second pass."""

from __future__ import annotations

from functools import reduce
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import UnsupportedModelError
from harness.types import CalibrationItem, CalibrationSet
from pruning.activations import collect, merge, moments_of, observe
from pruning.families import FAMILIES


@given(st.lists(st.integers(1, 6), min_size=1, max_size=6), st.integers(0, 2**31))
def test_any_split_gives_the_same_moments(sizes: list[int], seed: int) -> None:
    values = np.random.default_rng(seed).normal(3, 2, (sum(sizes), 2, 5))
    parts = np.split(values, np.cumsum(sizes)[:-1])
    merged, whole = reduce(merge, map(moments_of, parts)), moments_of(values)
    assert merged.count == len(values)
    np.testing.assert_allclose(merged.mean, values.mean(0))
    np.testing.assert_allclose(merged.m2, values.var(0) * len(values), atol=1e-9)
    np.testing.assert_allclose(whole.m2, merged.m2, atol=1e-9)


@pytest.fixture(scope="module")
def model(random_model: Path):  # type: ignore[no-untyped-def]
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(random_model, dtype=torch.float32).eval()


def items(lengths: list[int], seed: int) -> tuple[CalibrationItem, ...]:
    rng = np.random.default_rng(seed)
    made = []
    for i, length in enumerate([*lengths, *lengths]):
        start = int(rng.integers(0, length))
        stop = int(rng.integers(start + 1, length + 1))
        made.append(CalibrationItem(i < len(lengths), tuple(map(int, rng.integers(0, 1000, length))), start, stop))
    return tuple(made)


@settings(max_examples=10, deadline=None)
@given(lengths=st.lists(st.integers(1, 30), min_size=1, max_size=5), seed=st.integers(0, 1000))
def test_collect_is_the_definition(model, lengths: list[int], seed: int) -> None:  # type: ignore[no-untyped-def]
    """Padding, length buckets and token ranges leave no trace: prompt by prompt gives the same."""
    chosen = items(lengths, seed)
    stats = collect(model, FAMILIES["qwen2"], CalibrationSet("m", "weights", "t", (), "both", chosen))
    means: dict[bool, list[np.ndarray]] = {True: [], False: []}
    squares = []
    for item in chosen:
        seen: dict[int, torch.Tensor] = {}
        with torch.no_grad(), observe(model.model.layers, lambda layer, h, seen=seen: seen.__setitem__(layer, h[0])):
            model.model(torch.tensor([item.token_ids]))
        h = torch.stack([seen[layer] for layer in sorted(seen)])[:, item.start : item.stop].double().numpy()
        means[item.target].append(np.abs(h).mean(1))
        squares += [h**2] if item.target else []
    np.testing.assert_allclose(stats.target.mean, np.mean(means[True], axis=0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(stats.distractor.m2, np.var(means[False], axis=0) * len(lengths), rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(stats.second_moment, np.concatenate(squares, axis=1).mean(1), rtol=1e-3, atol=1e-6)


def test_no_hook_is_left_after_an_exception(model) -> None:  # type: ignore[no-untyped-def]
    def fail(_layer: int, _h: torch.Tensor) -> None:
        raise RuntimeError

    with pytest.raises(RuntimeError), observe(model.model.layers, fail):
        model.model(torch.tensor([[1, 2]]))
    assert not any(layer.mlp.down_proj._forward_pre_hooks for layer in model.model.layers)


def test_nan_in_the_weights_is_refused_by_name(model) -> None:  # type: ignore[no-untyped-def]
    weight = model.model.layers[1].mlp.up_proj.weight
    kept = weight[0, 0].item()
    with torch.no_grad():
        weight[0, 0] = float("nan")
    try:
        with pytest.raises(UnsupportedModelError, match=r"layers\.1\.mlp\.up_proj\.weight holds NaN"):
            collect(model, FAMILIES["qwen2"], CalibrationSet("m", "weights", "t", (), "both", items([3], 0)))
    finally:
        with torch.no_grad():
            weight[0, 0] = kept
