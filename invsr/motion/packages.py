"""Packages: slices of one scan that were acquired by turns, and moved against each other as a whole."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from invsr.grid import Grid
from invsr.motion.align import RADIUS, RegisteredScan, SliceFit, composed, fit
from invsr.motion.evenness import evenness, pretended
from invsr.motion.joint import volume_of
from invsr.numerics.fixed_point import anderson
from invsr.numerics.iteration import ProgressCallback, Steps

# Voxels of the volume, mm, or so large that there are as many as this; and what its conjugate gradients stop at: the
# motion follows from small differences.
VOXEL, MOST_VOXELS, RTOL, MAX_ITER = 2.0, 600_000, 1e-3, 60
# Rotation of its voxels against the slices, degrees about each axis. Linear interpolation blurs slices that lie
# between voxels: along the slices' own axes, motion that puts them there would look like an improvement.
TURN = (12.0, -12.0, 12.0)
# Rounds stop at this relative change of the motion, or at this number.
CHANGE, ROUNDS = 0.01, 12
# Largest step of a round, mm at `RADIUS`.
LONGEST_STEP = 3.0
# Residuals on the scale of bright tissue: none of them is an outlier.
RESIDUAL_SD = 1.0
# The first round finds a tenth of the motion or more.
FIRST_SHARE = 0.1
# A slice whose curvature along the motion is below this share of the largest says nothing of it.
LEAST_CURVATURE = 1e-3
# Rotation and translation, of which the second is 1.
TRANSLATION = torch.tensor([0.0] * 3 + [1.0] * 3, dtype=torch.float64)
UNITS = torch.tensor([RADIUS] * 3 + [1.0] * 3, dtype=torch.float64)


def estimate_packages(
    scan: RegisteredScan,
    target: Grid,
    count: int = 2,
    *,
    least: float = 0.0,
    report: ProgressCallback | None = None,
) -> RegisteredScan:
    """Estimate the rigid motion of every `count`-th slice of a scan relative to the first package.

    All packages make one volume; each but the first takes a Gauss-Newton step towards it, in each round. Its own share
    in the volume holds a package near its position: Anderson acceleration takes the rounds to their fixed point, which
    is the minimum of ``||A(motion) x - y||^2 + smoothness ||grad x||^2`` over volume and motion. Evenly spaced slices
    have the smaller minima: motion across the slices is found too small, by 30 to 40 %. In more rounds, of translation
    alone, the slope that they pretend at the motion so far is taken off (`evenness`). Once: at what comes out of that,
    again and again, errors would grow with it.

    Parameters
    ----------
    scan : RegisteredScan
        Intensities relative to bright tissue.
    target : Grid
        Grid whose field of view the volume covers.
    count : int
        Number of packages: slice n belongs to package n modulo count.
    least : float, mm
        Motion that is found smaller at first is none (`amount`): where the first round tells, it is the only one.
    report : callable, optional
        Called with the share that is done, 0 to 1, and the motion of the last round, mm.

    References
    ----------
    Walker, Ni (2011), SIAM J. Numer. Anal. 49, 1715-1735 (Anderson acceleration).
    """
    grid, coarse = _coarse(scan, target)
    package = torch.arange(len(scan.motion)) % count
    used = scan.weights > 0
    members = [used & (package == n) for n in range(1, count)]
    rounds, left = Steps(report), 2 * ROUNDS

    def of_packages(each: Tensor) -> Tensor:
        return torch.stack([each[some].sum(0) for some in members])

    def once(here: Tensor, pretence: Tensor | None = None) -> Tensor:
        nonlocal left
        with rounds.step(left):
            found = _fitted(replace(coarse, motion=_of_slices(here, package)), grid)
        left -= 1
        curvature, slope = of_packages(found.curvature), of_packages(found.slope)
        if pretence is not None:  # rotation stays: it is known too badly to follow
            curvature, slope = curvature * TRANSLATION[:, None] * TRANSLATION, (slope - pretence) * TRANSLATION
        there = composed(_steps(curvature, slope), here)
        rounds.tell({"motion_mm": amount(there), "rejected": 0.0})
        return there

    def advanced(flat: Tensor) -> Tensor:
        return (once(flat.reshape(-1, 6) / UNITS) * UNITS).flatten()

    found = torch.zeros(count - 1, 6, dtype=torch.float64)
    if amount(once(found)) > FIRST_SHARE * least:
        found = anderson(advanced, found.flatten(), rtol=CHANGE, max_iter=ROUNDS).v.reshape(-1, 6) / UNITS
    # Whether there is motion is decided before: what is taken off enlarges errors, too.
    if amount(found) < least:
        found = torch.zeros_like(found)
    elif bool(found.any()):
        left, turns = ROUNDS, found[:, :3]
        pretence = of_packages(_pretended(replace(coarse, motion=_of_slices(found, package)), grid, package))

        def shifted(flat: Tensor) -> Tensor:
            return once(torch.cat([turns, flat.reshape(-1, 3)], 1), pretence)[:, 3:].flatten()

        shifts = anderson(shifted, found[:, 3:].flatten(), rtol=CHANGE, max_iter=ROUNDS).v
        found = torch.cat([turns, shifts.reshape(-1, 3)], 1)
    return replace(scan, motion=_of_slices(found, package))


def shares(scan: RegisteredScan, target: Grid) -> Tensor:
    """The share of the scan's motion that each slice finds on its own, shape (n_slices,); NaN where it says nothing.

    It is that of a Gauss-Newton step towards the volume of the slices as they lie, along the slice's motion against its
    neighbours. Of packages that moved, nearly all slices find about the same share. Motion that anatomy pretends is
    found by some slices, and its opposite by others.

    Parameters
    ----------
    scan : RegisteredScan
        As `estimate_packages` returns it.
    target : Grid
    """
    grid, coarse = _coarse(scan, target)
    found = _fitted(replace(coarse, motion=torch.zeros_like(scan.motion)), grid)
    around = torch.cat([scan.motion[1:2], scan.motion, scan.motion[-2:-1]])
    against = scan.motion - 0.5 * (around[:-2] + around[2:])
    slope = (found.slope * against).sum(1)
    curvature = torch.einsum("ni,nij,nj->n", against, found.curvature, against)
    used = (scan.weights > 0) & (curvature > LEAST_CURVATURE * curvature.max())
    return torch.where(used, slope / curvature, torch.nan)


def amount(motion: Tensor) -> float:
    """Of motions, shape (n, 6), the largest: translation with the way of a point at `RADIUS` that turns, mm."""
    return float((motion * UNITS).norm(dim=1).max())


def turned(target: Grid, spacing: float) -> Grid:
    """Isotropic voxels that cover a grid's field of view, turned by `TURN` against its axes."""
    from scipy.spatial.transform import Rotation

    directions = target.directions @ Rotation.from_euler("xyz", TURN, degrees=True).as_matrix()
    extent = np.abs(directions.T @ target.directions) @ target.extent
    shape = np.ceil(extent / spacing).astype(int).tolist()
    return Grid.from_spacing(shape, spacing, centre=target.centre.tolist(), directions=directions)


