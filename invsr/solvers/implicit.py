"""The gradient of a fixed point by the implicit function theorem, as a function of PyTorch's autograd."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class ImplicitGradient(torch.autograd.Function):
    """x at ``v = T(v)``, from x and T(v) of one step from v held fixed: T(v) gets the gradient ``(I - J^T)^-1 b``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, image: Tensor, adjoint: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.adjoint = adjoint
        return x.view_as(x)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        return grads[0], ctx.adjoint(grads[0]), None
