"""Bias field between scans: the exponential of a quadratic polynomial of position."""

from __future__ import annotations

import torch
from torch import Tensor

from invsr.grid import Grid
from invsr.motion.align import LEAST_INTENSITY, RADIUS, RegisteredScan

N_TERMS = 9
# Expected size of the coefficients: a factor of exp(0.2) at RADIUS from the centre.
EXPECTED_COEFFICIENT = 0.2
# Residual motion causes errors over whole structures: this many pixels count as one.
CORRELATED_RATIOS = 30.0
# Largest logarithm of the field.
MOST_LOG_FIELD = 0.7
# Rounds of reweighting, and the residual, in robust standard deviations, above which pixels are down-weighted.
REWEIGHTING_ROUNDS = 5
OUTLIER_RATIO = 3.0
LEAST_PIXELS = 200


def field(bias: Tensor, grid: Grid, centre: Tensor) -> Tensor:
    """The bias field: factor of a scan's intensities, shape (1, 1, *grid.shape), float64.

    Parameters
    ----------
    bias : Tensor, shape (9,)
        Coefficients of its logarithm: x, y, z, x^2, y^2, z^2, xy, xz, yz, in units of 50 mm from `centre`.
    grid : Grid
        Grid of the scan, from its header.
    centre : Tensor, shape (3,), mm
    """
    return torch.exp((_terms(grid, centre) @ bias).clamp(-MOST_LOG_FIELD, MOST_LOG_FIELD))[None, None]


def estimate_bias(volume: Tensor, domain: Grid, scan: RegisteredScan) -> Tensor:
    """Coefficients of a scan's bias field relative to a volume, shape (9,); they include the present ``scan.bias``.

    Robust (Geman & McClure), damped least squares on the logarithm of data over prediction, where both are bright.
    The constant term is the gain of the scan and is left out.
    """
    # A few coefficients of a coarse scan: on the CPU, as the terms are.
    predicted, data = (one[0, 0].cpu().double() for one in (scan.slices(domain)(volume), scan.data))
    shape = [1, 1, 1]
    shape[scan.axis] = -1
    bright = (predicted > LEAST_INTENSITY) & (data > LEAST_INTENSITY) & (scan.weights.reshape(shape) > 0)
    if scan.mask is not None:
        bright = bright & scan.mask[0, 0].cpu()
    if int(bright.sum()) < LEAST_PIXELS:
        return scan.bias
    terms = _terms(scan.grid, scan.centre)[bright]
    terms = torch.cat([terms, torch.ones_like(terms[:, :1])], 1)
    ratio, strength = torch.log(data[bright] / predicted[bright]), predicted[bright] ** 2
    damping = torch.full((N_TERMS + 1,), EXPECTED_COEFFICIENT**-2, dtype=torch.float64)
    damping[-1] = 0.0
    before = torch.cat([scan.bias, torch.zeros(1, dtype=torch.float64)])
    ratio = ratio + terms @ before
    found = before.clone()
    found[-1] = (ratio - terms @ before).median()
    for _ in range(REWEIGHTING_ROUNDS):
        residual = ratio - terms @ found
        residual_sd = max(1.4826 * float(residual.abs().median()), 1e-3)
        weights = strength / (strength.mean() * CORRELATED_RATIOS * residual_sd**2)
        weights = weights / (1 + (residual / (OUTLIER_RATIO * residual_sd)) ** 2) ** 2
        normal = terms.mT @ (weights[:, None] * terms) + torch.diag(damping)
        found = torch.linalg.solve(normal, terms.mT @ (weights * ratio))
    return found[:-1]


def _terms(grid: Grid, centre: Tensor) -> Tensor:
    x, y, z = ((torch.from_numpy(grid.points()) - centre) / RADIUS).unbind(-1)
    return torch.stack([x, y, z, x * x, y * y, z * z, x * y, x * z, y * z], -1)
