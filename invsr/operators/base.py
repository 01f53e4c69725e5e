"""The contract of every forward operator: grids on both ends, forward, adjoint, gram, solve; and their algebra."""

from __future__ import annotations

from typing import overload

import torch
from torch import Tensor, nn

from invsr.errors import InvsrError
from invsr.grid import Grid
from invsr.numerics.cache import StateCache
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
# What an operator maps to: one tensor, or a tuple of them from a `Stack`.
Data = Tensor | tuple[Tensor, ...]
# Relative deviation from linearity above which `_forward` is refused.
NONLINEAR = 1e-2


class LinearOperator(nn.Module):
    """A linear map from volumes on the `domain` grid to volumes on the `range` grid.

    A subclass writes `_forward`, and `_adjoint` where it is faster than the default (the exact
    vector-Jacobian product of `_forward`); everything else follows. Parameters of the acquisition
    (motion, profile widths, kernels) are parameters or buffers of the module and are never detached.

    Parameters
    ----------
    domain, range : Grid
        Where the unknown and the data live. `A @ B` needs ``A.domain == B.range``.

    Shape
    -----
    ``A(x)``: (batch, channel, *domain.shape) to (batch, channel, *range.shape).
    """

    domain: Grid
    range: Grid
    #: Boundary of finite differences on the domain, per axis, that suits `solve`.
    boundary: tuple[str, str, str] = (NEUMANN, NEUMANN, NEUMANN)
    #: Whether the operator maps to complex data (k-space); its adjoint then takes complex data.
    complex_range: bool = False

    def __init__(self, domain: Grid, range: Grid) -> None:
        super().__init__()
        self.domain = domain
        self.range = range
        self._cache = StateCache()

    # What a subclass writes -------------------------------------------------------------------------

    def _forward(self, x: Tensor) -> Tensor:
        raise TypeError(f"{type(self).__name__} does not define _forward(x)")

    def _adjoint(self, y: Tensor) -> Tensor:
        zeros = torch.zeros((*y.shape[:2], *self.domain.shape), dtype=y.dtype, device=y.device)
        keep = torch.is_grad_enabled()
        with torch.enable_grad():
            predicted = self._forward(zeros.requires_grad_())
            (out,) = torch.autograd.grad(predicted, zeros, y, create_graph=keep)
        return out if keep else out.detach()

    # What a caller uses -----------------------------------------------------------------------------

    def forward(self, x: Tensor) -> Tensor:
        """A x, shape (batch, channel, *range.shape)."""
        _check(x, self.domain, self, "x")
        return self._forward(x)

    def adjoint(self, y: Tensor) -> Tensor:
        """A* y, shape (batch, channel, *domain.shape)."""
        _check(y, self.range, self, "y")
        return self._adjoint(y)

    def gram(self, x: Tensor) -> Tensor:
        """A* A x."""
        return self.adjoint(self(x))

    @property
    def H(self) -> LinearOperator:
        """The adjoint as an operator of its own; ``A.H.H is A``."""
        return Adjoint(self)

    @property
    def T(self) -> LinearOperator:
        """The transpose, ``A.T y = conj(A.H conj(y))``: the same as `H` for real operators."""
        return Transpose(self)

    def measured_coordinates(self, r: Tensor) -> Tensor:
        """Coordinates of the data `r` in which the operator can produce it, of any shape; an isometry there.

        Statistics of residuals are taken here, so that samples outside the volume, and detail that the
        volume's grid cannot hold, do not count as misfit. White noise of `r` stays white, with its sigma.
        By default the samples that see the volume: where A applied to a constant is above half of its maximum.
        """
        with torch.no_grad():
            ones = torch.ones((1, 1, *self.domain.shape), dtype=r.real.dtype, device=r.device)
            seen = self(ones).abs().amax((0, 1))
        return r[..., seen > 0.5 * seen.max()]

    @overload
    def __matmul__(self, other: LinearOperator) -> LinearOperator: ...
    @overload
    def __matmul__(self, other: Tensor) -> Tensor: ...
    def __matmul__(self, other: LinearOperator | Tensor) -> LinearOperator | Tensor:
        """``(A @ B)(x) = A(B(x))``; ``A @ x`` is ``A(x)``."""
        return self(other) if isinstance(other, Tensor) else self._composed(other)

    def _composed(self, inner: LinearOperator) -> LinearOperator:
        return Composition(self, inner)

    def __add__(self, other: LinearOperator) -> LinearOperator:
        """``(A + B)(x) = A(x) + B(x)``, on the same grids."""
        return Sum(self, other)

    def __sub__(self, other: LinearOperator) -> LinearOperator:
        """``(A - B)(x) = A(x) - B(x)``, on the same grids."""
        return self + other * -1.0

    def __neg__(self) -> LinearOperator:
        return self * -1.0

    def __mul__(self, factor: float | Tensor) -> LinearOperator:
        """``(A * c)(x) = c A(x)``, c a number or a tensor of weights on the range's voxels."""
        if isinstance(factor, Tensor) and factor.ndim:
            return Diagonal(self.range, factor) @ self
        return Scaling(self.range, factor) @ self

    __rmul__ = __mul__

    def __truediv__(self, divisor: float | Tensor) -> LinearOperator:
        return self * (1 / divisor)

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
            Relative residual and iteration limit of the iterative case.

        Returns
        -------
        LinearSolution
            ``x``, ``status``, ``n_iter`` (0 where direct), ``residual``.

        Raises
        ------
        InvsrError
            When rho is not above zero or the regulariser is unknown.
        """
        _check(b, self.domain, self, "b")
        if not number(rho) > 0:
            raise InvsrError(f"rho is {number(rho)}: the data step needs a penalty above zero")
        if regulariser not in (IDENTITY, GRADIENT):
            raise InvsrError(f"unknown regulariser {regulariser!r}: use 'identity' or 'gradient'")
        return self._solve(b, rho, regulariser, x0, rtol, max_iter)

    def _solve(
        self, b: Tensor, rho: float | Tensor, regulariser: str, x0: Tensor | None, rtol: float, max_iter: int
    ) -> LinearSolution:
        self._cache.get(self, "linear", lambda: self._require_linear(b))

        def solve(rhs: Tensor, start: Tensor | None) -> LinearSolution:
            return conjugate_gradient(
                lambda x: self.normal(x, number(rho), regulariser),
                rhs,
                start,
                lambda r: self._precondition(r, number(rho), regulariser),
                rtol,
                max_iter,
            )

        traced = [b, *self.parameters()] + ([rho] if isinstance(rho, Tensor) else [])
        differentiable = torch.is_grad_enabled() and any(t.requires_grad for t in traced)
        return solve_implicit(solve, lambda x: self.normal(x, rho, regulariser), b, x0, differentiable)

    def _require_linear(self, like: Tensor) -> bool:
        shape = (1, 1, *self.domain.shape)
        if nonlinearity(self._forward, random_like(shape, like, 0), random_like(shape, like, 1)) > NONLINEAR:
            raise InvsrError(
                f"{type(self).__name__} is not linear: _forward(u + v) differs from _forward(u) + _forward(v), or "
                "_forward(0) is not 0: move constant terms into the data, and linearise what bends"
            )
        return True

    def normal(self, x: Tensor, rho: float | Tensor, regulariser: str = IDENTITY) -> Tensor:
        """``(A* A + rho R) x``, what `solve` inverts."""
        if regulariser == IDENTITY:
            return self.gram(x) + rho * x
        return self.gram(x) + rho * laplacian(x, self.domain.spacing.tolist(), self.boundary)

    def _precondition(self, r: Tensor, rho: float, regulariser: str) -> Tensor:
        """An approximate inverse of `normal`, symmetric positive definite.

        By default A* A is taken for its mean eigenvalue, which leaves a system that cosines diagonalise.
        """
        if regulariser == IDENTITY:
            return r
        mean: float = self._cache.get(self, ("mean", r.dtype), lambda: self._mean_eigenvalue(r))
        return smoothed(r, mean, rho, self.domain.spacing.tolist(), self.boundary)

    def _mean_eigenvalue(self, like: Tensor) -> float:
        """Mean eigenvalue of A* A, by Hutchinson's estimate of the trace."""
        probe = random_like((1, 1, *self.domain.shape), like, 0)
        return max(float(inner(probe, self.gram(probe)) / inner(probe, probe)), 1e-6)

    def extra_repr(self) -> str:
        return f"{self.domain} -> {self.range}"


