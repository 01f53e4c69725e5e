"""Planes cut out of volumes for pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
from nibabel.orientations import io_orientation

from invsr.grid import Grid
from invsr.volume import Volume


def frame_of(grid: Grid) -> Any:
    """The grid's axes as columns, each in the place of the world axis that it is nearest to, and pointing like it."""
    frame = np.empty((3, 3))
    for axis, (world, sign) in enumerate(io_orientation(grid.affine)):
        frame[:, int(world)] = sign * grid.directions[:, axis]
    return frame


def cut(volume: Volume, frame: Any, box: Any, centre: Any, plane: int, step: float) -> Any:
    """Nearest-neighbour values on a plane of a frame, rows from superior (or anterior) down.

    Columns run from posterior to anterior, or from the patient's right (the positive end of x) to the left.
    """
    across, up = ((1, 2), (0, 2), (0, 1))[plane]
    a = np.arange(box[0, across], box[1, across], step) + step / 2
    b = np.arange(box[0, up], box[1, up], step)[::-1] + step / 2
    if across == 0:
        a = a[::-1]
    points = np.empty((len(b), len(a), 3))
    points[...] = centre
    points[..., across] = a[None, :]
    points[..., up] = b[:, None]
    return _nearest(volume.numpy(), volume.grid, points @ frame.T)


def _nearest(data: Any, grid: Grid, points: Any) -> Any:
    inside = grid.contains(points)
    index = np.rint(grid.to_voxel(points)).astype(int)
    index = np.clip(index, 0, np.array(grid.shape) - 1)
    return np.where(inside, data[index[..., 0], index[..., 1], index[..., 2]], 0.0)
