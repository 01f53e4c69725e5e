"""Cubic B-spline interpolation at the true positions: what users have today, and every solver's start."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from invsr.grid import Grid
from invsr.numerics.axes import multiply

# Voxels interpolated at once: bounds the memory of the coordinates.
CHUNK = 2_000_000
# Slices repeated on each side: the filter's response falls by 3.7 per sample.
REPEATED_SLICES = 12
# Axes are parallel when no voxel centre is further off than this share of the scan's voxels.
PARALLEL = 1e-3


def cubic(y: Tensor, scan: Grid, target: Grid) -> Tensor:
    """Values of a scan at the voxel centres of another grid, by cubic B-splines.

    Outside the scan's field of view the nearest face continues.

    Parameters
    ----------
    y : Tensor, shape (1, 1, *scan.shape)
    scan, target : Grid

    Returns
    -------
    Tensor, shape (1, 1, *target.shape), of y's dtype and device.

    References
    ----------
    Unser (1999), IEEE Signal Process. Mag. 16(6), 22-38.
    """
    to_scan = np.linalg.inv(scan.affine) @ target.affine
    order = np.abs(to_scan[:3, :3]).argmax(0)
    oblique = to_scan[:3, :3].copy()
    oblique[order, [0, 1, 2]] = 0
    if len(set(order)) < 3 or (np.abs(oblique) @ target.shape).max() > PARALLEL:
        return _cubic_at_points(y, to_scan, target.shape)
    x = y.detach().float().permute(0, 1, *(2 + order).tolist())
    for n, axis in enumerate(order):
        at = to_scan[axis, n] * np.arange(target.shape[n]) + to_scan[axis, 3]
        if len(at) != scan.shape[axis] or np.abs(at - np.arange(len(at))).max() > PARALLEL:
            x = multiply(torch.from_numpy(_cubic_matrix(at, scan.shape[axis])).to(x), x, n)
    return x.to(y.dtype).contiguous()


def mean_of_cubics(data: Sequence[Tensor], grids: Sequence[Grid], target: Grid) -> Tensor:
    """Mean of several scans' cubic interpolations, each where it saw the target.

    Parameters
    ----------
    data : sequence of Tensor, each of shape (1, 1, *grid.shape)
    grids : sequence of Grid
    target : Grid
    """
    if len(data) == 1:
        return cubic(data[0], grids[0], target)
    total, weight = (torch.zeros((1, 1, *target.shape), device=data[0].device) for _ in range(2))
    points = target.points()
    for one, grid in zip(data, grids, strict=True):
        seen = torch.from_numpy(grid.contains(points)).to(total)[None, None]
        total += cubic(one, grid, target) * seen
        weight += seen
    return torch.where(weight > 0, total / weight.clamp(min=1), cubic(data[0], grids[0], target))


def _cubic_matrix(at: npt.NDArray[np.float64], n: int) -> npt.NDArray[np.float64]:
    """The matrix that interpolates n samples at some positions along a line, in samples."""
    from scipy import ndimage

    columns = np.pad(np.eye(n), ((REPEATED_SLICES, REPEATED_SLICES), (0, 0)), mode="edge")
    coefficients = ndimage.spline_filter1d(columns, order=3, axis=0, mode="mirror")
    return np.stack(
        [
            ndimage.map_coordinates(one, at[None] + REPEATED_SLICES, order=3, prefilter=False, mode="nearest")
            for one in coefficients.T
        ],
        axis=1,
    )


def _cubic_at_points(y: Tensor, to_scan: npt.NDArray[np.float64], shape: tuple[int, ...]) -> Tensor:
    """As `cubic`, wherever the voxels of a target of a shape lie in the scan."""
    from scipy import ndimage

    # Repeating the outermost slices before the recursive filter keeps what lies outside from ringing inwards.
    data = np.pad(y[0, 0].detach().cpu().numpy().astype(np.float32, copy=False), REPEATED_SLICES, mode="edge")
    coefficients = ndimage.spline_filter(data, order=3, output=np.float32, mode="mirror")
    out = np.empty(shape, np.float32)
    rows = max(1, CHUNK // (shape[1] * shape[2]))
    for first in range(0, shape[0], rows):
        index = np.indices((min(rows, shape[0] - first), *shape[1:]), dtype=np.float64)
        index[0] += first
        at = np.tensordot(to_scan[:3, :3], index, 1) + to_scan[:3, 3].reshape(3, 1, 1, 1) + REPEATED_SLICES
        out[first : first + rows] = ndimage.map_coordinates(
            coefficients, at, order=3, prefilter=False, mode="nearest", output=np.float32
        )
    return torch.from_numpy(out).to(y.device, y.dtype)[None, None]
