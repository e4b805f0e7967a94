"""Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon) in FP32 over stacks of equal shapes.

torch.optim.Muon orthogonalises in BF16, which is about sixty times slower on a CPU without BF16 instructions.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

_QUINTIC = (3.4445, -4.7750, 2.0315)


def orthogonalise(matrices: Any, steps: int = 5) -> Any:
    """[n, rows, columns] -> the same shape with singular values near 1, by the Newton-Schulz iteration of the post."""
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    a, b, c = _QUINTIC
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


class Muon:
    """Momentum, orthogonalised; the step of a matrix is scaled by sqrt(max(1, rows / columns))."""

    def __init__(self, matrices: list[Any], lr: float, momentum: float = 0.95, weight_decay: float = 0.01) -> None:
        import torch

        shapes: dict[Any, list[Any]] = defaultdict(list)
        for matrix in matrices:
            shapes[matrix.shape].append(matrix)
        self.stacks = [(group, torch.zeros(len(group), *shape)) for shape, group in shapes.items()]
        self.param_groups = [{"lr": lr}]
        self.momentum, self.weight_decay = momentum, weight_decay

    def step(self) -> None:
        import torch

        lr = self.param_groups[0]["lr"]
        with torch.no_grad():
            for group, velocity in self.stacks:
                gradient = torch.stack([matrix.grad for matrix in group])
                velocity.lerp_(gradient, 1 - self.momentum)
                update = orthogonalise(gradient.lerp(velocity, self.momentum))  # Nesterov
                scale = lr * max(1.0, update.shape[-2] / update.shape[-1]) ** 0.5
                for matrix, change in zip(group, update, strict=True):
                    matrix.mul_(1 - lr * self.weight_decay).add_(change, alpha=-scale)

    def zero_grad(self) -> None:
        for group, _ in self.stacks:
            for matrix in group:
                matrix.grad = None