class Adjoint(LinearOperator):
    """A* as an operator."""

    def __init__(self, operator: LinearOperator) -> None:
        super().__init__(operator.range, operator.domain)
        self.operator = operator

    def _forward(self, x: Tensor) -> Tensor:
        return self.operator._adjoint(x)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.operator._forward(y)

    @property
    def H(self) -> LinearOperator:
        return self.operator


class Transpose(LinearOperator):
    """``A.T`` as an operator: `Adjoint` without the complex conjugation."""

    def __init__(self, operator: LinearOperator) -> None:
        super().__init__(operator.range, operator.domain)
        self.operator = operator

    def _forward(self, x: Tensor) -> Tensor:
        return self.operator._adjoint(x.conj()).conj()

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.operator._forward(y.conj()).conj()

    @property
    def T(self) -> LinearOperator:
        return self.operator


class Composition(LinearOperator):
    """``outer(inner(x))``.

    Raises
    ------
    InvsrError
        When the grid that `inner` ends on is not the grid that `outer` starts from.
    """

    def __init__(self, outer: LinearOperator, inner: LinearOperator) -> None:
        meet(outer, inner)
        super().__init__(inner.domain, outer.range)
        self.outer, self.inner = outer, inner
        self.boundary = inner.boundary
        self.complex_range = outer.complex_range

    def _forward(self, x: Tensor) -> Tensor:
        return self.outer._forward(self.inner._forward(x))

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.inner._adjoint(self.outer._adjoint(y))

    def measured_coordinates(self, r: Tensor) -> Tensor:
        if isinstance(self.outer, Scaling):
            return self.inner.measured_coordinates(r)
        # k-space has no extent.
        return self.outer.measured_coordinates(r) if self.complex_range else super().measured_coordinates(r)


