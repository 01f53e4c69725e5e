"""Preconditioned conjugate gradients, with a status.

Lives below operators and solvers because both use it: `LinearOperator.solve` falls back on it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor


class Status(str, Enum):
    """How an iteration ended."""

    CONVERGED = "converged"
    MAX_ITER = "max_iter"
    BREAKDOWN = "breakdown"


@dataclass(frozen=True)
class LinearSolution:
    """Result of a linear solve: `x`, how it ended, iterations taken, relative residual reached.

    A direct solve reports 0 iterations and a residual of 0.
    """

    x: Tensor
    status: Status = Status.CONVERGED
    n_iter: int = 0
    residual: float = 0.0


def number(value: float | Tensor) -> float:
    """The value of a scalar, whether or not it is differentiated."""
    return float(value.detach()) if isinstance(value, Tensor) else float(value)


def inner(a: Tensor, b: Tensor) -> Tensor:
    """Real part of <a, b>, accumulated in float64 for real and complex tensors alike."""
    if a.is_complex() or b.is_complex():
        a, b = torch.view_as_real(a.to(b.dtype).resolve_conj()), torch.view_as_real(b.to(a.dtype).resolve_conj())
    return torch.sum(a * b, dtype=torch.float64)


def conjugate_gradient(
    matvec: Callable[[Tensor], Tensor],
    b: Tensor,
    x0: Tensor | None = None,
    preconditioner: Callable[[Tensor], Tensor] | None = None,
    rtol: float = 1e-6,
    max_iter: int = 200,
) -> LinearSolution:
    """Solve ``matvec(x) = b`` for a symmetric positive definite `matvec`.

    Stops when ``||b - matvec(x)|| <= rtol * ||b||``; the tolerance is relative, so that the result does
    not depend on the intensity scale.

    References
    ----------
    Hestenes & Stiefel (1952), J. Res. Natl. Bur. Stand. 49, 409-436.
    """
    x = torch.zeros_like(b) if x0 is None else x0.clone()
    r = b - matvec(x) if x0 is not None else b.clone()
    scale = float(inner(b, b)) ** 0.5
    if scale == 0:
        return LinearSolution(torch.zeros_like(b))
    residual = float(inner(r, r)) ** 0.5 / scale
    p, rz = torch.zeros_like(b), 1.0
    for n in range(max_iter):
        if residual <= rtol:
            return LinearSolution(x, Status.CONVERGED, n, residual)
        z = r if preconditioner is None else preconditioner(r)
        rz, rz_old = float(inner(r, z)), rz
        p = z + (rz / rz_old) * p if n else z.clone()
        q = matvec(p)
        curvature = float(inner(p, q))
        if not curvature > 0:  # also catches NaN
            return LinearSolution(x, Status.BREAKDOWN, n, residual)
        x = x + (rz / curvature) * p
        r = r - (rz / curvature) * q
        residual = float(inner(r, r)) ** 0.5 / scale
    return LinearSolution(x, Status.CONVERGED if residual <= rtol else Status.MAX_ITER, max_iter, residual)
