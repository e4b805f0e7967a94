"""FP32 matrix products in FP32: second moments lose their smallest eigenvalues in TF32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def ieee_products() -> Iterator[None]:
    """Without TF32 on a GPU, which some containers turn on for every process."""
    import torch

    before = torch.backends.cuda.matmul.fp32_precision
    torch.backends.cuda.matmul.fp32_precision = "ieee"
    try:
        yield
    finally:
        torch.backends.cuda.matmul.fp32_precision = before
