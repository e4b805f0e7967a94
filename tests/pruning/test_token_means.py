"""The compiled sums and PyTorch's against their definition in NumPy, for every number of tokens and prompts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pruning.token_means import _on_gpu, token_means

SHAPES = st.tuples(st.integers(1, 5), st.integers(1, 9), st.integers(1, 40))


def defined(h: torch.Tensor, weights: torch.Tensor) -> np.ndarray:
    values, weight = h.double().numpy(), weights.double().numpy().squeeze(1)[..., None]
    parts = (np.abs(values), values, values**2, values > 0)
    return np.stack([(weight * part).sum(axis=1) for part in parts])


@given(SHAPES, st.integers(0, 2**31), st.sampled_from([torch.float32, torch.bfloat16, torch.float16]))
@settings(deadline=None, max_examples=60)
def test_sums_are_those_of_the_definition(shape: tuple[int, int, int], seed: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(seed)
    h = torch.randn(shape, generator=generator).to(dtype)
    scored = torch.rand(shape[0], 1, shape[1], generator=generator) > 0.3
    weights = scored * torch.rand(shape[0], 1, 1, generator=generator)
    for way in (token_means, _on_gpu):
        np.testing.assert_allclose(way(h, weights).numpy(), defined(h, weights), rtol=1e-5, atol=1e-5)


def test_activations_need_not_be_contiguous() -> None:
    h = torch.randn(3, 40, 6).transpose(1, 2)
    weights = torch.rand(3, 1, 6)
    np.testing.assert_allclose(token_means(h, weights).numpy(), defined(h, weights), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_an_activation_that_is_not_finite_is_seen(bad: float) -> None:
    h = torch.ones(1, 3, 2)
    h[0, 1, 1] = bad
    found = token_means(h, torch.full((1, 1, 3), 1 / 3)).numpy()
    assert np.isfinite(found[:, 0, 0]).all() and not np.isfinite(found[:3, 0, 1]).any()


def test_vllm_still_starts_in_a_process_that_has_scored() -> None:
    """It goes through every object of every module; this one raised AttributeError."""
    dispatcher = pytest.importorskip("vllm.triton_utils.dispatcher")
    assert token_means(torch.ones(1, 2, 3), torch.ones(1, 1, 2)).tolist() == [[[2.0] * 3]] * 4
    assert dispatcher._rebind_kernels([]) is None
