"""Several scans of one volume, as one operator."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from invsr.errors import InvsrError
from invsr.grid import Grid
from invsr.numerics.axes import diagonal_in, eigenbasis
from invsr.numerics.cache import StateCache
from invsr.numerics.differences import NEUMANN, PERIODIC, laplacian_matrix
from invsr.operators.base import Composition, LinearOperator, Scaled
from invsr.operators.normal_equations import IDENTITY, check_shape
from invsr.operators.separable import Separable

# Number of penalties whose bases are kept: an iteration that changes rho makes a new basis each time.
MOST_BASES = 4


class Stack(LinearOperator):
    """Several scans of one volume, stacked: ``A x = (sqrt(w_1) A_1 x, sqrt(w_2) A_2 x, ...)``.

    Data and range are tuples, one entry per scan. The root of the weight belongs to the operator, so that
    ``A*`` is its adjoint in the plain inner product and ``A* A = sum_n w_n A_n* A_n``; data goes through
    `weigh` first: ``||A x - weigh(y)||^2 = sum_n w_n ||A_n x - y_n||^2``.

    Parameters
    ----------
    operators : sequence of LinearOperator
        With one domain.
    weights : sequence of float or Tensor, shape (n,), optional
        w_n, for instance ``1 / sigma_n^2`` relative to one scan's; by default 1.

    Shape
    -----
    ``A(x)``: (batch, channel, *domain.shape) to a tuple of (batch, channel, *range[n].shape).

    Raises
    ------
    InvsrError
        When there are no operators, their domains differ, or a weight is not above zero.

    Notes
    -----
    `solve` runs conjugate gradients, preconditioned in one basis per axis: the eigenvectors of the sum of
    the members' Gram matrices along that axis (plus ``rho`` times the Laplacian), where every term keeps
    its diagonal. For orthogonal stacks that each degrade one axis of their own this is the exact inverse.
    Members that are not separable (oblique, moved, masked in k-space) enter as a multiple of the identity.

    Examples
    --------
    >>> import numpy as np
    >>> from invsr.operators.scan_model import acquisition
    >>> volume = Grid((12, 12, 12), np.eye(4))
    >>> scans = [volume.coarsen((1, 1, 4)), volume.coarsen((4, 1, 1))]
    >>> A = Stack([acquisition(scan, reference=volume) for scan in scans], weights=[1.0, 0.5])
    >>> [tuple(y.shape[2:]) for y in A(torch.ones(1, 1, 12, 12, 12))]
    [(12, 12, 3), (3, 12, 12)]
    """

    range: tuple[Grid, ...]  # type: ignore[assignment]  # a tuple of grids, as data is a tuple
    weights: Tensor

    def __init__(self, operators: Sequence[LinearOperator], weights: Sequence[float] | Tensor | None = None) -> None:
        if len(operators) == 0:
            raise InvsrError("a stack needs at least one operator")
        domain = operators[0].domain
        for n, operator in enumerate(operators):
            if isinstance(operator, Stack):
                raise InvsrError(f"scan {n} is itself a stack: give its members")
            if operator.domain != domain:
                raise InvsrError(
                    f"scan 0 sees a volume on {domain}, scan {n} one on {operator.domain}: build all with one reference"
                )
        nn.Module.__init__(self)
        self.domain, self.range = domain, tuple(operator.range for operator in operators)
        self.members = nn.ModuleList(operators)
        values = torch.ones(len(operators)) if weights is None else torch.as_tensor(weights)
        if tuple(values.shape) != (len(operators),) or not bool((values > 0).all() & values.isfinite().all()):
            raise InvsrError(f"weights {values.tolist()} for {len(operators)} scans: give each one above zero")
        self.register_buffer("weights", values.double())
        a, b, c = (PERIODIC if all(o.boundary[n] == PERIODIC for o in operators) else NEUMANN for n in (0, 1, 2))
        self.boundary = (a, b, c)
        self.complex_range = any(operator.complex_range for operator in operators)
        self._cache = StateCache(MOST_BASES)
        self._parts = _factored(operators)

    @property
    def operators(self) -> list[LinearOperator]:
        """The members, one for each scan."""
        return [member for member in self.members if isinstance(member, LinearOperator)]

    def weigh(self, y: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """``sqrt(w_n) y_n``: measured data with the weights of this operator."""
        pairs = zip(self.weights.sqrt(), self._each(y), strict=True)
        return tuple(root.to(part.real.dtype) * part for root, part in pairs)

    def _forward(self, x: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]  # data is a tuple
        between: dict[LinearOperator, Tensor] = {}
        found = []
        for inner, rest in self._parts:
            if inner is not None and inner not in between:
                between[inner] = inner._forward(x)
            found.append(rest._forward(x if inner is None else between[inner]))
        return self.weigh(found)

    def adjoint(self, y: Sequence[Tensor]) -> Tensor:  # type: ignore[override]  # data is a tuple
        """A* y, ``sum_n sqrt(w_n) A_n* y_n``, shape (batch, channel, *domain.shape)."""
        check_shape(y, self.range, self, "y")
        return self._adjoint(y)

    def _adjoint(self, y: Sequence[Tensor]) -> Tensor:  # type: ignore[override]  # data is a tuple
        between: dict[LinearOperator | None, list[Tensor]] = {}
        for (inner, rest), part in zip(self._parts, self.weigh(y), strict=True):
            between.setdefault(inner, []).append(rest._adjoint(part))
        sums = ((inner, _sum(parts)) for inner, parts in between.items())
        return _sum([part if inner is None else inner._adjoint(part) for inner, part in sums])

    def measured_coordinates(self, r: Sequence[Tensor]) -> Tensor:  # type: ignore[override]  # data is a tuple
        """The coordinates of each member for its part of r, flattened and concatenated."""
        parts = zip(self.operators, self._each(r), strict=True)
        return torch.cat([member.measured_coordinates(part).flatten() for member, part in parts])

    def _composed(self, inner: LinearOperator) -> LinearOperator:
        return Stack([member @ inner for member in self.operators], self.weights)

    def __add__(self, other: LinearOperator) -> LinearOperator:
        raise InvsrError("stacks are not added up: add their members, or stack the members of both")

    def __mul__(self, factor: float | Tensor) -> LinearOperator:
        return Stack([member * factor for member in self.operators], self.weights)

    __rmul__ = __mul__

    def _each(self, y: Sequence[Tensor]) -> Sequence[Tensor]:
        if isinstance(y, Tensor) or len(y) != len(self.members):
            found = f"one tensor of shape {tuple(y.shape)}" if isinstance(y, Tensor) else f"{len(y)} tensors"
            raise InvsrError(f"a stack of {len(self.members)} scans takes a tuple of as many tensors, not {found}")
        return y

    # Preconditioner ---------------------------------------------------------------------------------

    def _precondition(self, r: Tensor, rho: float, regulariser: str) -> Tensor:
        bases, inverse = self._basis(r, rho, regulariser)
        return diagonal_in(bases, inverse, r)

    def _basis(self, like: Tensor, rho: float, regulariser: str) -> tuple[list[Tensor], Tensor]:
        """Vectors per axis, and the inverse of the diagonal that `normal` has in them."""
        key = (like.dtype, like.device, rho, regulariser)
        found: tuple[list[Tensor], Tensor] = self._cache.get(
            self, key, lambda: self._make_basis(like, rho, regulariser)
        )
        return found

    def _make_basis(self, like: Tensor, rho: float, regulariser: str) -> tuple[list[Tensor], Tensor]:
        wide = torch.complex128 if like.is_complex() else torch.float64
        sizes = zip(self.domain.shape, self.domain.spacing.tolist(), self.boundary, strict=True)
        smooth = [torch.from_numpy(laplacian_matrix(*size)).to(like.device, wide) for size in sizes]
        terms = []
        for weight, member in zip(self.weights.tolist(), self.operators, strict=True):
            factor, parts = _separable_part(member, like)
            eyes = [torch.ones(n, dtype=wide, device=like.device).diag() for n in self.domain.shape]
            terms.append((weight * factor, [e if g is None else g for e, g in zip(eyes, parts, strict=True)]))
        bases = []
        for n in (0, 1, 2):
            matrix = rho * smooth[n] if regulariser != IDENTITY else torch.zeros_like(smooth[n])
            for weight, grams in terms:  # each as strong as it is on average along the other axes
                for m in (0, 1, 2):
                    weight *= 1.0 if m == n else float(grams[m].diagonal().real.mean())
                matrix = matrix + weight * grams[n]
            bases.append(eigenbasis(matrix)[1])
        total = torch.full((), 0.0 if regulariser != IDENTITY else rho, dtype=torch.float64, device=like.device)
        if regulariser != IDENTITY:
            i, j, k = (rho * _diagonal(lap, v) for lap, v in zip(smooth, bases, strict=True))
            total = i[:, None, None] + j[:, None] + k
        for weight, grams in terms:
            i, j, k = (_diagonal(gram, v) for gram, v in zip(grams, bases, strict=True))
            total = total + weight * i[:, None, None] * j[:, None] * k
        inverse = 1 / total.clamp(min=1e-9 * float(total.max()))
        return [basis.to(like.dtype) for basis in bases], inverse.to(like.real.dtype)


def _factored(operators: Sequence[LinearOperator]) -> list[tuple[LinearOperator | None, LinearOperator]]:
    """Each operator as (first factor, remaining factors); the first is None unless another operator shares it.

    Oblique and moving scans begin with the same upsampling of the volume, which is then computed once.
    """
    starts = [_started(operator) for operator in operators]
    found: list[tuple[LinearOperator | None, LinearOperator]] = []
    for operator, (first, rest) in zip(operators, starts, strict=True):
        alike = [other for other, _ in starts if other is not None and first is not None and _same(first, other)]
        found.append((alike[0], rest) if len(alike) > 1 else (None, operator))
    return found


def _started(operator: LinearOperator) -> tuple[LinearOperator | None, LinearOperator]:
    if isinstance(operator, Scaled):
        first, rest = _started(operator.operator)
        return first, Scaled(rest, operator.factor)
    if not isinstance(operator, Composition):
        return None, operator
    first, rest = _started(operator.inner)
    return (operator.inner, operator.outer) if first is None else (first, Composition(operator.outer, rest))


def _same(a: LinearOperator, b: LinearOperator) -> bool:
    if a is b:
        return True
    if type(a) is not Separable or type(b) is not Separable or a.range != b.range or a.order != b.order:
        return False
    if any(True for one in (a, b) for _ in one.parameters()):  # equal now, but each may be learned
        return False
    pairs = zip(a.matrices(), b.matrices(), strict=True)
    return all(m is n or (m is not None and n is not None and torch.equal(m, n)) for m, n in pairs)


def _separable_part(operator: LinearOperator, like: Tensor) -> tuple[float, list[Tensor | None]]:
    """A factor and a Gram matrix per domain axis (None for the identity) that approximate ``A* A``."""
    if isinstance(operator, Separable):
        return 1.0, operator.grams(like)
    if isinstance(operator, Scaled):
        factor, grams = _separable_part(operator.operator, like)
        return factor * float(operator.factor) ** 2, grams
    # The weight of the others varies over the volume: one that is too small somewhere costs more iterations than none.
    ones = torch.ones((1, 1, *operator.domain.shape), dtype=like.real.dtype, device=like.device)
    return max(float(operator.gram(ones).real.mean()), 1e-6), [None, None, None]


def _diagonal(matrix: Tensor, vectors: Tensor) -> Tensor:
    return (vectors.conj() * (matrix @ vectors)).sum(0).real.clamp(min=0)


def _sum(parts: list[Tensor]) -> Tensor:
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total
