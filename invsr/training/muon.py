"""Muon: gradient descent with momentum and orthogonalised steps, for convolutional networks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

# Coefficients of the odd polynomial a s + b s^3 + c s^5, which in a few rounds maps singular values s in (0, 1] to
# about 1.
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
NEWTON_SCHULZ_ROUNDS = 5
# Root mean square of a step's entries for a rate of 1: that of AdamW's steps.
STEP_SIZE = 0.2
NEGLIGIBLE = 1e-30


class Muon(torch.optim.Optimizer):
    """Each weight, seen as a matrix (outputs x the rest), steps along the orthogonal matrix nearest to its momentum.

    Parameters
    ----------
    parameters : iterable of Tensor
        Vectors and scalars step along their normalised momentum.
    lr : float
        Learning rate, on the scale of AdamW's.
    momentum : float
    weight_decay : float

    References
    ----------
    Jordan, Jin, Boza, You, Cesista, Newhouse, Bernstein (2024), Muon: an optimizer for hidden layers.
    Liu, Su, Yao, ... (2025), Muon is scalable for LLM training, arXiv 2502.16982 (size of the steps).
    """

    def __init__(
        self, parameters: Iterable[Tensor], lr: float = 2e-3, momentum: float = 0.95, weight_decay: float = 1e-4
    ) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step along the gradients of the parameters."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if not state:
                    state["momentum"] = torch.zeros_like(weight)
                mean = state["momentum"].lerp_(weight.grad, 1 - group["momentum"])
                # The momentum of dead channels would decay into denormal numbers, which are five times slower.
                mean.masked_fill_(mean.abs() < NEGLIGIBLE, 0.0)
                ahead = weight.grad.lerp(mean, group["momentum"])  # Nesterov's
                matrix = ahead.reshape(weight.shape[0] if weight.ndim else 1, -1)
                direction = orthogonal(matrix).reshape(weight.shape)
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.add_(direction, alpha=-group["lr"] * STEP_SIZE * max(matrix.shape) ** 0.5)
        return loss


def orthogonal(matrix: Tensor) -> Tensor:
    """Approximately the nearest orthogonal matrix: its singular values lie between 0.7 and 1.2."""
    a, b, c = NEWTON_SCHULZ
    wide: Tensor = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    x: Tensor = wide / wide.norm().clamp(min=1e-12)
    for _ in range(NEWTON_SCHULZ_ROUNDS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x if matrix.shape[0] <= matrix.shape[1] else x.T
