"""Operators that are one small matrix per axis, with exact solves of the regularised normal equations.

Slice profile, in-plane point spread, decimation and k-space cropping along an axis are matrices of at
most a few hundred rows. A chain of them is again one matrix per axis, ``A = M_i (x) M_j (x) M_k``, and the
eigenvectors of the per-axis Gram matrices diagonalise ``A* A`` on the whole volume.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from invsr.errors import InvsrError
from invsr.grid import Grid
from invsr.numerics.axes import SLAB, diagonal_in, eigenbasis, multiply, range_basis, rotate
from invsr.numerics.cache import learnable
from invsr.numerics.differences import NEUMANN, laplacian, laplacian_matrix
from invsr.numerics.linear import LinearSolution, number
from invsr.operators.base import LinearOperator, meet
from invsr.operators.eigenbases import joint_eigenbasis
from invsr.operators.normal_equations import IDENTITY

# Distinct weights that the solved axis may be coupled to; each costs one eigenbasis.
MOST_GROUPS = 6


class Separable(LinearOperator):
    """One matrix per axis: range axis n is ``matrices[n]`` applied to domain axis ``order[n]``.

    Parameters
    ----------
    domain, range : Grid
    matrices : three of Tensor, shape (range.shape[n], domain.shape[order[n]]), or None for the identity
        Real or complex, kept in float64. Real data takes the real part of a complex matrix, which
        shares a Nyquist frequency equally between its two signs.
    order : permutation of (0, 1, 2)
        Which domain axis each range axis lies along.
    boundary : three of {"neumann", "periodic"}
        Boundary condition of finite differences, per domain axis.

    Raises
    ------
    InvsrError
        When a matrix does not fit the two grids.
    """

    def __init__(
        self,
        domain: Grid,
        range: Grid,
        matrices: Sequence[Tensor | None],
        order: tuple[int, int, int] = (0, 1, 2),
        boundary: tuple[str, str, str] = (NEUMANN, NEUMANN, NEUMANN),
    ) -> None:
        super().__init__(domain, range)
        self.order = order
        self.boundary = boundary
        for n, matrix in enumerate(matrices):
            expected = (range.shape[n], domain.shape[order[n]])
            if (expected if matrix is None else tuple(matrix.shape)) != expected or (
                matrix is None and expected[0] != expected[1]
            ):
                raise InvsrError(
                    f"axis {n} takes a matrix of shape {expected} from {domain} to {range}, "
                    f"not {'the identity' if matrix is None else tuple(matrix.shape)}"
                )
            if isinstance(matrix, nn.Parameter):
                self.register_parameter(f"matrix_{n}", matrix)
            elif matrix is not None and matrix.is_complex():  # Module.to(float32) would keep the real part only
                self.register_buffer(f"matrix_{n}", torch.view_as_real(matrix.resolve_conj()))
            else:
                self.register_buffer(f"matrix_{n}", matrix)

    def matrices(self) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """The three matrices; a subclass with parameters builds them here, differentiably."""
        a, b, c = (_whole(getattr(self, f"matrix_{n}")) for n in (0, 1, 2))
        return a, b, c

    def _forward(self, x: Tensor) -> Tensor:
        y = x.permute(0, 1, *(2 + n for n in self.order))
        for n, matrix in enumerate(self._cast(x)):
            y = multiply(matrix, y, n)
        return y

    def _adjoint(self, y: Tensor) -> Tensor:
        for n, matrix in enumerate(self._cast(y)):
            y = multiply(None if matrix is None else matrix.mH, y, n)
        return y.permute(0, 1, *(2 + self.order.index(d) for d in (0, 1, 2)))

    def _composed(self, inner: LinearOperator) -> LinearOperator:
        return Chain(self, inner) if isinstance(inner, Separable) else super()._composed(inner)

    def measured_coordinates(self, r: Tensor) -> Tensor:
        y = r
        wide = torch.complex128 if r.is_complex() else torch.float64
        for n, matrix in enumerate(self._cast(r)):
            basis = self._cache.get(self, ("range", n, wide), functools.partial(_range_basis, matrix, wide))
            y = multiply(None if basis is None else basis.mH.to(r), y, n)
        return y

    # Exact solves -----------------------------------------------------------------------------------

    def _solve(
        self, b: Tensor, rho: float | Tensor, regulariser: str, x0: Tensor | None, rtol: float, max_iter: int
    ) -> LinearSolution:
        if learnable(self):
            return super()._solve(b, rho, regulariser, x0, rtol, max_iter)  # CG, exactly preconditioned
        if regulariser == IDENTITY:
            return LinearSolution(self._solve_identity(b, rho))
        plan = self._plan(b, number(rho))
        if plan is None:
            return super()._solve(b, rho, regulariser, x0, rtol, max_iter)
        return LinearSolution(self._solve_gradient(b, rho, plan))

    def _precondition(self, r: Tensor, rho: float, regulariser: str) -> Tensor:
        if regulariser == IDENTITY:
            return self._solve_identity(r, rho)
        plan = self._plan(r, rho)
        return self._solve_rotated(r, rho) if plan is None else self._solve_gradient(r, rho, plan)

    def grams(self, like: Tensor) -> list[Tensor | None]:
        """Gram matrix of each *domain* axis, float64, None for the identity."""
        wide = torch.complex128 if like.is_complex() else torch.float64
        grams: list[Tensor | None] = [None, None, None]
        for n, matrix in enumerate(self.matrices()):
            if matrix is not None:
                wide_matrix = _realise(matrix.detach(), like.is_complex()).to(wide)
                grams[self.order[n]] = wide_matrix.mH @ wide_matrix
        return grams

    def _solve_identity(self, b: Tensor, rho: float | Tensor) -> Tensor:
        bases = self._cache.get(
            self,
            ("eigen", b.is_complex()),
            lambda: [None if g is None else eigenbasis(g) for g in self.grams(b)],
        )
        degraded = [n for n in (0, 1, 2) if bases[n] is not None]
        if not degraded:
            return b / (1 + rho)
        if len(degraded) == 1:  # the whole inverse is one small matrix
            n = degraded[0]
            values, vectors = bases[n]
            inverse = (vectors / (values.clamp(min=0) + rho)) @ vectors.mH
            return multiply(inverse.to(b.dtype), b, n)
        weights = torch.ones(1, dtype=torch.float64, device=b.device)
        for n in degraded:
            weights = weights * bases[n][0].clamp(min=0).reshape([-1 if d == n else 1 for d in (0, 1, 2)])
        vectors = [bases[n][1].to(b.dtype) for n in degraded]
        x = rotate([one.mH for one in vectors], b, degraded)
        total = (weights + rho).to(b.real.dtype)
        x = x / total if torch.is_grad_enabled() else x.div_(total)
        return rotate(vectors, x, degraded, owned=True)

    def _plan(self, like: Tensor, rho: float) -> Any:
        """Bases that make ``A* A + rho grad* grad`` diagonal: None where no such bases exist.

        They exist when at most one axis c has a Gram matrix that does not commute with its Laplacian:
        the other axes are diagonal in a joint basis, with Gram values g and Laplacian values mu, and for
        each of their combinations there remains ``g G_c + rho L_c + rho mu`` along c. Its eigenbasis
        depends on g, hence one per distinct g (just one when the other axes are not degraded).
        """
        return self._cache.get(self, ("plan", like.is_complex(), rho), lambda: self._make_plan(like, rho))

    def _make_plan(self, like: Tensor, rho: float) -> Any:
        grams, laplacians = self.grams(like), self._laplacians(like)
        joint = self._cache.get(
            self,
            ("joint", like.is_complex()),
            lambda: [joint_eigenbasis(g, lap) for g, lap in zip(grams, laplacians, strict=True)],
        )
        not_joint = [n for n in (0, 1, 2) if joint[n] is None]
        if len(not_joint) > 1:
            return None
        degraded = [n for n in (0, 1, 2) if grams[n] is not None]
        solved = not_joint[0] if not_joint else (degraded[-1] if degraded else 2)
        others = [n for n in (0, 1, 2) if n != solved]
        g = joint[others[0]].gram[:, None] * joint[others[1]].gram[None, :]
        mu = joint[others[0]].laplacian[:, None] + joint[others[1]].laplacian[None, :]
        gram = _or_identity(grams[solved], laplacians[solved])
        levels = torch.unique(torch.round(g.flatten(), decimals=9))
        if len(levels) > MOST_GROUPS:
            return None
        groups = []
        for level in levels:
            members = torch.nonzero((g.flatten() - level).abs() < 1e-8).flatten()
            values, vectors = eigenbasis(level * gram + rho * laplacians[solved])
            groups.append((members, values.clamp(min=0), vectors))
        groups.sort(key=lambda group: -len(group[0]))
        return solved, others, [joint[n].vectors for n in others], mu.flatten(), groups

    def _solve_gradient(self, b: Tensor, rho: float | Tensor, plan: Any) -> Tensor:
        solved, others, bases, mu, groups = plan
        bases = [basis.to(b.dtype) for basis in bases]
        rows = rotate([basis.mH for basis in bases], b, others).movedim(2 + solved, -1)
        shape = rows.shape
        rows = rows.reshape(shape[0] * shape[1], -1, shape[-1])
        # The bases hold for the value of rho; its derivative enters by one correction, as in the base class.
        shifts = (number(rho) * mu).to(b.real.dtype)

        def solved_pieces(
            part: Tensor, shift: Tensor, values: Tensor, vectors: Tensor
        ) -> Iterator[tuple[Tensor, Tensor]]:
            forth, back, width = vectors.conj().to(b.dtype), vectors.mT.to(b.dtype), max(1, SLAB // len(values))
            inverse = values.to(b.real.dtype)
            for one, s in zip(torch.split(part, width, 1), torch.split(shift, width), strict=True):
                yield one, ((one @ forth) / (inverse + s[:, None])) @ back

        # The largest group is done on all rows, which needs no gathering; the others then replace theirs.
        replaced = [
            (at, torch.cat([one for _, one in solved_pieces(rows[:, at], shifts[at], *basis)], 1))
            for at, *basis in groups[1:]
        ]
        members, values, vectors = groups[0]
        pieces = solved_pieces(rows, torch.ones_like(shifts).index_copy(0, members, shifts[members]), values, vectors)
        if torch.is_grad_enabled():
            done = torch.cat([one for _, one in pieces], 1)
        else:
            done = rows
            for piece, one in pieces:
                piece.copy_(one)
        for at, those in replaced:
            done = done.index_copy(1, at, those)
        x = rotate(bases, done.reshape(shape).movedim(-1, 2 + solved), others, owned=True)
        if isinstance(rho, Tensor) and rho.requires_grad and torch.is_grad_enabled():
            constant = rho.detach()
            shift = (rho - constant) * laplacian(x, self.domain.spacing.tolist(), self.boundary)
            x = x - self._solve_gradient(shift, constant, plan)
        return x

    def _solve_rotated(self, r: Tensor, rho: float) -> Tensor:
        """Approximate inverse: keep only the diagonal of every factor, in the basis of ``G_n + rho L_n``."""

        def build() -> tuple[list[Tensor], Tensor]:
            grams, laplacians = self.grams(r), self._laplacians(r)
            bases, weights = [], torch.ones(1, dtype=torch.float64, device=r.device)
            mu = torch.zeros_like(weights)
            for n in (0, 1, 2):
                gram = _or_identity(grams[n], laplacians[n])
                _, vectors = eigenbasis(gram + rho * laplacians[n])
                along = [-1 if d == n else 1 for d in (0, 1, 2)]
                weights = weights * torch.einsum("ab,ac,cb->b", vectors.conj(), gram, vectors).real.reshape(along)
                mu = mu + torch.einsum("ab,ac,cb->b", vectors.conj(), laplacians[n], vectors).real.reshape(along)
                bases.append(vectors.to(r.dtype))
            total = weights + rho * mu
            return bases, (1 / total.clamp(min=1e-9 * float(total.max()))).to(r.real.dtype)

        bases, inverse = self._cache.get(self, ("rotated", r.dtype, rho), build)
        return diagonal_in(bases, inverse, r)

    def _laplacians(self, like: Tensor) -> list[Tensor]:
        wide = torch.complex128 if like.is_complex() else torch.float64
        sizes = zip(self.domain.shape, self.domain.spacing, self.boundary, strict=True)
        return [torch.from_numpy(laplacian_matrix(n, h, kind)).to(like.device, wide) for n, h, kind in sizes]

    def _cast(self, like: Tensor) -> list[Tensor | None]:
        def cast(matrix: Tensor | None) -> Tensor | None:
            return None if matrix is None else _realise(matrix, like.is_complex()).to(like.dtype)

        if torch.is_grad_enabled() and learnable(self):
            return [cast(m) for m in self.matrices()]
        key = ("cast", like.dtype)
        found: list[Tensor | None] = self._cache.get(self, key, lambda: [cast(m) for m in self.matrices()])
        return found


class Chain(Separable):
    """``outer(inner(x))`` of two separable operators, as one."""

    def __init__(self, outer: Separable, inner: Separable) -> None:
        meet(outer, inner)
        order = tuple(inner.order[n] for n in outer.order)
        LinearOperator.__init__(self, inner.domain, outer.range)
        self.outer, self.inner = outer, inner
        self.order = order  # type: ignore[assignment]  # a tuple built from three entries
        self.boundary = tuple(  # type: ignore[assignment]
            inner.boundary[d] if _sets_boundary(inner, d) else outer.boundary[inner.order.index(d)] for d in (0, 1, 2)
        )

    def matrices(self) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        outer, inner = self.outer.matrices(), self.inner.matrices()
        a, b, c = (_product(outer[n], inner[self.outer.order[n]]) for n in (0, 1, 2))
        return a, b, c


class Identity(Separable):
    """``A x = x`` on a grid, the operator of denoising."""

    def __init__(self, grid: Grid) -> None:
        super().__init__(grid, grid, (None, None, None))


def _range_basis(matrix: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return None if matrix is None else range_basis(matrix.to(dtype))


def _or_identity(gram: Tensor | None, like: Tensor) -> Tensor:
    return torch.eye(len(like), dtype=like.dtype, device=like.device) if gram is None else gram


def _whole(matrix: Tensor | None) -> Tensor | None:
    """The matrix that was given; complex matrices are stored as real and imaginary part."""
    return torch.view_as_complex(matrix) if matrix is not None and matrix.ndim == 3 else matrix


def _realise(matrix: Tensor, is_complex: bool) -> Tensor:
    return matrix if is_complex or not matrix.is_complex() else matrix.real


def _product(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    if a is None or b is None:
        return b if a is None else a
    wide = torch.promote_types(a.dtype, b.dtype)
    return a.to(wide) @ b.to(wide)


def _sets_boundary(operator: Separable, domain_axis: int) -> bool:
    return operator.matrices()[operator.order.index(domain_axis)] is not None
