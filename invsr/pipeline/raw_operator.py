"""The operator of k-space data, on the Cartesian grid or off it."""

from __future__ import annotations

from torch import Tensor

from invsr.noncartesian import NonCartesianData
from invsr.operators.kspace import KSpaceMask
from invsr.operators.kspace_base import KSpaceSamples
from invsr.operators.nonuniform import NonUniformKSpace
from invsr.raw import KSpaceData


def kspace_operator(raw: KSpaceData, weights: Tensor, maps: Tensor | None) -> KSpaceSamples:
    """From images on `raw.grid` to its samples, times weights.

    Parameters
    ----------
    raw : RawData or NonCartesianData
    weights : Tensor, of the shape of `raw.counts`
        Off the Cartesian grid, the same for all positions.
    maps : Tensor, shape (coils, *raw.grid.shape), complex, or None for one coil
    """
    if isinstance(raw, NonCartesianData):
        return NonUniformKSpace(raw.grid, raw.trajectory, maps, weights[..., 0].contiguous(), raw.axes)
    return KSpaceMask(raw.grid, weights, maps, axes=raw.axes)
