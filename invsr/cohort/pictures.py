"""Thumbnails: a scan as it was measured above its reconstruction, in three planes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from nibabel.orientations import io_orientation

from invsr.grid import Grid
from invsr.io.files import whole_file
from invsr.report.layers import window
from invsr.report.plot import bright_centre
from invsr.volume import Volume

# Pixels of the longest side of a plane, and between planes.
SIDE, SPACE = 150, 4
# The directions across each plane, down and to the right, as world axes and signs: sagittal, coronal, axial. The
# patient's right is on the left.
PLANES = (((2, -1), (1, 1)), ((2, -1), (0, -1)), ((1, -1), (0, -1)))

Array = npt.NDArray[np.float64]


def write_thumbnails(path: Path, scan: Volume, result: Volume) -> None:
    """Write a PNG: sagittal, coronal and axial planes of the scan, voxels as measured, and below of the result.

    Parameters
    ----------
    path : Path
    scan, result : Volume
        One intensity unit, in world coordinates that fit.
    """
    from matplotlib.image import imsave

    low, high = window(result.data)
    centre = np.asarray(bright_centre(result))
    rows = []
    for volume, order in ((scan, 0), (result, 1)):
        planes = [_plane(volume, points, order) for points in _planes_of(result.grid, centre)]
        tallest = max(plane.shape[0] for plane in planes)
        padded = [np.pad(one, ((0, tallest - one.shape[0]), (0, SPACE)), constant_values=low) for one in planes]
        rows.append(np.pad(np.concatenate(padded, 1), ((0, SPACE), (0, 0)), constant_values=low))
    with whole_file(path) as part:
        imsave(part, np.concatenate(rows), cmap="gray", vmin=low, vmax=high, format="png")


def _planes_of(grid: Grid, centre: Array) -> list[Array]:
    """World coordinates of the pixels of three planes through a point, shape (rows, columns, 3)."""
    axes = io_orientation(grid.affine)[:, 0].astype(int)  # array axis to world axis
    signs = io_orientation(grid.affine)[:, 1]
    voxel = np.rint(grid.to_voxel(centre))  # between two voxels, the nearest one would alternate
    step = max(grid.extent) / SIDE
    found = []
    for plane in PLANES:
        index = [np.full((1, 1), value) for value in voxel]
        for dimension, (world, sign) in enumerate(plane):
            axis = int(np.flatnonzero(axes == world)[0])
            count = max(1, round(float(grid.extent[axis]) / step))
            places = (np.arange(count) + 0.5) * grid.shape[axis] / count - 0.5
            places = places if signs[axis] * sign > 0 else places[::-1]
            index[axis] = places[:, None] if dimension == 0 else places[None, :]
        found.append(
            grid.to_world(np.stack(np.broadcast_arrays(*index), -1).reshape(-1, 3)).reshape(
                *np.broadcast(*index).shape, 3
            )
        )
    return found


def _plane(volume: Volume, points: Array, order: int) -> Array:
    """Values at points: of the nearest voxel, or interpolated; 0 outside."""
    from scipy.ndimage import map_coordinates

    index = volume.grid.to_voxel(points.reshape(-1, 3)).T
    mode = "grid-constant"
    values = map_coordinates(volume.numpy().astype(np.float32), index, order=order, mode=mode, cval=0.0)
    return np.asarray(values, np.float64).reshape(points.shape[:2])
