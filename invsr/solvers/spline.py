"""Cubic B-spline interpolation at the true positions: what users have today, and every solver's start."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from invsr.grid import Grid

# Voxels interpolated at once: bounds the memory of the coordinates.
CHUNK = 2_000_000
# Slices repeated on each side: the filter's response falls by 3.7 per sample.
REPEATED_SLICES = 12


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
    from scipy import ndimage

    # Repeating the outermost slices before the recursive filter keeps what lies outside from ringing inwards.
    data = np.pad(y[0, 0].detach().cpu().numpy().astype(np.float32, copy=False), REPEATED_SLICES, mode="edge")
    coefficients = ndimage.spline_filter(data, order=3, output=np.float32, mode="mirror")
    to_scan = np.linalg.inv(scan.affine) @ target.affine
    out = np.empty(target.shape, np.float32)
    rows = max(1, CHUNK // (target.shape[1] * target.shape[2]))
    for first in range(0, target.shape[0], rows):
        index = np.indices((min(rows, target.shape[0] - first), *target.shape[1:]), dtype=np.float64)
        index[0] += first
        at = np.tensordot(to_scan[:3, :3], index, 1) + to_scan[:3, 3].reshape(3, 1, 1, 1) + REPEATED_SLICES
        out[first : first + rows] = ndimage.map_coordinates(
            coefficients, at, order=3, prefilter=False, mode="nearest", output=np.float32
        )
    return torch.from_numpy(out).to(y.device, y.dtype)[None, None]
