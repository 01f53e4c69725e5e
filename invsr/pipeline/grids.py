"""On which grid the unknown volume lies."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from invsr.errors import InvsrError
from invsr.grid import Grid
from invsr.pipeline.scan import Scan

# What the target has around the masks of several scans, mm.
MASK_MARGIN = 10.0
# Largest number of voxels along an axis: a metre at 0.4 mm. Set-up takes the cube of it, seconds here.
MOST_VOXELS = 2500


def choose_grid(
    scans: Sequence[Scan], spacing: float | Sequence[float] | None = None, reference: Grid | None = None
) -> Grid:
    """The reference, or the grid along the first scan that covers all fields of view, or all masks with a margin.

    Voxels lie where the first scan alone would have them.

    Raises
    ------
    InvsrError
        When both are given, voxels exceed the field of view, a scan has a single slice, or overlaps none of the others.
    """
    if reference is not None:
        if spacing is not None:
            raise InvsrError("give either a target spacing or a reference grid, not both")
        return _bounded(reference)
    first = scans[0]
    if len(scans) == 1:
        if first.grid.shape[first.through_plane] < 2:
            raise InvsrError(f"{first.name}: has a single slice: at least two are needed to resolve between them")
        return _bounded(_refined(first.grid, spacing))
    for n, scan in enumerate(scans):
        if not any(scan.grid.overlaps(other.grid) for m, other in enumerate(scans) if m != n):
            raise InvsrError(
                f"{scan.name}: does not overlap any other scan in world space: check its orientation, or leave it out"
            )
    reached = []
    for scan in scans:
        if scan.mask is None:
            reached.append(scan.grid.corners())
        else:
            reached.append(scan.grid.to_world(torch.nonzero(scan.mask.data[0, 0]).cpu().numpy()))
    margin = 0.0 if all(scan.mask is None for scan in scans) else MASK_MARGIN
    return _bounded(_refined(first.grid, spacing).covering(np.concatenate(reached), margin))


def _bounded(grid: Grid) -> Grid:
    """The grid, unless one of its axes is longer than exact data steps, which cost its cube, can serve."""
    longest = max(grid.shape)
    if longest > MOST_VOXELS:
        axis = grid.shape.index(longest)
        raise InvsrError(
            f"the target has {longest} voxels along axis {'ijk'[axis]} ({grid.extent[axis]:.4g} mm), more than "
            f"{MOST_VOXELS}: is the header's spacing right? Use a coarser spacing or a smaller reference grid"
        )
    return grid


def _refined(grid: Grid, spacing: float | Sequence[float] | None) -> Grid:
    if spacing is None:
        return grid.isotropic()
    refined = grid.refine(spacing)
    if (refined.spacing > grid.extent).any():
        largest, extent = float(refined.spacing.max()), "x".join(f"{value:.4g}" for value in grid.extent)
        raise InvsrError(f"a spacing of {largest:.4g} mm exceeds the field of view, {extent} mm: give a finer one")
    return refined


def crossing(grid: Grid, box: Grid) -> Grid:
    """The part of a grid whose voxels have their centres in a box, at least one along each axis."""
    corners, last = grid.to_voxel(box.corners()), np.array(grid.shape) - 1
    low = np.clip(np.ceil(corners.min(0) - 1e-6), 0, last).astype(int)
    high = np.clip(np.floor(corners.max(0) + 1e-6), low, last).astype(int) + 1
    return grid.part(low.tolist(), high.tolist())


def shows_all(grids: Sequence[Grid], target: Grid) -> bool:
    """Whether one of the scans, by its header, reaches all voxels of the target, to half a voxel of its own."""
    middle = np.array(target.shape) / 2 - 0.5
    shrunk = target.to_world(middle + (target.to_voxel(target.corners()) - middle) * (1 - 1 / np.array(target.shape)))
    return any(bool(grid.contains(shrunk, atol=0.5).all()) for grid in grids)
