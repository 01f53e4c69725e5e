"""The contract of every forward operator: grids on both ends, forward, adjoint, gram, solve; and their algebra."""

from __future__ import annotations

import math
from numbers import Number
from typing import Any, cast, overload

import torch
from torch import Tensor, nn

from invsr.errors import InvsrError
from invsr.grid import Grid
from invsr.numerics.cache import StateCache
from invsr.numerics.linear import LinearSolution, number, random_like
from invsr.numerics.scipy_maps import scipy_operator
from invsr.numerics.vectors import device_of, map_parts
from invsr.operators.normal_equations import IDENTITY, NormalEquations, check_shape

# What an operator maps to: one tensor, or a tuple of them from a `Stack`.
Data = Tensor | tuple[Tensor, ...]


class LinearOperator(NormalEquations):
    """A linear map from volumes on the `domain` grid to volumes on the `range` grid.

    A subclass writes `_forward`, and `_adjoint` where it is faster than the default (the exact
    vector-Jacobian product of `_forward`); everything else follows. Parameters of the acquisition
    (motion, profile widths, kernels) are parameters or buffers of the module and are never detached.

    Parameters
    ----------
    domain, range : Grid
        Grids of the unknown and of the data. `A @ B` needs ``A.domain == B.range``.

    Shape
    -----
    ``A(x)``: (batch, channel, *domain.shape) to (batch, channel, *range.shape).
    """

    range: Grid
    #: Whether the operator maps to complex data (k-space); its adjoint then takes complex data.
    complex_range: bool = False
    # NumPy's numbers leave `c * A` to the operator.
    __array_ufunc__ = None

    def __init__(self, domain: Grid, range: Grid) -> None:
        super().__init__()
        self.domain = domain
        self.range = range
        self._cache = StateCache()

    def _adjoint(self, y: Tensor) -> Tensor:
        zeros = torch.zeros((*y.shape[:2], *self.domain.shape), dtype=y.dtype, device=y.device)
        keep = torch.is_grad_enabled()
        with torch.enable_grad():
            predicted = self._forward(zeros.requires_grad_())
            (out,) = torch.autograd.grad(predicted, zeros, y, create_graph=keep)
        return out if keep else out.detach()

    def forward(self, x: Tensor) -> Tensor:
        """A x, shape (batch, channel, *range.shape)."""
        check_shape(x, self.domain, self, "x")
        return self._forward(x)

    def adjoint(self, y: Tensor) -> Tensor:
        """A* y, shape (batch, channel, *domain.shape)."""
        check_shape(y, self.range, self, "y")
        return self._adjoint(y)

    def gram(self, x: Tensor) -> Tensor:
        """A* A x."""
        return self.adjoint(self(x))

    @property
    def operators(self) -> list[LinearOperator]:
        """One for each part of the data: several where data is a tuple, else the operator itself."""
        return [self]

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
        The default keeps the samples that see the volume: A applied to a constant exceeds half of its maximum there. Of
        k-space (`complex_range`), which has no extent, it keeps those that A applied to noise reaches.
        """
        return r[..., self._samples_seen(r)]

    def _samples_seen(self, like: Tensor) -> Tensor:
        """The samples, shape `range.shape`, that see the volume."""
        probe = torch.ones((1, 1, *self.domain.shape), dtype=like.real.dtype, device=like.device)
        with torch.no_grad():
            image: Tensor = self(random_like(probe.shape, probe, 0) if self.complex_range else probe).abs().amax((0, 1))
        return image > (1e-6 if self.complex_range else 0.5) * image.max()

    # Algebra ----------------------------------------------------------------------------------------

    @overload
    def __matmul__(self, other: LinearOperator) -> LinearOperator: ...
    @overload
    def __matmul__(self, other: Tensor) -> Tensor: ...
    def __matmul__(self, other: LinearOperator | Tensor) -> LinearOperator | Tensor:
        """``(A @ B)(x) = A(B(x))``; ``A @ x`` is ``A(x)``."""
        if isinstance(other, LinearOperator):
            return self._composed(other)
        if not isinstance(other, Tensor | tuple):
            return NotImplemented
        y: Tensor = self(other)
        return y

    def _composed(self, inner: LinearOperator) -> LinearOperator:
        if isinstance(inner, Scaled):  # the number comes last: what remains may be merged
            return Scaled(self @ inner.operator, inner.factor)
        return Composition(self, inner)

    def __add__(self, other: LinearOperator) -> LinearOperator:
        """``(A + B)(x) = A(x) + B(x)``, on the same grids."""
        return Sum(self, other) if isinstance(other, LinearOperator) else NotImplemented

    def __sub__(self, other: LinearOperator) -> LinearOperator:
        """``(A - B)(x) = A(x) - B(x)``, on the same grids."""
        return self + -other if isinstance(other, LinearOperator) else NotImplemented

    def __neg__(self) -> LinearOperator:
        return self * -1.0

    def __mul__(self, factor: float | Tensor) -> LinearOperator:
        """``(A * c)(x) = c A(x)``, c a real number or a real tensor of weights on the range's voxels."""
        if isinstance(factor, Tensor) and factor.numel() != 1:
            return Diagonal(self.range, factor) @ self
        return Scaled(self, factor) if isinstance(factor, Number | Tensor) else NotImplemented

    __rmul__ = __mul__

    def __truediv__(self, divisor: float | Tensor) -> LinearOperator:
        if not isinstance(divisor, Number | Tensor):
            return NotImplemented
        if not bool(torch.as_tensor(divisor).detach().all()):
            raise InvsrError(f"{type(self).__name__} divided by zero: a divisor differs from zero everywhere")
        return self * (1 / divisor)

    def to_scipy(self, dtype: torch.dtype = torch.float64, channels: int = 1) -> Any:
        """A `scipy.sparse.linalg.LinearOperator` of this one; see `invsr.interop.scipy.to_scipy`."""
        grids = self.domain if isinstance(self.domain, tuple) else (self.domain,)
        zeros = tuple(torch.zeros((1, channels, *one.shape), dtype=dtype, device=device_of(self)) for one in grids)
        return scipy_operator(self.forward, self.adjoint, zeros if isinstance(self.domain, tuple) else zeros[0])

    def _register(self, name: str, values: Tensor) -> None:
        """Keep `values` as a parameter where it is one, and as a buffer otherwise."""
        if isinstance(values, nn.Parameter):
            self.register_parameter(name, values)
        else:
            self.register_buffer(name, values)

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
        return cast(Tensor, map_parts(torch.conj, self.operator._adjoint(map_parts(torch.conj, x))))

    def _adjoint(self, y: Tensor) -> Tensor:
        return cast(Tensor, map_parts(torch.conj, self.operator._forward(map_parts(torch.conj, y))))

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
        self.complex_range = outer.complex_range or (isinstance(outer, Diagonal) and inner.complex_range)

    def _forward(self, x: Tensor) -> Tensor:
        return self.outer._forward(self.inner._forward(x))

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.inner._adjoint(self.outer._adjoint(y))

    def measured_coordinates(self, r: Tensor) -> Tensor:
        if isinstance(self.outer, Diagonal):
            return self._weighted_coordinates(r, self.outer)
        # k-space has no extent: its samples are selected, not compared with those of a constant.
        return self.outer.measured_coordinates(r) if self.complex_range else super().measured_coordinates(r)

    def _weighted_coordinates(self, r: Tensor, outer: Diagonal) -> Tensor:
        """Samples of weight zero are left out; how large the others' weights are makes no difference."""
        weights = outer.weights.detach().to(r).expand(r.shape)
        if self.complex_range:
            return self.inner.measured_coordinates(r)[self.inner.measured_coordinates(weights) != 0]
        seen = self._samples_seen(r) | self.inner._samples_seen(r)
        return r[(seen & (weights != 0)).expand(r.shape)]


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

    def _samples_seen(self, like: Tensor) -> Tensor:  # a difference may leave nothing of a constant
        return self.a._samples_seen(like) | self.b._samples_seen(like)


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
        fits = weights.ndim >= 3 and all(w in (1, n) for w, n in zip(weights.shape[-3:], grid.shape, strict=True))
        if not fits or weights.is_complex():
            says = f"weights of shape {tuple(weights.shape)}, {weights.dtype}, do not fit {grid}"
            raise InvsrError(f"{says}: give real ones, one for each voxel")
        self._register("weights", weights)

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


