"""Evenly spaced slices fit better than slices that moved, wherever they were: what that pretends of their motion."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from invsr.grid import Grid
from invsr.motion.align import CORRELATED_PIXELS, RegisteredScan, lever_arms
from invsr.motion.joint import VOLUME_SMOOTHNESS
from invsr.operators.profiles import AxisProfile

# Power of anatomy falls with this power of frequency: between the 1 / k^2 for which the squared gradient is the right
# prior, and the 1 / k^4 of an edge.
ANATOMY = 3.0
# Frequencies within the slices, frequencies across them, and aliases of each of these on either side.
WITHIN, ACROSS, ALIASES = 24, 16, 8
# Displacement over which the slope is taken, a share of the slice spacing.
SMALL = 0.1

Array = npt.NDArray[np.float64]


def evenness(profile: AxisProfile, spacing: float, count: int, pixel: float, voxel: float) -> Tensor:
    """The slope of the misfit at the true displacements of packages, which should be 0 there.

    Slices close to each other have to agree, evenly spaced ones bind a smooth volume least: any data fit it better
    there. With S(d) the covariance of data at displacements d that the smooth volume takes for granted, and T(d) that
    of anatomy, the misfit is on average

        ``Q(d) = tr(S(d)^-1 T(truth))``,

    which is least nearer to even distances than the truth is. If S is T, its slope is that of ``-log det S``, the term
    that the marginal likelihood of the motion has beside the misfit.

    Parameters
    ----------
    profile : AxisProfile
    spacing : float, mm
        Distance between slices.
    count : int
        Number of packages.
    pixel, voxel : float, mm
        Sizes of pixels and of the voxels of the volume.

    Returns
    -------
    Tensor, shape (count, count), 1 / mm^2
        K, with ``-1/2 dlog Q / dd = K d`` at the truth, for displacements d across the slices that are small.
    """

    def slope(moved: Array) -> Array:
        return _slope(profile, spacing, moved, pixel, voxel)

    small = SMALL * spacing
    columns = [(slope(small * one) - slope(-small * one)) / (2 * small) for one in np.eye(count)]
    return torch.from_numpy(np.stack(columns, 1))


def _slope(profile: AxisProfile, spacing: float, moved: Array, pixel: float, voxel: float) -> Array:
    """``-1/2 dlog Q / dd`` at the truth, shape of `moved`."""
    count = len(moved)
    within = (np.arange(WITHIN) + 0.5) / WITHIN * math.pi / pixel
    aliases = np.arange(-ALIASES, ALIASES + 1)
    across = 2 * math.pi / (count * spacing) * ((np.arange(ACROSS)[:, None] + 0.5) / ACROSS + aliases)
    offsets, weights = (profile.offsets * profile.width).double().numpy(), profile.weights.double().numpy()
    passed = np.abs(np.exp(1j * across[..., None] * offsets) @ weights) ** 2
    square = within[:, None, None] ** 2 + across**2
    # The smooth volume's prior relative to white noise of 1.
    prior = passed / square / (VOLUME_SMOOTHNESS * pixel**2 / voxel * count * spacing)
    phases = np.exp(1j * across[..., None] * (np.arange(count) * spacing + moved))

    def covariance(power: Array) -> npt.NDArray[np.complex128]:
        """Of packages at each frequency, shape (within, across, count, count), aliases summed."""
        found: npt.NDArray[np.complex128] = np.einsum("wam,amp,amq->wapq", power, phases, phases.conj())
        return found

    inverse = np.linalg.inv(covariance(prior) + np.eye(count))
    seen = inverse @ covariance(passed / square ** (ANATOMY / 2))
    # A package that moves changes its row of S, and as much its column.
    change = 1j * covariance(across * prior)
    slopes = np.einsum("wapq,waqp->wap", change, seen @ inverse).real.mean(1)
    misfits = np.trace(seen, axis1=-2, axis2=-1).real.mean(1)
    # Frequencies within the slices have two directions.
    slope: Array = (within @ slopes) / (within @ misfits)
    return slope


def pretended(scan: RegisteredScan, volume: Tensor, domain: Grid, package: Tensor, uneven: Tensor) -> Tensor:
    """What uneven distances add to the slope of each slice's fit (`SliceFit`), shape (n_slices, 6): to translation.

    To rotation they add as well, but where slices say little of it, to take that off would blow its errors up.

    Parameters
    ----------
    scan : RegisteredScan
        At the motion whose slope it is.
    volume : Tensor, shape (1, 1, *domain.shape)
        The volume that its slices make.
    domain : Grid
    package : Tensor, shape (n_slices,)
        The package that each slice belongs to.
    uneven : Tensor, shape (count, count), 1 / mm^2
        What `evenness` returns.
    """
    slices, normal = scan.slices(domain), torch.from_numpy(scan.grid.directions[:, scan.axis])
    normal, count = normal.to(scan.data.device), len(uneven)
    data, predicted = (one.movedim(2 + scan.axis, 2)[0, 0].double() for one in (scan.data, slices(volume)))
    # Each pixel's part in ||A x - y||^2 + smoothness ||grad x||^2, which is y (y - A x) where that is least.
    misfit = data * (data - predicted) * scan.weights.to(data)[:, None, None]
    if scan.mask is not None:
        misfit = misfit * scan.mask.movedim(2 + scan.axis, 2)[0, 0]
    still = replace(scan, motion=torch.zeros_like(scan.motion))
    at_rest = lever_arms(still, still.slices(domain).to(scan.data.device), data.shape)
    one_of_each = torch.stack([(package == n).nonzero()[0, 0] for n in range(count)])
    turns = slices.matrices()[one_of_each, :3, :3]
    # How far each package has moved across the slices, at every pixel.
    across = at_rest @ (turns.mT @ normal - normal).T + scan.motion[one_of_each, 3:].to(normal) @ normal
    force = (across * uneven.to(data)[package][:, None, None]).sum(-1) * misfit * (count / CORRELATED_PIXELS)
    slope = torch.zeros(len(scan.motion), 6, dtype=torch.float64)
    slope[:, 3:] = (force.sum((1, 2))[:, None] * normal).cpu()
    return slope
