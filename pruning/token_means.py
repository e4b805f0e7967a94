"""Weighted sums over the tokens of a prompt, of several functions of each activation in one pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any

import numpy as np

TOKEN_STATISTICS = ("mean_abs", "mean", "mean_square", "positive")
_CACHE_BYTES = 1 << 20  # of activations at a time on a CPU, so that they stay in a core's cache


def token_means(h: Any, weights: Any) -> Any:
    """Sums over the tokens of weight * |h|, weight * h, weight * h^2 and weight * (h > 0), in float32.

    Args:
        h: Activations [prompts, tokens, intermediate_size].
        weights: [prompts, 1, tokens] float32, at the scored tokens of a prompt the same and 0 elsewhere; with
            1 / tokens the sums are means.

    Returns:
        [statistics, prompts, intermediate_size] float32 on h's device, as `TOKEN_STATISTICS` names them.
    """
    return _on_cpu(h, weights) if h.device.type == "cpu" else _on_gpu(h, weights)


def _on_gpu(h: Any, weights: Any) -> Any:
    """Reductions that read h's own dtype and add in float32; a copy in float32 would cost more than they do."""
    import torch

    scored = torch.where(weights.mT > 0, h, 0)
    norm = partial(torch.linalg.vector_norm, scored, dim=1, dtype=torch.float32)
    mean, positive = (values.sum(dim=1, dtype=torch.float32) for values in (scored, scored > 0))
    return torch.stack([norm(ord=1), mean, norm(ord=2).square(), positive]) * weights.amax(dim=2)


def _on_cpu(h: Any, weights: Any) -> Any:
    """Each activation is read once: PyTorch would write and read a tensor of h's size for every statistic.

    One thread does it at the rate at which a core reads memory; a second one would wait for PyTorch's, which spin.
    """
    import torch

    add, weights = _compiled(), weights.squeeze(1)
    found = torch.zeros(len(h), len(TOKEN_STATISTICS), h.shape[-1])

    for part in _parts(h):
        add(h[part].float().contiguous().numpy(), weights[part].numpy(), found[part].numpy())
    return found.transpose(0, 1)


def _parts(h: Any) -> Iterator[slice]:
    """So many prompts that they fit a core's cache, at least one."""
    size = max(1, _CACHE_BYTES // (4 * h[0].numel()))
    for start in range(0, len(h), size):
        yield slice(start, start + size)


@cache
def _compiled() -> Callable[[Any, Any, Any], None]:
    """Compiled in this process, in half a second: Numba's cache on disk needs a folder that can be written."""
    import numba

    _hide_special_names()
    compiled: Callable[[Any, Any, Any], None] = numba.njit(
        "void(float32[:, :, ::1], float32[:, ::1], float32[:, :, ::1])", nogil=True, fastmath={"contract", "nsz"}
    )(_add)
    return compiled


def _hide_special_names() -> None:
    """llvmlite's library object takes any name for a function, __dict__ too. An engine of vLLM 0.32 that starts in this
    process reads the __dict__ of everything in any module, and would stop at it.
    """
    from llvmlite.binding import ffi

    library = type(ffi.lib)
    function_of = library.__getattr__

    def attribute(self: Any, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return function_of(self, name)

    library.__getattr__ = attribute


def _add(h: Any, weights: Any, found: Any) -> None:
    """Adds to found [prompts, statistics, intermediate_size] what `token_means` defines; loops, as Numba wants them.

    Four tokens at a time, so that the sums are read and written a quarter as often; a token past the end has weight 0.
    """
    zero, tokens = np.float32(0), h.shape[1]
    for prompt in range(h.shape[0]):
        for one in range(0, tokens, 4):
            two, three, four = min(one + 1, tokens - 1), min(one + 2, tokens - 1), min(one + 3, tokens - 1)
            a = weights[prompt, one]
            b = weights[prompt, two] if one + 1 < tokens else zero
            c = weights[prompt, three] if one + 2 < tokens else zero
            d = weights[prompt, four] if one + 3 < tokens else zero
            if a == 0 and b == 0 and c == 0 and d == 0:
                continue
            for j in range(h.shape[2]):
                p, q, r, s = h[prompt, one, j], h[prompt, two, j], h[prompt, three, j], h[prompt, four, j]
                ap, bq, cr, ds = a * p, b * q, c * r, d * s
                found[prompt, 0, j] += (abs(ap) + abs(bq)) + (abs(cr) + abs(ds))
                found[prompt, 1, j] += (ap + bq) + (cr + ds)
                found[prompt, 2, j] += (ap * p + bq * q) + (cr * r + ds * s)
                found[prompt, 3, j] += ((a if p > 0 else zero) + (b if q > 0 else zero)) + (
                    (c if r > 0 else zero) + (d if s > 0 else zero)
                )
