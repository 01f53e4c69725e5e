"""Samples of a volume on a grid parallel to its own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from invsr.errors import InvsrError
from invsr.grid import Grid
from invsr.numerics.differences import NEUMANN, PERIODIC
from invsr.operators.base import LinearOperator
from invsr.operators.profiles import (
    AxisProfile,
    band_limited_matrix,
    sampled_matrix,
)
from invsr.operators.separable import Separable

# A sample and a voxel are in the same place when closer than this share of a voxel.
ALIGNED = 1e-3


class Sampling(Separable):
    """Samples of a volume on a grid parallel to its own: a weighting along each axis, then decimation.

    Per range axis one of: an `AxisProfile` (weighted mean), "kspace" (band-limited to the samples'
    Nyquist frequency), "none" (interpolation). Where an axis' samples coincide with the voxels, "kspace"
    and "none" are the identity.

    Parameters
    ----------
    domain, range : Grid
        Parallel up to axis order and direction.
    axes : three of AxisProfile, "kspace" or "none"

    Attributes
    ----------
    width : nn.Parameter, shape (3,), mm
        Profile widths per range axis; ``A.width.requires_grad_()`` makes them learnable.

    Raises
    ------
    InvsrError
        When the grids are oblique to one another.
    """

    width: nn.Parameter

    def __init__(self, domain: Grid, range: Grid, axes: Sequence[AxisProfile | str]) -> None:
        order = range.axes_in(domain)
        if order is None:
            raise InvsrError(f"{domain} and {range} are oblique to one another: compose with a Resample operator")
        LinearOperator.__init__(self, domain, range)
        self.order = order
        self.width = nn.Parameter(
            torch.tensor([a.width if isinstance(a, AxisProfile) else 0.0 for a in axes], dtype=torch.float64),
            requires_grad=False,
        )
        boundary = [NEUMANN, NEUMANN, NEUMANN]
        self._kinds: list[str] = []
        for n, axis in enumerate(axes):
            d = order[n]
            positions = _positions(domain, range, n, d)
            size, spacing = domain.shape[d], float(domain.spacing[d])
            kind = "profile"
            if isinstance(axis, AxisProfile):
                self.register_buffer(f"offsets_{n}", axis.offsets)
                self.register_buffer(f"weights_{n}", axis.weights)
            elif axis in ("kspace", "none"):
                kind = _without_profile(axis, size, spacing, positions)
                if kind == "band":
                    boundary[d] = PERIODIC
            else:
                raise InvsrError(f"unknown sampling {axis!r} of axis {n}: use a profile, 'kspace' or 'none'")
            self.register_buffer(f"positions_{n}", positions)
            self._kinds.append(kind)
        self.boundary = (boundary[0], boundary[1], boundary[2])
        for n in (0, 1, 2):  # what never changes is built once
            if self._kinds[n] != "profile":
                self.register_buffer(f"matrix_{n}", self._constant(n))

    def _constant(self, n: int) -> Tensor | None:
        d = self.order[n]
        size, spacing = self.domain.shape[d], float(self.domain.spacing[d])
        positions = getattr(self, f"positions_{n}")
        if self._kinds[n] == "identity":
            return None
        if self._kinds[n] == "band":
            return band_limited_matrix(size, spacing, positions, float(self.range.spacing[n]))
        return sampled_matrix(size, spacing, positions)

    def matrices(self) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        a, b, c = (self._matrix(n) for n in (0, 1, 2))
        return a, b, c

    def _matrix(self, n: int) -> Tensor | None:
        if self._kinds[n] != "profile":
            constant: Tensor | None = getattr(self, f"matrix_{n}")
            return constant
        d = self.order[n]
        offsets = getattr(self, f"offsets_{n}").double() * self.width[n].double()
        return sampled_matrix(
            self.domain.shape[d],
            float(self.domain.spacing[d]),
            getattr(self, f"positions_{n}"),
            offsets,
            getattr(self, f"weights_{n}").double(),
        )


def _positions(domain: Grid, range: Grid, n: int, d: int) -> Tensor:
    """Positions of range axis n's samples along domain axis d, mm from its voxel 0."""
    index = np.zeros((range.shape[n], 3))
    index += (np.array(range.shape) - 1) / 2  # along the middle, where small angles shift least
    index[:, n] = np.arange(range.shape[n])
    found = torch.from_numpy(domain.to_voxel(range.to_world(index))[:, d] * domain.spacing[d])
    # Headers hold float32. Samples that divide the same field of view evenly, but for that rounding, are put where
    # they do: only then is the k-space of one exactly part of the other's, and the data step direct.
    extent = float(domain.extent[d])
    even = (torch.arange(len(found), dtype=torch.float64) + 0.5) * (extent / len(found)) - float(domain.spacing[d]) / 2
    even = even if found[0] <= found[-1] else even.flip(0)
    return even if float((found - even).abs().max()) < ALIGNED * float(domain.spacing[d]) else found


def _without_profile(kind: str, size: int, spacing: float, positions: Tensor) -> str:
    """How samples without a profile follow from the voxels: "identity", "band" or "interpolate"."""
    if len(positions) == size:
        there = torch.arange(size, dtype=torch.float64) * spacing
        if float((positions - there).abs().max()) < ALIGNED * spacing:
            return "identity"
        if float((positions - there.flip(0)).abs().max()) < ALIGNED * spacing:
            return "interpolate"  # at the voxels themselves, in reverse: nothing is cut, nothing is periodic
    if kind == "none" or len(positions) < 2:
        return "interpolate"
    step = float((positions[1] - positions[0]).abs())
    finer = step < spacing * (1 - ALIGNED)
    covers = abs(len(positions) * step - size * spacing) < ALIGNED * spacing
    # Cutting frequencies is right wherever voxels are finer than samples. The other way round, the Fourier
    # series serves only where both fields of view are one period; elsewhere it would wrap round.
    return "band" if covers or not (finer or abs(step - spacing) < ALIGNED * spacing) else "interpolate"
