"""The gradient of a fixed point by the implicit function theorem, and what is said where no fixed point is found."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from invsr.errors import InvsrWarning
from invsr.numerics.fixed_point import FixedPoint
from invsr.numerics.iteration import Status
from invsr.solvers.state import Step


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


def adjoint_of(
    v: Tensor,
    x: Tensor,
    image: Tensor,
    grad: Tensor,
    solve: Callable[[Callable[[Tensor], Tensor], Tensor], Tensor],
) -> Tensor:
    """``(I - J^T)^-1 b`` with b the gradient `grad` of x, taken back to v.

    Parameters
    ----------
    v, x, image : Tensor
        The fixed point, and x and T(v) of one step from it with a graph.
    grad : Tensor, shape of x
    solve : callable
        ``solve(f, b)`` finds the fixed point of f from b.
    """
    (b,) = torch.autograd.grad(x, v, grad, retain_graph=True)
    scale = b.abs().max()
    if not scale > 0:  # NaN goes on to the parameters, where training looks for it
        return b
    b = b / scale  # squares of gradients can be too small for float32

    def advance(w: Tensor) -> Tensor:
        (product,) = torch.autograd.grad(image, v, w, retain_graph=True)
        return b + product

    return solve(advance, b) * scale


def warn_unless_found(found: FixedPoint | None, step: Step, way: str, rtol: float, limit: str) -> None:
    """Warn where the search for the fixed point of a step has not converged; `limit` names its limit of iterations."""
    if found is None or found.status is Status.CONVERGED:
        return
    warnings.warn(
        f"{way} fixed point of {type(step).__name__} not found: relative residual {found.residual:.1e} "
        f"instead of {rtol:.1e} after {found.n_iter} iterations ({found.status.value}), the nearest is used: "
        f"raise {limit}, or use a denoiser that contracts more",
        InvsrWarning,
        stacklevel=3,
    )
