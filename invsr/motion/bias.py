"""How coils shade one scan against another: a smooth factor, the exponential of a quadratic polynomial of place."""

from __future__ import annotations

import torch
from torch import Tensor

from invsr.grid import Grid
from invsr.motion.align import BRIGHT, RADIUS, Scan

N_TERMS = 9
# Coefficients are expected to be about this large: a factor of exp(0.2) at RADIUS from the centre.
EXPECTED = 0.2
# What is left of motion errs alike over whole structures: as if this many pixels were one.
CORRELATED = 30.0
# A field is never taken to be off by more than this factor's logarithm.
MOST = 0.7
# Rounds of reweighting, and residuals in robust standard deviations from which on pixels count for less.
N_ROUNDS, OUTLYING = 5, 3.0
LEAST_PIXELS = 200


def field(bias: Tensor, grid: Grid, centre: Tensor) -> Tensor:
    """By what a scan's intensities are multiplied, shape (1, 1, *grid.shape), float64.

    Parameters
    ----------
    bias : Tensor, shape (9,)
        Coefficients of x, y, z, x^2, y^2, z^2, xy, xz, yz, in units of 50 mm from `centre`, of the logarithm.
    grid : Grid
        Of the scan, where its header says.
    centre : Tensor, shape (3,), mm
    """
    return torch.exp((_terms(grid, centre) @ bias).clamp(-MOST, MOST))[None, None]


def estimate_bias(volume: Tensor, domain: Grid, scan: Scan) -> Tensor:
    """Coefficients of a scan's field against a volume, all of it: what its data were divided by included; shape (9,).

    Least squares of the logarithm of data over prediction where both are bright, robust (Geman & McClure) and damped.
    The constant is the scan's gain and is not part of it.
    """
    predicted, data = scan.slices(domain)(volume).double()[0, 0], scan.data.double()[0, 0]
    shape = [1, 1, 1]
    shape[scan.axis] = -1
    bright = (predicted > BRIGHT) & (data > BRIGHT) & (scan.weights.reshape(shape) > 0)
    if scan.mask is not None:
        bright = bright & scan.mask[0, 0]
    if int(bright.sum()) < LEAST_PIXELS:
        return scan.bias
    terms = _terms(scan.grid, scan.centre)[bright]
    terms = torch.cat([terms, torch.ones_like(terms[:, :1])], 1)
    ratio, strength = torch.log(data[bright] / predicted[bright]), predicted[bright] ** 2
    damping = torch.full((N_TERMS + 1,), EXPECTED**-2, dtype=torch.float64)
    damping[-1] = 0.0
    before = torch.cat([scan.bias, torch.zeros(1, dtype=torch.float64)])
    ratio = ratio + terms @ before
    found = before.clone()
    found[-1] = (ratio - terms @ before).median()
    for _ in range(N_ROUNDS):
        residual = ratio - terms @ found
        spread = max(1.4826 * float(residual.abs().median()), 1e-3)
        weights = strength / (strength.mean() * CORRELATED * spread**2)
        weights = weights / (1 + (residual / (OUTLYING * spread)) ** 2) ** 2
        normal = terms.mT @ (weights[:, None] * terms) + torch.diag(damping)
        found = torch.linalg.solve(normal, terms.mT @ (weights * ratio))
    return found[:-1]


def _terms(grid: Grid, centre: Tensor) -> Tensor:
    x, y, z = ((torch.from_numpy(grid.points()) - centre) / RADIUS).unbind(-1)
    return torch.stack([x, y, z, x * x, y * y, z * z, x * y, x * z, y * z], -1)
