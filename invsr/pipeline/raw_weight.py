"""The weight of classical priors for k-space, by cross-validation: samples that are left out are to be predicted."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from invsr.grid import Grid
from invsr.noncartesian import NonCartesianData
from invsr.numerics.fourier import inverse_fourier
from invsr.pipeline.raw_matrix import unstacked
from invsr.pipeline.raw_operator import kspace_operator
from invsr.priors.base import Prior
from invsr.raw import Data, KSpaceData
from invsr.solvers.plug_and_play import iterate, smooth_guess
from invsr.solvers.steps import ADMM

# Share of the samples that are left out, at random.
HELD = 0.1
# Positions along a complete readout of which the slab consists that the weight is found on.
SLAB = 16
# First weight as a share of the noise per voxel, and the factor from one weight to the next.
FIRST, FACTOR = 0.14, 2.0
# Weight of quadratic priors as a share of the squared noise per voxel: one over the mean square of slopes. Set on
# stroke_T2w (benchmarks/kspace) with noise of 0.3 to 3 %, where a chi2 of 1 and cross-validation find worse ones: with
# oversampled readouts chi2 hardly tells weights apart, and samples that are seen once are hard to predict.
QUADRATIC = 60.0
# Most weights that are tried, and iterations of each.
MOST_WEIGHTS, ITERATIONS = 7, 15


@dataclass(frozen=True)
class Slab:
    """Some positions along the readout, of data on the matrix as measured.

    Attributes
    ----------
    raw : RawData or NonCartesianData
    maps : Tensor or None, shape (coils, *raw.grid.shape)
    sigma : float
        Standard deviation of the noise of a sample of one average.
    weights : dict
        Those that were found, by prior and scale.
    """

    raw: KSpaceData
    maps: Tensor | None
    sigma: float
    weights: dict[tuple[object, ...], float] = field(default_factory=dict)


def slab_of(raw: KSpaceData, maps: Tensor | None, sigma: float) -> Slab:
    """The positions of most signal along an axis that was measured completely; all data where there is none.

    Off the Cartesian grid: the slices of most signal.
    """
    if isinstance(raw, NonCartesianData):
        return _slices(unstacked(raw), maps, sigma)
    for n in raw.axes:
        if len(raw.axes) > 1 and raw.grid.shape[n] > SLAB and bool((raw.counts == raw.counts.narrow(n, 0, 1)).all()):
            break
    else:
        return Slab(raw, maps, sigma)
    others = [m for m in range(5) if m != 2 + n]
    energy = torch.zeros(raw.grid.shape[n], dtype=torch.float64, device=raw.samples.device)
    for coil in raw.samples[0]:
        energy += inverse_fourier(coil, [n]).abs().square().sum([m - 2 for m in others[2:]]).double()
    first = _brightest(energy)
    parts = [inverse_fourier(coil, [n]).narrow(n, first, SLAB) for coil in raw.samples[0]]
    grid = _part(raw.grid, n, first, SLAB)
    counts = raw.counts.narrow(n, first, SLAB)
    axes = tuple(m for m in raw.axes if m != n)
    cut = raw.with_samples(torch.stack(parts)[None], counts=counts, grid=grid, axes=axes, calibration=None)
    return Slab(cut, None if maps is None else maps.narrow(1 + n, first, SLAB), sigma)


def weight_for(slab: Slab, prior: Prior, scale: float) -> float:
    """The weight that `cross_validated` finds, once for all reconstructions of the same data.

    For quadratic priors it is the one that follows from the noise (`QUADRATIC`).
    """
    if prior.quadratic:
        return QUADRATIC * (slab.sigma / scale * float(slab.raw.grid.spacing.min())) ** 2
    key = (type(prior).__name__, getattr(prior, "huber", 0.0), scale)
    if key not in slab.weights:
        slab.weights[key] = cross_validated(slab, prior, scale)
    return slab.weights[key]


def cross_validated(slab: Slab, prior: Prior, scale: float, seed: int = 0) -> float:
    """The weight, for data scaled to a peak of 1, with which samples that were left out are predicted best.

    Parameters
    ----------
    slab : Slab
    prior : Prior
        With a cost.
    scale : float
        Intensity that counts as 1.
    seed : int
        For the choice of the samples.

    References
    ----------
    Stone (1974), J. R. Stat. Soc. B 36, 111-147.
    """
    raw, sigma = slab.raw, slab.sigma / scale
    spacing = float(raw.grid.spacing.min())
    shape = _drawn_along(raw)
    drawn = torch.rand(shape, generator=torch.Generator().manual_seed(seed)).to(raw.counts.device)
    weights = raw.counts.sqrt()
    held, kept = weights * (drawn < HELD), weights * (drawn >= HELD)
    training, test = (kspace_operator(raw, one, slab.maps) for one in (kept, held))
    y = raw.samples / scale
    seen, left_out = y * kept, y * held
    x = smooth_guess(training, seen)
    errors: dict[int, float] = {}

    def error(n: int) -> float:
        """Squared error of the samples that were left out, with the n-th weight."""
        nonlocal x
        if n not in errors:
            lam = FIRST * sigma * spacing * FACTOR**n
            x = iterate(ADMM(), training, seen, prior, lam=lam, sigma=sigma, x0=x, max_iter=ITERATIONS).x
            errors[n] = float((test(x) - left_out).abs().square().sum())
        return errors[n]

    best = 0
    for direction in (1, -1):
        while len(errors) < MOST_WEIGHTS and error(best + direction) < error(best):
            best += direction
    below, at, above = (math.log(error(n)) for n in (best - 1, best, best + 1))
    bend = below - 2 * at + above
    offset = 0.5 * (below - above) / bend if bend > 0 else 0.0
    return FIRST * sigma * spacing * math.pow(FACTOR, best + min(max(offset, -0.5), 0.5))


def _drawn_along(raw: KSpaceData) -> list[int]:
    """Sizes of what is drawn at random: samples along readouts that were transformed go together."""
    if isinstance(raw, NonCartesianData):
        return [*raw.counts.shape[:2], 1]
    return [size if n in raw.axes or n == raw.slice_axis else 1 for n, size in enumerate(raw.grid.shape)]


def _brightest(energy: Tensor) -> int:
    """The first of the `SLAB` neighbours of most energy."""
    sums = energy.cumsum(0)
    sums = sums[SLAB - 1 :] - torch.cat([sums.new_zeros(1), sums[:-SLAB]])
    return int(sums.argmax())


def _slices(raw: Data, maps: Tensor | None, sigma: float) -> Slab:
    n = next((n for n in (0, 1, 2) if n not in raw.axes), None)
    if n is None or raw.grid.shape[n] <= SLAB:
        return Slab(raw, maps, sigma)
    first = _brightest(raw.samples.abs().square().sum((0, 1, 2, 3)).double())
    samples, counts = (one.narrow(-1, first, SLAB) for one in (raw.samples, raw.counts))
    cut = raw.with_samples(samples, counts=counts, grid=_part(raw.grid, n, first, SLAB), calibration=None)
    return Slab(cut, None if maps is None else maps.narrow(1 + n, first, SLAB), sigma)


def _part(grid: Grid, axis: int, first: int, size: int) -> Grid:
    """Some layers of a grid across an axis."""
    affine, shape = grid.affine.copy(), list(grid.shape)
    affine[:3, 3] += first * affine[:3, axis]
    shape[axis] = size
    return Grid(shape, affine)