class Scaled(LinearOperator):
    """``c A`` with a real number c; `solve` is that of A, ``(c^2 A* A + rho R)^-1 = c^-2 (A* A + rho / c^2 R)^-1``.

    Raises
    ------
    InvsrError
        When the factor is not one finite real number.
    """

    factor: Tensor

    def __init__(self, operator: LinearOperator, factor: float | Tensor) -> None:
        super().__init__(operator.domain, operator.range)
        wide = torch.complex128 if isinstance(factor, complex) else torch.float64
        value = factor if isinstance(factor, Tensor) else torch.tensor(factor, dtype=wide)
        if value.numel() != 1 or value.is_complex() or not math.isfinite(float(value.detach())):
            raise InvsrError(f"{type(operator).__name__} times {factor}: the factor must be a finite real number")
        self.operator = operator
        self._register("factor", value)
        self.boundary, self.complex_range = operator.boundary, operator.complex_range

    def _forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, map_parts(self._times, self.operator._forward(x)))

    def _adjoint(self, y: Tensor) -> Tensor:
        return cast(Tensor, map_parts(self._times, self.operator._adjoint(y)))

    def _times(self, x: Tensor) -> Tensor:
        return self.factor.reshape(()).to(x.real.dtype) * x

    def _composed(self, inner: LinearOperator) -> LinearOperator:
        return Scaled(self.operator @ inner, self.factor)

    def measured_coordinates(self, r: Tensor) -> Tensor:
        return self.operator.measured_coordinates(r)

    def _solve(
        self, b: Tensor, rho: float | Tensor, regulariser: str, x0: Tensor | None, rtol: float, max_iter: int
    ) -> LinearSolution:
        square = self.factor.reshape(()) ** 2 if self.factor.requires_grad else number(self.factor) ** 2
        if number(square) == 0:
            return super()._solve(b, rho, regulariser, x0, rtol, max_iter)
        return self.operator._solve(b / square, rho / square, regulariser, x0, rtol, max_iter)


def meet(outer: LinearOperator, inner: LinearOperator) -> None:
    """Raise unless `inner` ends on the grid that `outer` starts from."""
    if outer.domain != inner.range:
        raise InvsrError(
            f"{type(outer).__name__} starts from {outer.domain} but {type(inner).__name__} ends on "
            f"{inner.range}: compose operators whose grids meet"
        )