def _coarse(scan: RegisteredScan, target: Grid) -> tuple[Grid, RegisteredScan]:
    """The grid of the volume, and the scan with pixels as large as its voxels."""
    grid = turned(target, max(VOXEL, float(target.spacing.min())))
    if grid.size > MOST_VOXELS:
        grid = turned(target, float(grid.spacing[0]) * (grid.size / MOST_VOXELS) ** (1 / 3))
    return grid, scan.coarser(float(grid.spacing[0]))


def _fitted(scan: RegisteredScan, grid: Grid) -> SliceFit:
    """Its slices against the volume that they make."""
    return fit(volume_of([scan], grid, RTOL, MAX_ITER), grid, scan, RESIDUAL_SD)


def _pretended(scan: RegisteredScan, grid: Grid, package: Tensor) -> Tensor:
    """What uneven distances add to the slope of each slice against the volume that they make (`evenness`)."""
    between = float(scan.grid.spacing[scan.axis])
    pixel = math.sqrt(math.prod(scan.grid.spacing) / between)
    rise = evenness(scan.profile, between, int(package.max()) + 1, pixel, float(grid.spacing[0]))
    return pretended(scan, volume_of([scan], grid, RTOL, MAX_ITER), grid, package, rise)


def _of_slices(moved: Tensor, package: Tensor) -> Tensor:
    """The motion of each slice, from those of all packages but the first."""
    return torch.cat([torch.zeros(1, 6, dtype=moved.dtype), moved])[package]


def _steps(curvature: Tensor, slope: Tensor) -> Tensor:
    """Towards the volume, shape (n, 6); none of a package that shows nothing of it."""
    least = torch.diag_embed(UNITS**2 + torch.diagonal(curvature, dim1=-2, dim2=-1))
    step: Tensor = torch.linalg.solve(curvature + 1e-6 * least, slope)
    length = (step * UNITS).norm(dim=1, keepdim=True)
    return torch.mul(step, (LONGEST_STEP / length.clamp(min=1e-12)).clamp(max=1.0))