class Sum(LinearOperator):
    """``a(x) + b(x)``."""

    def __init__(self, a: LinearOperator, b: LinearOperator) -> None:
        if a.domain != b.domain or a.range != b.range:
            raise InvsrError(f"operators to be added need the same grids: {a.extra_repr()} and {b.extra_repr()}")
        super().__init__(a.domain, a.range)
        self.a, self.b = a, b
        self.complex_range = a.complex_range or b.complex_range

    def _forward(self, x: Tensor) -> Tensor:
        return self.a._forward(x) + self.b._forward(x)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.a._adjoint(y) + self.b._adjoint(y)


class Diagonal(LinearOperator):
    """Voxel-wise weights: ``A x = w x``; with zeros and ones, the mask of an inpainting problem.

    Parameters
    ----------
    grid : Grid
    weights : Tensor, broadcastable to (batch, channel, *grid.shape), real.
    """

    weights: Tensor

    def __init__(self, grid: Grid, weights: Tensor) -> None:
        super().__init__(grid, grid)
        if weights.ndim < 3 or any(w not in (1, n) for w, n in zip(weights.shape[-3:], grid.shape, strict=True)):
            raise InvsrError(f"weights of shape {tuple(weights.shape)} do not fit the grid {grid}")
        self.register_buffer("weights", weights)

    def _forward(self, x: Tensor) -> Tensor:
        return self.weights.to(x.real.dtype) * x

    def _adjoint(self, y: Tensor) -> Tensor:
        return self._forward(y)

    def measured_coordinates(self, r: Tensor) -> Tensor:
        return r[self.weights.expand(r.shape) != 0]

    def _solve(
        self, b: Tensor, rho: float | Tensor, regulariser: str, x0: Tensor | None, rtol: float, max_iter: int
    ) -> LinearSolution:
        if regulariser == IDENTITY:
            return LinearSolution(b / (self.weights.to(b.real.dtype) ** 2 + rho))
        return super()._solve(b, rho, regulariser, x0, rtol, max_iter)


class Scaling(Diagonal):
    """``A x = c x`` on a grid."""

    def __init__(self, grid: Grid, factor: float | Tensor) -> None:
        super().__init__(grid, torch.as_tensor(factor, dtype=torch.float64).reshape(1, 1, 1))


def meet(outer: LinearOperator, inner: LinearOperator) -> None:
    """Raise unless `inner` ends on the grid that `outer` starts from."""
    if outer.domain != inner.range:
        raise InvsrError(
            f"{type(outer).__name__} starts from {outer.domain} but {type(inner).__name__} ends on "
            f"{inner.range}: compose operators whose grids meet"
        )


def _check(x: Tensor, grid: Grid, operator: LinearOperator, name: str) -> None:
    if x.ndim != 5 or tuple(x.shape[-3:]) != grid.shape:
        raise InvsrError(
            f"{type(operator).__name__} takes {name} of shape (batch, channel, {', '.join(map(str, grid.shape))}), "
            f"not {tuple(x.shape)}"
        )
