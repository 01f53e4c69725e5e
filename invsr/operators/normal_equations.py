"""The regularised normal equations of an operator, ``(A* A + rho R) x = b``, and their solution.

R is the identity or the Laplacian ``grad* grad``. Here they are solved by preconditioned conjugate gradients; an
operator that knows a basis in which they are diagonal overrides `_solve`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from invsr.errors import InvsrError
from invsr.grid import Grid
from invsr.numerics.cache import StateCache, learnable
from invsr.numerics.differences import NEUMANN, laplacian, smoothed
from invsr.numerics.linear import (
    LinearSolution,
    conjugate_gradient,
    inner,
    nonlinearity,
    number,
    random_like,
    solve_implicit,
)

IDENTITY, GRADIENT = "identity", "gradient"
# Relative deviation from linearity above which `_forward` is refused: well above the rounding of float32.
NONLINEAR = 1e-3


class NormalEquations(nn.Module):
    """Solution of the normal equations of an operator that provides `_forward` and `gram`."""

    domain: Grid
    #: Boundary of finite differences on the domain, per axis, that suits `solve`.
    boundary: tuple[str, str, str] = (NEUMANN, NEUMANN, NEUMANN)
    _cache: StateCache
    # Whether `_forward` was found to be linear; tried once, at the first iterative solve.
    _is_linear = False

    def _forward(self, x: Tensor) -> Tensor:
        raise TypeError(f"{type(self).__name__} does not define _forward(x)")

    def gram(self, x: Tensor) -> Tensor:
        """A* A x."""
        raise TypeError(f"{type(self).__name__} does not define gram(x)")

    def solve(
        self,
        b: Tensor,
        rho: float | Tensor,
        regulariser: str = IDENTITY,
        x0: Tensor | None = None,
        rtol: float = 1e-6,
        max_iter: int = 200,
    ) -> LinearSolution:
        """Solve ``(A* A + rho R) x = b`` with R the identity or the Laplacian ``grad* grad``.

        Operators that know a basis in which this is diagonal solve it directly; the others by
        preconditioned conjugate gradients. The result is differentiable in `b`, `rho` and the
        operator's parameters either way.

        Parameters
        ----------
        b : Tensor, shape (batch, channel, *domain.shape)
        rho : float or scalar Tensor
            Weight of R, above zero; in squared operator units ("identity") or times mm^2 ("gradient").
        regulariser : {"identity", "gradient"}
        x0 : Tensor, optional
            Start of the iteration; ignored by direct solves.
        rtol, max_iter
            Relative residual, preconditioned, and iteration limit of the iterative case.

        Returns
        -------
        LinearSolution
            ``x``, ``status``, ``n_iter`` (0 where direct), ``residual``.

        Raises
        ------
        InvsrError
            When rho is not one finite number above zero, the regulariser is unknown, `_forward` is not linear, or the
            operator starts from several grids, as the adjoint of a stack does.
        """
        if isinstance(self.domain, tuple):
            raise InvsrError(f"{type(self).__name__} starts from {len(self.domain)} grids: solve needs one volume")
        check_shape(b, self.domain, self, "b")
        if isinstance(rho, Tensor) and rho.numel() != 1:
            raise InvsrError(f"rho has shape {tuple(rho.shape)}: the data step needs one penalty")
        if not 0 < number(rho) < math.inf:
            raise InvsrError(f"rho is {number(rho)}: the data step needs a finite penalty above zero")
        if regulariser not in (IDENTITY, GRADIENT):
            raise InvsrError(f"unknown regulariser {regulariser!r}: use 'identity' or 'gradient'")
        return self._solve(b, rho, regulariser, x0, rtol, max_iter)

    def _solve(
        self, b: Tensor, rho: float | Tensor, regulariser: str, x0: Tensor | None, rtol: float, max_iter: int
    ) -> LinearSolution:
        self._require_linear(b)

        def solve(rhs: Tensor, start: Tensor | None) -> LinearSolution:
            return conjugate_gradient(
                lambda x: self.normal(x, number(rho), regulariser),
                rhs,
                start,
                lambda r: self._precondition(r, number(rho), regulariser),
                rtol,
                max_iter,
            )

        asked = b.requires_grad or learnable(self) or (isinstance(rho, Tensor) and rho.requires_grad)
        differentiable = torch.is_grad_enabled() and asked
        return solve_implicit(solve, lambda x: self.normal(x, rho, regulariser), b, x0, differentiable)

    def working_memory(self) -> int:
        """Bytes that solving takes beside real volumes of the unknown: by default what the operators inside it do."""
        parts = (one for child in self.children() for one in (child if isinstance(child, nn.ModuleList) else (child,)))
        return sum(one.working_memory() for one in parts if isinstance(one, NormalEquations))

    def normal(self, x: Tensor, rho: float | Tensor, regulariser: str = IDENTITY) -> Tensor:
        """``(A* A + rho R) x``, what `solve` inverts."""
        if regulariser == IDENTITY:
            return self.gram(x) + rho * x
        return self.gram(x) + rho * laplacian(x, self.domain.spacing.tolist(), self.boundary)

    def _precondition(self, r: Tensor, rho: float, regulariser: str) -> Tensor:
        """An approximate inverse of `normal`, symmetric positive definite.

        The default replaces A* A by its mean eigenvalue; a cosine transform then diagonalises the system.
        """
        if regulariser == IDENTITY:
            return r
        mean: float = self._cache.get(self, ("mean", r.dtype), lambda: self._mean_eigenvalue(r))
        return smoothed(r, mean, rho, self.domain.spacing.tolist(), self.boundary)

    def _mean_eigenvalue(self, like: Tensor) -> float:
        """Mean eigenvalue of A* A, by Hutchinson's estimate of the trace."""
        probe = random_like((1, *like.shape[1:]), like, 0)
        return max(float(inner(probe, self.gram(probe)) / inner(probe, probe)), 1e-6)

    def _require_linear(self, like: Tensor) -> None:
        if self._is_linear:
            return
        u, v = (random_like((1, *like.shape[1:]), like, seed) for seed in (0, 1))
        with torch.no_grad():
            deviation = nonlinearity(self._forward, u, v)
        if not deviation <= NONLINEAR:  # NaN too
            raise InvsrError(
                f"{type(self).__name__} is not linear: _forward(u + v) differs from _forward(u) + _forward(v), or "
                "_forward(0) is not 0: move constant terms into the data, and linearise what is not linear"
            )
        self._is_linear = True


