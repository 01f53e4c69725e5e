"""Rigid registration of volumes whose intensities do not compare, by the directions of their gradients.

Edges of one anatomy lie in the same places in every contrast, whichever side is brighter: the measure is the mean
square of the cosine between gradients, each shortened where it is no longer than noise makes it. Points are taken
between the voxels of both volumes: on the voxels of one, grids that coincide would look better aligned than any others.

References
----------
Haber, Modersitzki (2006), MICCAI, LNCS 4191, 726-733 (normalised gradient fields).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from invsr.errors import InvsrError
from invsr.grid import Grid
from invsr.motion.align import RADIUS
from invsr.operators.transforms import rigid_matrices

Array = npt.NDArray[np.float64]
# Standard deviations of the smoothing, mm, coarse to fine; at least a voxel.
LEVELS = (6.0, 3.0, 1.5)
# Points that are compared: so many, where gradients are among the steepest in this share of the volume.
POINTS, STEEP = 20_000, 0.25
# Gradients below the median of those in this share of the volume are noise, or flat.
FLAT = 0.4
# Points inside the moving volume that tell of likeness, as a share of all: of fewer, too many are alike by chance.
LEAST_INSIDE = 0.05


@dataclass(frozen=True)
class Alignment:
    """Where a volume lies against another one.

    Attributes
    ----------
    motion : array, shape (6,)
        Rotation vector (radians, about the centre) and translation (mm) that take points of the moving volume to points
        of the fixed one.
    before, after : float
        The measure with and without it, of the points that lie in both fields of view: mean squared cosine between
        gradients, 0 to 1. Where hardly any do, it is lower.
    """

    motion: Array
    before: float
    after: float


def align_contrasts(fixed: Tensor, fixed_grid: Grid, moving: Tensor, moving_grid: Grid, centre: Array) -> Alignment:
    """Find the rigid motion between two contrasts of one anatomy; found from 10 mm and 10 degrees about each axis.

    Parameters
    ----------
    fixed, moving : Tensor, shape (1, 1, *grid.shape)
        Real volumes of nearly isotropic voxels, such as smooth reconstructions.
    fixed_grid, moving_grid : Grid
    centre : array, shape (3,), mm
        World point that rotations are about.

    Raises
    ------
    InvsrError
        When a volume is one voxel wide.
    """
    for grid in (fixed_grid, moving_grid):
        if min(grid.shape) < 2:
            raise InvsrError(f"a contrast on {grid} is too narrow to be registered: motion none (--motion none)")
    from scipy.optimize import minimize  # it takes a while to import

    inverse = np.zeros(6)
    for level in LEVELS:
        measure = _Measure(fixed, fixed_grid, moving, moving_grid, centre, level)
        found = minimize(measure, inverse * _ARCS, jac=True, method="BFGS", options={"gtol": 1e-6})
        inverse = found.x / _ARCS
    none = np.zeros(6)
    if measure(inverse * _ARCS)[0] >= measure(none)[0]:  # led astray by a coarse level
        inverse = none
    return Alignment(_inverted(inverse), measure.likeness(none), measure.likeness(inverse * _ARCS))


# Angles as arcs, mm: steps of one size in all directions.
_ARCS: Array = np.repeat([RADIUS, 1.0], 3)


class _Measure:
    """Minus the measure, and its gradient, as a function of the motion from the fixed to the moving volume.

    Points outside the moving volume count as unlike: a mean over those inside alone would favour motions that leave
    few of them.
    """

    def __init__(
        self, fixed: Tensor, fixed_grid: Grid, moving: Tensor, moving_grid: Grid, centre: Array, level: float
    ) -> None:
        steep, self.moving = (_field(one, grid, level) for one, grid in ((fixed, fixed_grid), (moving, moving_grid)))
        length = steep.square().sum(1)[0]
        places = (length > length.flatten().kthvalue(max(1, round((1 - STEEP) * length.numel()))).values).nonzero()
        generator = torch.Generator().manual_seed(0)
        chosen = places[torch.randperm(len(places), generator=generator)[:POINTS]].double()
        at = chosen + torch.rand(chosen.shape, generator=generator, dtype=torch.float64) - 0.5
        self.expected = _values(steep, at)
        self.points = at @ torch.tensor(fixed_grid.affine[:3, :3].T) + torch.tensor(fixed_grid.affine[:3, 3])
        self.centre = torch.from_numpy(np.asarray(centre, float))
        to_voxel = np.linalg.inv(moving_grid.affine)
        self.turn, self.shift = torch.tensor(to_voxel[:3, :3].T), torch.tensor(to_voxel[:3, 3])

    def __call__(self, scaled: Array) -> tuple[float, Array]:
        with torch.enable_grad():
            motion = torch.from_numpy(np.asarray(scaled, float)).requires_grad_()
            value = -self._compared(motion)[0].mean()
            (slope,) = torch.autograd.grad(value, motion)
        return float(value.detach()), slope.numpy()

    def likeness(self, scaled: Array) -> float:
        """The measure of points inside the moving volume: a volume of a few slices is as alike as a whole one."""
        squares, at = self._compared(torch.from_numpy(np.asarray(scaled, float)))
        inside = ((at >= 0) & (at <= torch.tensor(self.moving.shape[2:]) - 1)).all(1)
        return float(squares[inside].sum()) / max(int(inside.sum()), LEAST_INSIDE * len(squares))

    def _compared(self, motion: Tensor) -> tuple[Tensor, Tensor]:
        """Squared cosine at each point, and where it lies in the moving volume, voxels."""
        matrix = rigid_matrices(motion / torch.from_numpy(_ARCS), self.centre)
        at = (self.points @ matrix[:3, :3].T + matrix[:3, 3]) @ self.turn + self.shift
        seen = _values(self.moving, at)
        # Directions of the moving volume, turned back.
        return (self.expected * (seen @ matrix[:3, :3].to(seen))).sum(1).square(), at


def _field(x: Tensor, grid: Grid, level: float) -> Tensor:
    """Gradients in world directions after smoothing, 1 long where they are steep, shape (1, 3, *grid.shape)."""
    from scipy.ndimage import gaussian_filter

    widths = [max(level / float(spacing), 1.0) for spacing in grid.spacing]
    smooth = gaussian_filter(x[0, 0].cpu().numpy().astype(np.float32), widths)
    slopes = [np.gradient(smooth, axis=n) / float(grid.spacing[n]) for n in range(3)]
    along = torch.from_numpy(np.stack(slopes).astype(np.float32))
    world = torch.einsum("ab,bijk->aijk", torch.from_numpy(grid.directions).float(), along)
    square = world.square().sum(0)
    steep = square.flatten().kthvalue(max(1, round((1 - FLAT / 2) * square.numel()))).values
    return (world / (square + steep).clamp(min=1e-30).sqrt())[None]


def _values(field: Tensor, at: Tensor) -> Tensor:
    """Linear interpolation at positions in voxels, (n, 3); 0 outside."""
    size = torch.tensor(field.shape[2:], dtype=torch.float64)
    place = (2 * at / (size - 1) - 1).flip(1).to(field)[None, None, None]
    found: Tensor = torch.nn.functional.grid_sample(field, place, padding_mode="zeros", align_corners=True)
    return found[0, :, 0, 0].T


def _inverted(motion: Array) -> Array:
    """The motion back, about the same centre."""
    turn = rigid_matrices(torch.from_numpy(motion), torch.zeros(3, dtype=torch.float64))[:3, :3].numpy()
    return np.concatenate([-motion[:3], -turn.T @ motion[3:]])
