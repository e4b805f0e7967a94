"""Removal order and re-fit against the definition computed naively: inverses of submatrices, ordinary least squares."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.core.errors import MeasurementError
from pruning.obs import DAMPING, refit, removal_order, removal_scores
from tests.support.transfers import counted

F, HIDDEN = 40, 12


def layer(seed: int = 0, tokens: int = 300, width: int = F) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """W [hidden, F], correlated activations X [tokens, F] and H = X^T X / tokens."""
    g = torch.Generator().manual_seed(seed)
    x = (
        torch.randn(tokens, width, generator=g)
        @ torch.randn(width, width, generator=g)
        * torch.rand(width, generator=g)
    )
    return torch.randn(HIDDEN, width, generator=g), x, x.T @ x / tokens


def damped(h: torch.Tensor) -> torch.Tensor:
    return h.double() + DAMPING * h.double().diagonal().mean() * torch.eye(len(h), dtype=torch.float64)


def loss_of(weight: torch.Tensor, second_moment: torch.Tensor, keep: torch.Tensor, fitted: torch.Tensor) -> float:
    """E||W h - W' h_K||^2 = trace(D H D^T), with D = W - W' on the kept columns and W on the removed."""
    difference = weight.to(torch.float64).clone()
    difference[:, keep] -= fitted.to(torch.float64)
    return float(((difference @ second_moment.to(torch.float64)) * difference).sum())


def naive_order(weight: torch.Tensor, second_moment: torch.Tensor, count: int) -> tuple[list[int], list[float]]:
    """Each step tries every neuron and computes the loss of the best re-fit without it, from scratch."""
    h, kept, order, total = damped(second_moment), list(range(weight.shape[1])), [], [0.0]
    for _ in range(count):
        losses = [best_loss(weight.double(), h, [k for k in kept if k != j]) for j in kept]
        order.append(kept.pop(int(np.argmin(losses))))
        total.append(min(losses))
    return order, list(np.diff(total))


def best_loss(weight: torch.Tensor, h: torch.Tensor, keep: list[int]) -> float:
    fitted = weight @ h[:, keep] @ torch.linalg.inv(h[keep][:, keep])
    return loss_of(weight, h, torch.tensor(keep), fitted)


@pytest.mark.parametrize("block", [1, 3, None])
def test_the_blocked_order_is_the_greedy_one(block: int | None) -> None:
    weight, _, h = layer()
    order, losses = removal_order(weight, h, 25, block=block)
    expected, costs = naive_order(weight, h, 25)
    assert order.tolist() == expected
    np.testing.assert_allclose(losses, costs, rtol=1e-6)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), kept=st.integers(1, F - 1))
def test_the_refit_is_ordinary_least_squares(seed: int, kept: int) -> None:
    """Without damping: columns that best give W h from h_K over the tokens themselves."""
    weight, x, _ = layer(seed)
    exact = x.double().T @ x.double() / len(x)
    keep = torch.randperm(F, generator=torch.Generator().manual_seed(seed))[:kept].sort().values
    expected = torch.linalg.lstsq(x[:, keep].double(), x.double() @ weight.double().T).solution.T
    torch.testing.assert_close(refit(weight, exact, keep, damping=0.0), expected, rtol=1e-3, atol=1e-3)


@given(seed=st.integers(0, 200))
@settings(max_examples=20, deadline=None)
def test_a_refit_never_costs_more_than_none(seed: int) -> None:
    weight, _, h = layer(seed)
    keep = torch.arange(0, F, 2)
    assert loss_of(weight, damped(h), keep, refit(weight, h, keep)) <= loss_of(weight, damped(h), keep, weight[:, keep])


def test_ratio_zero_changes_no_bit() -> None:
    weight, _, h = layer()
    assert torch.equal(refit(weight, h, torch.arange(F)).float(), weight)


def test_permuting_neurons_permutes_the_order() -> None:
    weight, _, h = layer(7)
    turn = torch.randperm(F, generator=torch.Generator().manual_seed(1))
    assert (
        turn[removal_order(weight[:, turn], h[turn][:, turn], 30)[0]].tolist()
        == removal_order(weight, h, 30)[0].tolist()
    )


def test_a_copy_of_a_neuron_goes_first_and_costs_nothing() -> None:
    """Two equal activations: one of them is made up for exactly, whatever its weight."""
    weight, x, _ = layer(3)
    x[:, 5] = x[:, 9]
    h = x.T @ x / len(x)
    order, _ = removal_order(weight, h, 1, damping=1e-9)
    assert order[0] in (5, 9)
    keep = torch.tensor([j for j in range(F) if j != int(order[0])])
    fitted = refit(weight, h, keep)
    torch.testing.assert_close(x[:, keep] @ fitted.T.float(), x @ weight.T, rtol=1e-2, atol=0.3)


def test_dead_neurons_go_first() -> None:
    weight, x, _ = layer(4)
    x[:, [2, 11]] = 0
    order, losses = removal_order(weight, x.T @ x / len(x), F, damping=1e-9)
    assert set(order[:2].tolist()) == {2, 11}
    assert losses[:2].sum() < 1e-6 * losses.sum()


def test_fewer_tokens_than_neurons_stay_finite() -> None:
    weight, x, _ = layer(4, tokens=20)
    order, losses = removal_order(weight, x.T @ x / 20, F)
    assert torch.isfinite(losses).all() and sorted(order.tolist()) == list(range(F))
    assert torch.isfinite(refit(weight, x.T @ x / 20, order[25:].sort().values)).all()


def test_scores_grow_strictly_in_the_order_of_removal() -> None:
    weight, _, h = layer(5)
    scores = removal_scores(weight, h)
    assert np.argsort(scores).tolist() == removal_order(weight, h, F)[0].tolist()
    assert len(set(scores.tolist())) == F and scores.dtype == np.float32
    np.testing.assert_allclose(removal_scores(weight * 10, h * 3), scores, rtol=1e-3)


def test_moments_made_indefinite_by_rounding_are_damped_more() -> None:
    """A negative eigenvalue far beyond the usual damping; what comes out is still finite and a whole order."""
    weight, _, h = layer(9)
    values, vectors = torch.linalg.eigh(h.double())
    values[0] = -5e-3 * float(h.diagonal().mean())
    bad = (vectors * values) @ vectors.T
    order, _ = removal_order(weight, bad, F)
    assert sorted(order.tolist()) == list(range(F))
    assert torch.isfinite(refit(weight, bad, torch.arange(0, F, 2))).all()


def test_moments_that_are_not_finite_are_refused() -> None:
    weight, _, h = layer(9)
    h[3, 3] = float("nan")
    with pytest.raises(MeasurementError, match="cannot be inverted"):
        removal_order(weight, h, 5)


def test_no_removal_waits_for_the_one_before_it() -> None:
    """What a GPU would be asked for on the way: the same, whether 8 neurons of a block are removed or 32."""
    weight, _, h = layer()
    found = []
    for count in (8, 32):
        with counted() as copies:
            removal_order(weight, h, count, block=count)
        found.append(copies)
    assert found[0] == found[1]
