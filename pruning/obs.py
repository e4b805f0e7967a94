"""Structured optimal brain surgeon on one layer's down projection: what to remove, and how the rest makes up for it.

The layer writes W h. Without the neurons R, the best W' on the kept neurons K minimises E||W h - W' h_K||^2, which is
W'_K = W_K + W_R H_RK H_KK^-1 with H = E[h h^T]; removing neuron j alone costs ||W_j||^2 / [H^-1]_jj (Hassibi and Stork
1993; per column as in ZipLM, arXiv 2302.04089, and SlimGPT, arXiv 2412.18110). All of it in FP64.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from harness.core.errors import MeasurementError
from harness.core.types.arrays import FloatArray

DAMPING = 1e-3  # times the mean of H's diagonal, added to it
_BLOCKS, _POOL, _ATTEMPTS = 64, 8, 5
_TINY = float(np.finfo(np.float64).tiny)


def _shift(matrix: Any, amount: float) -> Any:
    """In place; never by nothing, so that a layer without any activation can be inverted."""
    import torch

    diagonal = matrix.diagonal()
    diagonal += max(amount, torch.finfo(torch.float64).tiny ** 0.5)
    return matrix


def _factor(second_moment: Any, damping: float, keep: Any = None) -> Any:
    """Cholesky factor of the damped H, or of its rows and columns `keep`, with more damping where rounding made it
    indefinite.

    H is summed in FP32: a few massive, perfectly correlated activations can push eigenvalues below zero. Raises
    MeasurementError where no damping helps.
    """
    import torch

    mean = float(second_moment.diagonal().double().mean())
    for attempt in range(_ATTEMPTS):
        part = (second_moment if keep is None else second_moment[keep][:, keep]).to(torch.float64, copy=True)
        factor, failed = torch.linalg.cholesky_ex(_shift(part, mean * damping * 10**attempt))
        if not failed and torch.isfinite(factor.diagonal()).all():
            return factor
    raise MeasurementError(
        "a layer's second moments cannot be inverted (not finite?); check the checkpoint, or use --metric rms"
    )


def removal_order(
    weight: Any, second_moment: Any, count: int, damping: float = DAMPING, block: int | None = None
) -> tuple[Any, Any]:
    """The neurons in the order in which they are best removed, and the loss that each adds; [count] int64 and float64.

    weight: W [hidden, F]; second_moment: H [F, F]. Each step removes the neuron with the least ||W_j||^2 / P_jj of the
    current compensated W and P = H_KK^-1. Exact within a pool of candidates; W and P themselves are brought up to date
    once per block: P -= P_:R P_RR^-1 P_R:, W -= W_R P_RR^-1 P_R:.
    """
    import torch

    inverse = torch.cholesky_inverse(_factor(second_moment, damping))
    weight = weight.to(inverse.device, torch.float64, copy=True)
    size = block or max(1, weight.shape[1] // _BLOCKS)
    left = torch.arange(weight.shape[1], device=inverse.device)  # the neuron of every column of W and P
    order, losses = [], []
    for start in range(0, count, size):
        pool = _cheapest(weight, inverse, _POOL * size)
        with _one_thread():
            chosen, cost = _greedy(
                weight[:, pool].T @ weight[:, pool], inverse[pool][:, pool], min(size, count - start)
            )
        order.append(left[pool[chosen]])
        losses.append(cost)
        weight, inverse, left = _without(weight, inverse, left, pool[chosen])
    return torch.cat(order), torch.cat(losses)


def group_removal_order(weight: Any, second_moment: Any, groups: int, damping: float = DAMPING) -> tuple[Any, Any]:
    """The order in which groups of F / groups columns in a row are best removed, all of them, and the loss that each
    adds; [groups] int64 and float64.

    Each step removes the group g with the least tr(W_g P_gg^-1 W_g^T) of the current compensated W and P = H_KK^-1, the
    loss of removing its columns together (as ZipLM does with attention heads, arXiv 2302.04089).
    """
    import torch

    inverse = torch.cholesky_inverse(_factor(second_moment, damping))
    weight = weight.to(inverse.device, torch.float64, copy=True)
    left, columns = list(range(groups)), torch.arange(weight.shape[1] // groups, device=inverse.device)
    everything, order, losses = torch.arange(weight.shape[1], device=inverse.device), [], []
    for _ in range(groups):
        costs = [_group_loss(weight, inverse, columns + i * len(columns)) for i in range(len(left))]
        best = min(range(len(left)), key=costs.__getitem__)
        order.append(left.pop(best))
        losses.append(costs[best])
        if left:
            weight, inverse, everything = _without(weight, inverse, everything, columns + best * len(columns))
    return torch.tensor(order), torch.tensor(losses, dtype=torch.float64)


def _group_loss(weight: Any, inverse: Any, columns: Any) -> float:
    import torch

    part, spread = weight[:, columns], inverse[columns][:, columns]
    return float((torch.linalg.solve(spread, part.T) * part.T).sum())


def removal_scores(weight: Any, second_moment: Any, damping: float = DAMPING, groups: int | None = None) -> FloatArray:
    """Float32 [F] that grows strictly in the order of removal: the share of the layer's output that each removal costs
    at least. With `groups` of columns, one number for each of them.

    The greedy losses made monotone and divided by E||W h||^2, so that they compare over layers; the last to go scores
    highest.
    """
    if groups:
        order, losses = group_removal_order(weight, second_moment, groups, damping)
    else:
        order, losses = removal_order(weight, second_moment, weight.shape[1], damping)
    exact = second_moment.to(weight.device)
    energy = float(((weight.float() @ exact) * weight.float()).sum())
    shares = np.maximum.accumulate(losses.cpu().numpy() / max(energy, float(np.finfo(np.float32).tiny))).astype(
        np.float32
    )
    for i in range(1, len(shares)):
        shares[i] = max(shares[i], np.nextafter(shares[i - 1], np.float32(np.inf)))
    found = np.empty(len(shares), dtype=np.float32)
    found[order.cpu().numpy()] = shares
    return found


@contextmanager
def _one_thread() -> Iterator[None]:
    """On a CPU: thousands of small steps gain nothing from more threads, and wait for each other on busy cores."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _cheapest(weight: Any, inverse: Any, count: int) -> Any:
    """Columns of the `count` neurons whose removal costs least now."""
    loss = weight.square().sum(dim=0) / inverse.diagonal().clamp_min(_TINY)
    return loss.topk(min(count, len(loss)), largest=False).indices.sort().values


