"""What tests of geometry share: grids that are rotated, permuted, flipped, and noise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from invsr.grid import Grid


def grid(
    shape: Sequence[int], spacing: Sequence[float] = (1.0, 1.0, 1.0), origin: Sequence[float] = (3, -7, 11)
) -> Grid:
    """A grid along the world axes."""
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = origin
    return Grid(shape, affine)


def rotated(g: Grid, degrees: float = 25.0, axis: Sequence[float] = (1, 2, 3)) -> Grid:
    """The same grid, turned about its own centre."""
    from scipy.spatial.transform import Rotation

    turn = Rotation.from_rotvec(np.radians(degrees) * np.array(axis) / np.linalg.norm(axis)).as_matrix()
    affine = np.eye(4)
    affine[:3, :3] = turn @ g.affine[:3, :3]
    affine[:3, 3] = g.centre + turn @ (g.origin - g.centre)
    return Grid(g.shape, affine)


def reoriented(g: Grid, order: Sequence[int] = (0, 1, 2), flips: Sequence[int] = ()) -> Grid:
    """The same voxels with array axis n taken from axis order[n], and the new axes in `flips` reversed."""
    step = g.affine[:3, list(order)]
    shape = np.array(g.shape)[list(order)]
    origin = g.origin.copy()
    step = step.copy()
    for n in flips:
        origin += step[:, n] * (shape[n] - 1)
        step[:, n] *= -1
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = step, origin
    return Grid(tuple(shape), affine)


def shifted(g: Grid, mm: Sequence[float]) -> Grid:
    """The same grid, moved by `mm` along its own axes."""
    affine = g.affine.copy()
    affine[:3, 3] += g.directions @ np.array(mm)
    return Grid(g.shape, affine)


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


VOLUME = rotated(grid((5, 6, 8), (1.0, 0.9, 1.1)))
SMALL = rotated(grid((4, 5, 6), (1.0, 0.9, 1.1)))
TINY = rotated(grid((3, 4, 4), (1.0, 0.9, 1.1)))
THICK = VOLUME.coarsen((1.0, 0.9, 2.2))
COARSE = VOLUME.coarsen((2.0, 1.8, 2.2))