def check_shape(x: Tensor | Sequence[Tensor], grid: Grid | tuple[Grid, ...], owner: object, name: str) -> None:
    """Raise unless `x` is (batch, channel, *grid.shape), real or complex, or one such tensor for each grid."""
    grids, tensors = (grid if isinstance(grid, tuple) else (grid,)), (x if isinstance(x, Sequence) else [x])
    if isinstance(x, Sequence) and not isinstance(grid, tuple):
        raise InvsrError(f"{type(owner).__name__} takes one tensor as {name}, not a {type(x).__name__} of them")
    if len(tensors) != len(grids):
        found = f"one tensor of shape {tuple(x.shape)}" if isinstance(x, Tensor) else f"{len(tensors)} tensors"
        raise InvsrError(f"{type(owner).__name__} takes a tuple of {len(grids)} tensors as {name}, not {found}")
    for tensor, one in zip(tensors, grids, strict=True):
        if not isinstance(tensor, Tensor) or not (tensor.is_floating_point() or tensor.is_complex()):
            # In whole numbers an operator's weights would all be 0.
            kind = f"one of {tensor.dtype}" if isinstance(tensor, Tensor) else f"a {type(tensor).__name__}"
            raise InvsrError(
                f"{type(owner).__name__} takes {name} as a tensor of floating-point numbers, not {kind}: "
                "convert it, as torch.as_tensor(x, dtype=torch.float32) does"
            )
        if tensor.ndim != 5 or tuple(tensor.shape[-3:]) != one.shape:
            raise InvsrError(
                f"{type(owner).__name__} takes {name} of shape (batch, channel, {', '.join(map(str, one.shape))}), "
                f"not {tuple(tensor.shape)}"
            )