def _greedy(gram: Any, inverse: Any, count: int) -> tuple[Any, Any]:
    """Exact greedy removal inside a pool: gram G = W^T W and P of its neurons; returns positions and losses.

    Removing p turns W_j into W_j - c_j W_p and P into P - P_pp c c^T, with c = P_p / P_pp. Only the diagonals of G and
    P are kept up to date; a row is brought up to date, from the removals before it, when its neuron is removed.
    """
    import torch

    norms, spread = gram.diagonal().clone(), inverse.diagonal().clone()
    cs, rows = torch.empty_like(gram[:count]), torch.empty_like(gram[:count])  # c and G's row of every removal
    own_norm, own_spread = torch.empty_like(norms[:count]), torch.empty_like(norms[:count])
    chosen, losses = torch.empty(count, dtype=torch.long, device=gram.device), torch.empty_like(norms[:count])
    for step in range(count):
        loss = norms / spread.clamp_min(_TINY)
        pivot = loss.argmin(dim=0, keepdim=True)  # stays on the device, so that no step waits for another
        c_own, row_own = (found[:step].index_select(1, pivot).squeeze(1) for found in (cs, rows))
        inverse_row = inverse.index_select(0, pivot).squeeze(0) - (own_spread[:step] * c_own) @ cs[:step]
        row = gram.index_select(0, pivot).squeeze(0)
        rows[step] = row + (own_norm[:step] * c_own - row_own) @ cs[:step] - c_own @ rows[:step]
        here = slice(step, step + 1)
        own_norm[here], own_spread[here] = rows[step].index_select(0, pivot), inverse_row.index_select(0, pivot)
        cs[step] = inverse_row / own_spread[step]
        norms += cs[step] * (own_norm[step] * cs[step] - 2 * rows[step])
        spread -= own_spread[step] * cs[step].square()
        chosen[here], losses[here] = pivot, loss.index_select(0, pivot)
        norms.index_fill_(0, pivot, float("inf"))  # never again
    return chosen, losses


def _without(weight: Any, inverse: Any, left: Any, removed: Any) -> tuple[Any, Any, Any]:
    """W, P and their neurons after the removal of a block."""
    import torch

    stays = torch.ones(len(left), dtype=torch.bool, device=left.device)
    stays[removed] = False
    rows = inverse[removed]
    factor = torch.linalg.solve(rows[:, removed], rows[:, stays])
    weight = weight[:, stays].addmm_(weight[:, removed], factor, alpha=-1)
    return weight, inverse[stays][:, stays].addmm_(rows[:, stays].T, factor, alpha=-1), left[stays]


def refit(weight: Any, second_moment: Any, keep: Any, damping: float = DAMPING) -> Any:
    """W' [hidden, kept] float64: the kept columns plus what makes up for the removed ones, W_K + W_R H_RK H_KK^-1."""
    import torch

    removed = torch.ones(weight.shape[1], dtype=torch.bool, device=second_moment.device)
    removed[keep] = False
    kept_weight = weight[:, keep].to(second_moment.device, torch.float64)
    if not removed.any():
        return kept_weight
    cross = second_moment[removed][:, keep].to(torch.float64)
    missing = weight.to(second_moment.device)[:, removed].to(torch.float64) @ cross
    return kept_weight + torch.cholesky_solve(missing.T, _factor(second_moment, damping, keep)).T
