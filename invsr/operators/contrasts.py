"""Scans of several contrasts of one anatomy, as one operator: a channel of the volume for each contrast."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from invsr.errors import InvsrError
from invsr.grid import Grid
from invsr.numerics.cache import StateCache
from invsr.numerics.differences import NEUMANN, PERIODIC
from invsr.numerics.iteration import Status
from invsr.numerics.linear import LinearSolution
from invsr.operators.base import LinearOperator
from invsr.operators.normal_equations import IDENTITY, check_shape


class Contrasts(LinearOperator):
    """Each contrast's scans see its own channel: ``A x = (A_1 x_1, A_2 x_2, ...)``.

    Data and range are tuples, one entry per scan, contrast after contrast.

    Parameters
    ----------
    operators : sequence of LinearOperator
        One for each contrast, a `Stack` where it has several scans; with one domain.

    Shape
    -----
    ``A(x)``: (batch, contrast, *domain.shape) to a tuple of (batch, 1, *range[n].shape).

    Raises
    ------
    InvsrError
        When there are no operators, or their domains differ.

    Examples
    --------
    >>> import numpy as np
    >>> from invsr.operators.scan_model import acquisition
    >>> volume = Grid((12, 12, 12), np.eye(4))
    >>> scans = [volume.coarsen((1, 1, 4)), volume.coarsen((4, 1, 1))]
    >>> A = Contrasts([acquisition(scan, reference=volume) for scan in scans])
    >>> [tuple(y.shape) for y in A(torch.ones(1, 2, 12, 12, 12))]
    [(1, 1, 12, 12, 3), (1, 1, 3, 12, 12)]
    """

    range: tuple[Grid, ...]  # type: ignore[assignment]  # a tuple of grids, as data is a tuple

    def __init__(self, operators: Sequence[LinearOperator]) -> None:
        if len(operators) == 0:
            raise InvsrError("several contrasts need at least one operator")
        nn.Module.__init__(self)
        self.domain = operators[0].domain
        for n, one in enumerate(operators):
            if one.domain != self.domain:
                raise InvsrError(
                    f"contrast 0 has a volume on {self.domain}, contrast {n} one on {one.domain}: "
                    "build all with one reference"
                )
            if isinstance(one, Contrasts):
                raise InvsrError(f"contrast {n} is itself several contrasts: give its members")
        self.members = nn.ModuleList(operators)
        self.range = tuple(scan.range for one in operators for scan in one.operators)
        a, b, c = (PERIODIC if all(o.boundary[n] == PERIODIC for o in operators) else NEUMANN for n in (0, 1, 2))
        self.boundary = (a, b, c)
        self.complex_range = any(one.complex_range for one in operators)
        self._cache = StateCache()

    @property
    def channels(self) -> list[LinearOperator]:
        """The operator of each contrast."""
        return [member for member in self.members if isinstance(member, LinearOperator)]

    @property
    def operators(self) -> list[LinearOperator]:
        return [scan for one in self.channels for scan in one.operators]

    def _forward(self, x: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]  # data is a tuple
        found: list[Tensor] = []
        for one, channel in zip(self.channels, self._each(x), strict=True):
            y = one._forward(channel)
            found += y if isinstance(y, tuple) else (y,)
        return tuple(found)

    def adjoint(self, y: Sequence[Tensor]) -> Tensor:  # type: ignore[override]  # data is a tuple
        """A* y, shape (batch, contrast, *domain.shape)."""
        check_shape(y, self.range, self, "y")
        return self._adjoint(y)

    def _adjoint(self, y: Sequence[Tensor]) -> Tensor:  # type: ignore[override]  # data is a tuple
        channels = zip(self.channels, self._grouped(y), strict=True)
        return torch.cat([one._adjoint(_data(group)) for one, group in channels], 1)

    def measured_coordinates(self, r: Sequence[Tensor]) -> Tensor:  # type: ignore[override]  # data is a tuple
        """The coordinates of each scan for its part of r, flattened and concatenated."""
        parts = zip(self.operators, r, strict=True)
        return torch.cat([scan.measured_coordinates(part).flatten() for scan, part in parts])

    def _composed(self, inner: LinearOperator) -> LinearOperator:
        return Contrasts([one @ inner for one in self.channels])

    def __add__(self, other: LinearOperator) -> LinearOperator:
        raise InvsrError("several contrasts are not added up: add the operators of each")

    def __mul__(self, factor: float | Tensor) -> LinearOperator:
        return Contrasts([one * factor for one in self.channels])

    __rmul__ = __mul__

    def solve(
        self,
        b: Tensor,
        rho: float | Tensor,
        regulariser: str = IDENTITY,
        x0: Tensor | None = None,
        rtol: float = 1e-6,
        max_iter: int = 200,
    ) -> LinearSolution:
        """As `LinearOperator.solve`; `rho` is one number, or one for each contrast, shape (contrast, 1, 1, 1)."""
        if not isinstance(rho, Tensor) or rho.ndim == 0:
            return super().solve(b, rho, regulariser, x0, rtol, max_iter)
        check_shape(b, self.domain, self, "b")
        if rho.numel() != len(self.channels):
            raise InvsrError(f"{rho.numel()} penalties for {len(self.channels)} contrasts: give one, or one for each")
        channels = zip(self.channels, self._each(b), rho.flatten(), self._starts(x0), strict=True)
        return _together([one.solve(part, r, regulariser, start, rtol, max_iter) for one, part, r, start in channels])

    def _solve(
        self, b: Tensor, rho: float | Tensor, regulariser: str, x0: Tensor | None, rtol: float, max_iter: int
    ) -> LinearSolution:
        """Contrast by contrast, each as its own operator does."""
        if any(one.boundary != self.boundary for one in self.channels):
            return super()._solve(b, rho, regulariser, x0, rtol, max_iter)
        channels = zip(self.channels, self._each(b), self._starts(x0), strict=True)
        return _together([one._solve(part, rho, regulariser, start, rtol, max_iter) for one, part, start in channels])

    def _starts(self, x0: Tensor | None) -> Sequence[Tensor | None]:
        return [None] * len(self.channels) if x0 is None else self._each(x0)

    def _each(self, x: Tensor) -> list[Tensor]:
        """The channels of a volume, each (batch, 1, *domain.shape)."""
        if x.shape[1] != len(self.channels):
            raise InvsrError(
                f"a volume of {x.shape[1]} channels for {len(self.channels)} contrasts: give one for each contrast"
            )
        return list(torch.split(x, 1, 1))

    def _grouped(self, y: Sequence[Tensor]) -> list[Sequence[Tensor]]:
        """The data of each contrast's scans."""
        found, first = [], 0
        for one in self.channels:
            found.append(y[first : first + len(one.operators)])
            first += len(one.operators)
        return found


def _data(group: Sequence[Tensor]) -> Tensor:
    """Of one scan its tensor; of several what a stack takes."""
    return group[0] if len(group) == 1 else tuple(group)  # type: ignore[return-value]  # a stack takes a tuple


def _together(found: Sequence[LinearSolution]) -> LinearSolution:
    """The solutions of all contrasts as one, with the status of the worst."""
    worst = max(found, key=lambda one: (one.status is not Status.CONVERGED, one.residual))
    iterations = max(one.n_iter for one in found)
    return LinearSolution(torch.cat([one.x for one in found], 1), worst.status, iterations, worst.residual)
