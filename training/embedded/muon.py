"""The Muon optimizer in float32; torch's own uses bfloat16, which most CPUs emulate."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

_A, _B, _C = 3.4445, -4.7750, 2.0315  # quintic Newton-Schulz coefficients of Jordan et al. (2024)


class Muon(torch.optim.Optimizer):
    """Momentum with orthogonalized matrix updates, scaled to the update size of AdamW.

    Matrices of the same shape are updated in one batch, which keeps several threads busy. Source:
    Jordan et al., "Muon" (2024); the factor 0.2 sqrt(max(rows, columns)) is from Moonshot, "Muon is
    scalable for LLM training" (2025).
    """

    def __init__(
        self,
        matrices: Iterable[torch.nn.Parameter],
        *,
        lr: float,
        weight_decay: float,
        momentum: float = 0.95,
    ) -> None:
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    def step(self, closure: None = None) -> None:
        """One update of all matrices."""
        for group in self.param_groups:
            by_shape: dict[tuple[int, ...], list[torch.nn.Parameter]] = {}
            for matrix in group["params"]:
                by_shape.setdefault(tuple(sorted(matrix.shape)), []).append(matrix)
            for shape, matrices in by_shape.items():
                with torch.no_grad():
                    self._update(matrices, group, 0.2 * max(shape) ** 0.5)

    def _update(
        self, matrices: list[torch.nn.Parameter], group: dict[str, Any], size: float
    ) -> None:
        updates = []
        for matrix in matrices:
            gradient, state = matrix.grad, self.state[matrix]
            if "momentum" not in state:
                state["momentum"] = torch.zeros_like(matrix)
            average = state["momentum"].lerp_(gradient, 1 - group["momentum"])
            update = gradient.lerp(average, group["momentum"])
            updates.append(update.T if _tall(matrix) else update)
        for matrix, update in zip(matrices, orthogonalize(torch.stack(updates)), strict=True):
            matrix.mul_(1 - group["lr"] * group["weight_decay"])
            matrix.add_(update.T if _tall(matrix) else update, alpha=-group["lr"] * size)


def _tall(matrix: torch.Tensor) -> bool:
    rows, columns = matrix.shape
    return bool(rows > columns)


def orthogonalize(matrices: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """Bring all singular values of (count, rows, columns) matrices near 1, by Newton-Schulz."""
    x = matrices / (matrices.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=_B, alpha=_C), x, beta=_A)
    return x
